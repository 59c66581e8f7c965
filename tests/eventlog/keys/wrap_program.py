"""A key provider's program, as an operator would write one: `wrap_program.py KEYS`, with `<id> <hex>` a line.

The first line is current. Standard library alone, so that it starts fast: a keystream and a tag from HMAC-SHA256,
encrypt-then-MAC.
"""

import base64
import hmac
import json
import os
import sys
from pathlib import Path

MISSING, DAMAGED, LATER = 2, 3, 75


def mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


def mask(key: bytes, nonce: bytes, data: bytes) -> bytes:
    stream = b"".join(mac(key, b"stream", nonce, bytes([block])) for block in range(len(data) // 32 + 1))
    return bytes(one ^ other for one, other in zip(data, stream, strict=False))


def main() -> int:
    request = json.load(sys.stdin)
    path = Path(sys.argv[1])
    if not path.exists():
        print("the HSM is away; its PIN is hunter2", file=sys.stderr)
        return LATER
    keys = dict(line.split() for line in path.read_text().splitlines())
    bound = json.dumps([request["class"], request["context"]]).encode()
    if request["op"] == "wrap":
        key_id, key = next((name, bytes.fromhex(text)) for name, text in keys.items())
        nonce = os.urandom(16)
        body = mask(key, nonce, base64.b64decode(request["material"]))
        blob = nonce + body + mac(key, b"tag", nonce, body, bound)
        json.dump({"key_id": key_id, "blob": base64.b64encode(blob).decode()}, sys.stdout)
        return 0
    if request["key_id"] not in keys:
        return MISSING
    key, blob = bytes.fromhex(keys[request["key_id"]]), base64.b64decode(request["blob"])
    nonce, body, tag = blob[:16], blob[16:-32], blob[-32:]
    if not hmac.compare_digest(tag, mac(key, b"tag", nonce, body, bound)):
        print("the material would have been", mask(key, nonce, body), file=sys.stderr)
        return DAMAGED
    json.dump({"material": base64.b64encode(mask(key, nonce, body)).decode()}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
