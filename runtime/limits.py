"""Every bound of the running parts, in one place, each with its reason. (The domain's own bounds are in mesh/limits.py.)"""

from __future__ import annotations

# --- runtime
SHUTDOWN_GRACE_S = 5.0
"""How long a role may take to finish what is in flight after SIGTERM."""

# --- feed (projector <-> frontend)
FEED_REQUEST_BYTES_MAX = 64 * 1024
"""A frame from a frontend names one node or one number; an address list never goes this way."""
FEED_FRAME_BYTES_MAX = 64 * 1024 * 1024
"""A frame from a projector holds one node's whole set at most: some 40 000 clusters of 1.5 KiB."""
FEED_NAME_BYTES_MAX = 4 * 1024
"""One name, id, zone, address, type URL, version or alarm on the feed."""
FEED_RESOURCES_MAX = 65_536
"""Resources (or removals) in one snapshot frame; bounds what the decoder allocates before it looks closer."""
FEED_ALARMS_MAX = 256
"""Alarms sent along with one node; the rest are counted in the last one."""
FEED_PROJECTORS_MAX = 64
"""Projectors that a frontend keeps in its list: three zones with some in each, and room for a rolling replacement."""
FEED_NODES_MAX = 20_000
"""Nodes that one frontend may follow: a cell of a few thousand proxies, all on one frontend, with room."""
FEED_CONFIRMS_MAX = 16
"""Unanswered confirms on one stream. A client keeps one in flight; more than a few is a broken client."""
FEED_STREAMS_MAX = 256
"""Frontends on one projector."""
FEED_HEARTBEAT_S = 0.25
"""Between heartbeats; they carry the age of the confirmed head."""
FEED_HEAD_READ_S = 0.5
"""Between a projector's own quorum reads of the head, when nobody asks sooner."""
FEED_HEAD_READ_TIMEOUT_S = 2.0
"""One such read. Above etcd's election time, so that one leader change costs one read."""
FEED_CONFIRM_TIMEOUT_S = 30.0
"""The longest a projector works on one confirm, whatever the frontend asks."""
FEED_SILENCE_S = 2.0
"""A stream without any frame for this long (eight heartbeats) is dead: a stopped process, a cut link."""
FEED_DIAL_TIMEOUT_S = 1.0
"""From dialling to the projector's hello; then the next projector is tried."""
FEED_BACKOFF_FIRST_S = 0.1
"""Wait before the second attempt at one projector; doubles (with jitter) at each failure. Other projectors are tried at once."""
FEED_BACKOFF_MAX_S = 3.0
"""Cap of that wait: a projector that is back is found within it."""
FEED_STALE_S = 2.0
"""Age of the confirmed head from which a frontend looks for a fresher projector."""
FEED_FRESHER_BY_S = 1.0
"""A projector must be this much fresher to be worth a move, or two equally stale ones would swap places for ever."""
FEED_PROBE_S = 1.5
"""How long a probed projector may take to prove itself fresher before the next one is probed."""
FEED_PROBE_PAUSE_S = 2.0
"""Between probes of other projectors, while the present one is stale or not in this zone; jittered up to twice that."""
FEED_HOME_STEADY_S = 2.0
"""How long the own zone's projector must have been fresh before a frontend goes home to it."""
FEED_HIGH_WATER_NODES_MAX = 16_384
"""Nodes without a watch whose last served position is still remembered (about 200 bytes each)."""
FEED_CONFIRM_RETRY_S = 0.1
"""Before a refused confirm is asked again, while somebody still waits for it."""

# --- identity
SIGV4_WINDOW_S = 300
"""How far a signature's time may be from ours, either way: AWS's ±5 minutes. Replays inside it meet the tokens in the log."""

# --- cluster: certificates
AUTHORITY_LIFETIME_S = 10 * 365 * 24 * 3600
"""A trust root: replacing one touches every host, so it outlives the hardware."""
LEAF_LIFETIME_S = 397 * 24 * 3600
"""A role's or etcd member's certificate: the longest that public TLS practice still accepts; `up` renews them early."""
LEAF_RENEW_SHARE = 1 / 3
"""Renew a certificate when less than this share of its life is left: months to notice that renewal does not work."""
PROXY_LIFETIME_S = 24 * 3600
"""A proxy's certificate: there is no revocation list, so a stolen one must die by itself within a day."""
CERTIFICATE_BACKDATE_S = 300
"""Certificates begin this long before they are made, so that a host whose clock is a little behind accepts them."""
CSR_SIZE_BYTES = 16 * 1024
"""A signing request with an RSA-4096 key is under 2 KiB; more is not a signing request."""
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 4096
"""Below is breakable; above, one handshake costs more CPU than a push."""

# --- cluster: etcd members as processes
ETCD_VERSION_TIMEOUT_S = 20.0
"""`etcd --version` takes 50 ms; on a host that is starting a whole cluster it may wait for a CPU."""
