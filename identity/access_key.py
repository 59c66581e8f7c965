"""A new SigV4 key pair: what it looks like. Pure, but for the randomness that it is given."""

from __future__ import annotations

import base64

from runtime.clock import Entropy

_ID_BYTES, _SECRET_BYTES = 10, 30
"""16 characters of base32 and 40 of base64, as AWS's own have."""


def draw_key(entropy: Entropy) -> tuple[str, str]:
    """An access key id and its secret. The id begins MLOG, so that nobody takes it for one of AWS's."""
    access_key_id = "MLOG" + base64.b32encode(entropy.token_bytes(_ID_BYTES)).decode()
    # No '/' or '+': people paste these into URLs and shells.
    return access_key_id, base64.b64encode(entropy.token_bytes(_SECRET_BYTES), altchars=b"Az").decode()
