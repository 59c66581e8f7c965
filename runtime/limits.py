"""Every bound of the running parts, in one place, each with its reason. (The domain's own bounds are in
mesh/limits.py.)"""

from __future__ import annotations

# --- runtime
SHUTDOWN_GRACE_S = 5.0
"""How long a role may take to finish what is in flight after SIGTERM."""

THREAD_SWITCH_S = 0.0005
"""How long the event loop may keep the interpreter from a thread that has an answer of etcd or of a gRPC peer. Python's
own 5 ms are longer than an append takes."""

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
"""Wait before the second attempt at one projector; doubles (with jitter) at each failure. Other projectors are tried
at once."""
FEED_BACKOFF_MAX_S = 3.0
"""Cap of that wait: a projector that is back is found within it."""
FEED_STALE_S = 2.0
"""Age of the confirmed head from which a frontend looks for a fresher projector."""
FEED_FRESHER_BY_S = 1.0
"""A projector must be this much fresher to be worth a move, or two equally stale ones would swap places for ever."""
FEED_PROBE_S = 1.5
"""How long a probed projector may take to prove itself fresher before the next one is probed."""
FEED_PREPARE_S = 10.0
"""How long a better projector may take to send every node before the move is given up for now."""
FEED_PROBE_PAUSE_S = 2.0
"""Between probes of other projectors, while the present one is stale or not in this zone; jittered up to twice that."""
FEED_TICK_S = 0.1
"""Between looks at the frontend's deadlines (dials, silence, probes)."""
FEED_STALL_S = 0.5
"""A look that comes later than this is late because this process did not run: deadlines of others wait as long."""
FEED_HOME_STEADY_S = 2.0
"""How long the own zone's projector must have been fresh before a frontend goes home to it."""
FEED_HIGH_WATER_NODES_MAX = 16_384
"""Nodes without a watch whose last served position is still remembered (about 200 bytes each)."""
FEED_CONFIRM_HEDGE_S = 0.5
"""A confirm unanswered for this long no longer holds up those who asked after it: they get one of their own."""
FEED_CONFIRM_RETRY_S = 0.1
"""Before a refused confirm is asked again, while somebody still waits for it."""

# --- identity
SIGV4_WINDOW_S = 300
"""How far a signature's time may be from ours, either way: AWS's ±5 minutes. A recorded call with a clientToken meets
that token in the log when it is replayed; one without (a delete) is done again: keep plain HTTP off open networks."""

PRESIGNED_LIFETIME_S = 7 * 24 * 3600
"""The longest life of a presigned URL, as at AWS."""
SESSION_S_MIN, SESSION_S_DEFAULT, SESSION_S_MAX = 900, 3600, 12 * 3600
"""How long a role's temporary credentials may live: AssumeRole's own bounds and default."""
SESSION_TOKEN_S_DEFAULT, SESSION_TOKEN_S_MAX = 12 * 3600, 36 * 3600
"""The same of GetSessionToken; the least is the same."""
SESSION_CHAINED_S_MAX = 3600
"""The longest life of a session that another role's session asked for, as at AWS."""
SESSION_TOKEN_CHARS = 16 * 1024
"""A session token: with the largest session policy under 5 KiB."""
SESSION_KEY_AGE_S = 30.0
"""A data key must be this old before a session is sealed under it, so that all servers have it (KEYRING_REFRESH_S)."""
REFUSAL_CONFIRM_S = 1.0
"""How long a refusal waits for the head to be confirmed: a key may have been made a moment ago, elsewhere."""
PROXY_CHECK_BYTES_MAX = 1024 * 1024
"""A message about proxies' credentials, either way."""
PROXY_HEADERS_MAX = 64
"""Signed headers of a proxy: half a dozen, and room."""
PROXY_NAMES_MAX = 64
"""Names that a frontend may be dialled by; each costs a verification (0.1 ms) until the signed one is found."""
GRANTS_ASKED_MAX = 2_000
"""Grants in one question after them; a frontend with more open streams asks several."""
GRANTS_ASKED_SIZE_BYTES = 512 * 1024
"""And their bytes: one with a session token has some 1.5 KiB, without 0.1."""
GRANTS_EVERY_S = 5.0
"""Between questions whether the credentials of open streams still count: so long a revoked one may go on."""
PROXY_CHECK_S = 5.0
"""One API server's time for such a question; then the next one is asked."""
XDS_CONNECTION_IDLE_S = 60.0
"""A connection without a stream: a proxy has one all the time, and one that signs nothing need not be a proxy."""
XDS_HANDSHAKE_S = 10.0
"""From accepting a connection to the end of its TLS handshake: five round trips on a bad link."""
UNVERIFIED_SOURCE_BURST, UNVERIFIED_SOURCE_PER_S = 50, 1.0
"""Streams with wrong credentials that one address may open at once, and for ever: a host of fifty proxies whose key was
disabled. Right ones are not counted."""
UNVERIFIED_SOURCES_MAX = 4_096
"""Addresses remembered for that."""
XDS_UNVERIFIED_MAX = 256
"""Streams whose credentials are being verified at once, on one frontend; more are told to come back."""
STS_MEMBERS_MAX = 256
"""Members of an STS request; the largest real one (AssumeRole with tags) has some 120."""

# --- cluster: certificates
AUTHORITY_LIFETIME_S = 10 * 365 * 24 * 3600
"""A trust root: replacing one touches every host, so it outlives the hardware."""
LEAF_LIFETIME_S = 397 * 24 * 3600
"""A role's or etcd member's certificate: the longest that public TLS practice still accepts; `up` renews them early."""
LEAF_RENEW_SHARE = 1 / 3
"""Renew a certificate when less than this share of its life is left: months to notice that renewal does not work."""
PROXY_LIFETIME_S = 30 * 24 * 3600
"""A proxy's certificate. Nothing renews it by itself yet but a repeated `proxy bootstrap --out`, so it must outlast an
operator's holiday; and there is no revocation list, so it must not outlast much more."""
CERTIFICATE_BACKDATE_S = 300
"""Certificates begin this long before they are made, so that a host whose clock is a little behind accepts them."""
ROOT_LIFETIME_S = 10 * 365 * 24 * 3600
"""A root of a certificate authority for proxies, where nothing else is said."""
CERTIFICATE_LIFETIME_S = 90 * 24 * 3600
"""A certificate of a proxy, where nothing else is said: it is renewed by itself when a month is left."""
VALIDITY_MIN_S = 60
VALIDITY_MAX_S = 30 * 365 * 24 * 3600
"""How short and how long a root or a certificate may be asked for."""
CERTIFICATES_LOOK_S = 10
"""How often certificates are looked at; nothing is done for one in most rounds."""
CERTIFICATE_RETRY_S = 20
"""A certificate is renewed again this long after it was at the soonest, however short its life."""
TRUST_SPREAD_S = 300
"""How long a proxy may take to hear of a new root before certificates are issued under it, or of new certificates
before the old root goes. A proxy that hears nothing for longer refuses peers until it does."""
RENEWALS_PER_ROUND = 50
"""Certificates issued anew in one look: a rotation of 1 000 takes some minutes, and no burst of events."""
RENEWAL_OVERDUE_SHARE = 1 / 6
"""With less of its life left than this, a renewal has failed for as long: told in the status."""
CHAIN_CERTIFICATES_MAX = 8
"""Certificates above an imported one: real chains have two or three."""
CSR_SIZE_BYTES = 16 * 1024
"""A signing request with an RSA-4096 key is under 2 KiB; more is not a signing request."""
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 4096
"""Below is breakable; above, one handshake costs more CPU than a push."""

# --- cluster: etcd members as processes
ETCD_VERSION_TIMEOUT_S = 20.0
"""`etcd --version` takes 50 ms; on a host that is starting a whole cluster it may wait for a CPU."""
ETCD_ADMIN_TIMEOUT_S = 10.0
"""One call that sets up users and rights: it waits for an election (1-3 s) of a cluster that has just started."""

# --- eventlog
MAX_FRAME_BYTES = 256 * 1024
"""No value in etcd is larger: big values stall Raft for everybody, and etcd itself refuses 1.5 MiB."""

MAX_RECORD_PLAIN_BYTES = 16 * 1024 * 1024
"""A record opened, with its data, wherever that is: a rollback of a mesh of several thousand resources. Folding more at
once would hold every replica's loop for a second; also a bound on what a damaged length can claim."""

INLINE_RECORD_BYTES = 192 * 1024
"""A sealed record larger than this keeps its data in a blob, so that it leaves room for others in its frame."""

BLOB_PART_BYTES = 192 * 1024
"""A part of a blob before it is sealed: like every value in etcd well under 256 KiB."""

BLOB_TXN_PARTS = 5
"""Parts written in one Txn: under 1 MiB, and etcd refuses requests of 1.5 MiB."""

BLOB_NAMED_WITHIN = 65_536
"""Positions after the head at which a blob was written up to which a record may name it; after that it is written
anew. Many lost races long, and little enough that what nobody named goes with an early trim."""

BLOBS_REMEMBERED = 4
"""Blobs whose record lost its race, and which the next attempt may name: one big change at a time is usual."""

DATA_DEPTH_MAX = 64
"""Nesting of a record's data; App Mesh's deepest specification has 16 levels, and a request's body may have 48."""

COMPRESS_FROM_BYTES = 1024
"""Below this zstd saves a seventh, and opening costs half as much again: a decompressor is made for every record."""

APPEND_DEADLINE_S = 10.0
"""How long an append with a lost answer is asked after before the caller is told that nobody knows. Longer than an
etcd election (1-3 s), shorter than a caller's patience (60 s in the AWS SDKs)."""

APPEND_PAUSE_S = 0.05
"""Between two sendings of the same Txn, so that a struggling etcd is not made busier. Doubles up to ten times this."""

FOLLOW_PAGE_FRAMES = 256
"""Frames in one listing page: at most 64 MiB, and few enough that opening a page does not hold the loop for long."""

ENTRIES_PAGE = 128
"""Named entries in one listing page: at most 32 MiB of checkpoint parts, well under ETCD_MESSAGE_BYTES."""

LISTING_TRIES = 3
"""A listing of several pages begins anew if etcd compacted the moment that it looks at."""

FOLLOW_RETRY_S = 0.1
"""First pause after the store could not answer a follower; doubles up to FOLLOW_RETRY_MAX_S."""

FOLLOW_RETRY_MAX_S = 2.0
"""A follower comes back at least this often, so that a healed store is noticed at once."""

GENESIS_DEADLINE_S = 20.0
"""How long a first start waits for a store that is still forming its quorum."""

# --- api
BODY_SIZE_BYTES = 1024 * 1024
"""A request body: eight times the largest spec that the domain takes, so that pretty-printed JSON passes, and no
more."""
BODY_TIMEOUT_S = 15.0
"""A body that takes longer is a slow-loris, or a link on which the call cannot succeed anyway."""
BODY_DEPTH = 48
"""Nesting of JSON: App Mesh's deepest spec has 16 levels."""
LINGER_SIZE_BYTES = 128 * 1024 * 1024
"""How much of a refused body is thrown away after the 413, so that a client that sends before it reads gets to read."""
LINGER_UNDECLARED_BYTES = 4 * 1024 * 1024
"""The same for a body whose end nobody knows: it may have none."""
LINGER_S = 5.0
"""How long that may take before the connection is cut."""
COMMAND_QUEUE_MAX = 512
"""Commands that wait to be planned: a few frames. More are told TooManyRequests."""
COMMAND_DEADLINE_S = 15.0
"""How long a command may take. An etcd leader election takes about 1.5 s; the SDKs give up after 60 s."""
READ_DEADLINE_S = 10.0
"""How long a read waits for a quorum to confirm the head, over an etcd leader election, before it is told 503."""
COMMAND_ATTEMPTS_MAX = 64
"""Races that one command may lose before it is told to come back."""
GROUP_COMMANDS_MAX = 128
"""Commands decided in one go and committed as one frame: some 20 ms of the loop."""
RECORD_OVERHEAD_BYTES = 512
"""What sealing and framing add to a record's own data and names, generously."""
HAND_OVER_AFTER_LOSSES = 2
"""Races lost in a row before a server hands its batch to a recent winner."""
HAND_OVER_STREAK = 8
"""Batches handed over in a row before a server tries an append of its own again."""
HAND_OVER_TIMEOUT_S = 4.0
"""How long a handed batch may be with another server; then it is competed for here again."""
PEER_MESSAGE_BYTES_MAX = 2 * 1024 * 1024
"""A batch between API servers: a frame's worth, or one command with the largest body that the API takes."""
PEER_CALLS_MAX = 64
"""Batches of other API servers at once."""
PEER_DIAL_S = 0.25
"""From dialling another API server to a connection: they are on a LAN. Then the batch is not handed over."""
PEER_PENALTY_S = 2.0
"""How long an API server that broke a hand-over off is not asked again."""
PEERS_ASKED_MAX = 3
"""API servers that are asked to take one batch, before it is competed for again."""
RECENT_WIN_S = 1.0
"""A server that won a race no longer ago than this, and has lost none since, takes batches of others."""
COMMAND_BACKOFF_S = 0.004
"""First pause after a lost race; doubled each time, jittered over its whole length."""
COMMAND_BACKOFF_MAX_S = 0.02
"""Longest pause after a lost race: a few commits. Whoever waits longer than the winner works never wins."""
SETTLE_RETRY_S = 0.25
"""Before an unknown outcome is looked up again in a store that does not answer."""
EVENTS_PAGE_MAX = 1000
"""Events in one answer of the history."""
EVENTS_PAGE_BYTES = 4 * 1024 * 1024
"""Event data in one answer of the history."""
HTTP_CONNECTIONS_MAX = 2048
"""Open connections of one API server: some 100 MB at 50 KiB each, and with what else is open below 4096 files."""
HTTP_SOURCE_CONNECTIONS_MAX = 1024
"""Of them from one address: half, since a load balancer or NAT is one address too."""
HTTP_TURNED_AWAY_MAX = 256
"""Connections above that which are still told so; what comes on top is cut without a word."""
OTHER_FILES = 512
"""What a role has open beside its callers' connections: gRPC channels, the archive, logs."""
HTTP_TURNED_AWAY_S = 1.0
"""How long such a one may take to send its request's head, and to read the answer."""
HTTP_BACKLOG = 512
"""Connections that the kernel holds for us while the loop is busy."""
HTTP_KEEP_ALIVE_S = 65
"""Idle connections: longer than the 60 s for which SDKs and load balancers keep theirs."""
HTTP_HEADERS_BYTES = 32 * 1024
"""Request line and headers together: a presigned URL with a large session token is below 16 KiB."""
HTTP_HEADERS_MAX = 100
"""Header lines: SDKs send some fifteen, proxies add a few. Each costs whoever looks at it."""
HTTP_BODY_PIECES_MAX = 8192
"""Reads and chunks that one body comes in: 128 bytes each of the largest one. Parsing a chunk of one byte costs 10 µs,
so a body of such ones would hold the loop for ten seconds."""
HTTP_CERTIFICATE_LOOK_S = 10.0
"""Between looks whether the certificate of HTTPS was renewed: two stats."""
HTTP_WRITE_S = 20.0
"""A caller that takes nothing of its answer for so long is cut off: it holds the answer, and a task."""
HTTP_DRAIN_ANNOUNCE_S = 0.5
"""From SIGTERM, when /readyz turns and answers begin to say `connection: close`, to the end of the listener: whoever
probes twice a second sends no new caller here."""
HTTP_DRAIN_S = 4.0
"""How long what is in flight may then take; within SHUTDOWN_GRACE_S with the rest of the end."""
BODIES_BYTES_MAX = 128 * 1024 * 1024
"""Bodies held at once, by all callers: usual ones have 2 KiB."""
BODIES_SOURCE_BYTES_MAX = 32 * 1024 * 1024
"""Of them from one address, so that one cannot take all the room."""
PRINCIPAL_REQUESTS_PER_S = 2000
"""Of one principal on one API server, sustained: about what a server can answer at all, so that it stops a loop that
has gone wild but no benchmark."""
PRINCIPAL_REQUESTS_BURST = 4000
PRINCIPAL_REQUESTS_AT_ONCE = 256
"""Of one principal: half of COMMAND_QUEUE_MAX, so that one alone never fills the queue of writes."""
SOURCE_REFUSALS_PER_S = 200
"""Calls of one address without a valid signature that are looked at, sustained: each costs 0.3 ms of verifying."""
SOURCE_REFUSALS_BURST = 2000
PRINCIPALS_REMEMBERED = 4096
SOURCES_REMEMBERED = 4096
"""Whose rates are remembered: the ones heard of last, about 200 bytes each."""
SOURCE_KEYS_REMEMBERED = 64
"""Access keys that signed rightly from one address, and are heard on while others there are not."""

# --- xds (frontend <-> proxy)
XDS_RECEIVE_BYTES_MAX = 16 * 1024 * 1024
"""A reconnecting proxy lists the version of everything that it holds: 100 000 names of 100 bytes still fit."""
XDS_RESPONSE_BYTES = 3 * 1024 * 1024
"""Where a response is cut in parts if its kind allows that: gRPC clients take 4 MiB by default (Envoy any size)."""
XDS_METADATA_BYTES_MAX = 16 * 1024
"""Request headers; ADS needs hardly any."""
XDS_STREAMS_PER_CONNECTION = 16
"""ADS needs one; a few more while a proxy replaces its stream."""
XDS_STREAMS_MAX = 10_000
"""Streams of one frontend, at some 40 KiB of gRPC each."""
PROXIES_PER_NODE = 50
"""App Mesh's quota of Envoys per virtual node or gateway (L-606A910B, L-33E8F9C9). Each frontend counts its own."""
XDS_NEW_STREAMS_PER_S = 100.0
"""Sustained admission of new streams; the rest is told RESOURCE_EXHAUSTED and backs off, which beats queueing."""
XDS_NEW_STREAMS_BURST = 500
"""New streams let in at once: the proxies of a lost frontend arrive together."""
XDS_KEEPALIVE_S = 30.0
"""HTTP/2 pings to proxies: finds a dead one well within the time a load balancer would forget the connection."""
XDS_KEEPALIVE_TIMEOUT_S = 10.0
XDS_PING_INTERVAL_MIN_S = 0.2
"""Proxies may ping this often: our bootstrap makes Envoy ping every 0.5 s, to leave a silent frontend within a second.
A server that expects fewer pings ends the connection (GOAWAY, too many pings) after the third."""
XDS_CONNECTION_AGE_S = 30 * 60.0
"""Then a proxy is asked to dial again (gRPC adds +-10 %), which brings proxies home after a zone came back."""
XDS_CONNECTION_AGE_GRACE_S = 30.0
"""ADS streams do not end by themselves: after this they are cut, and the proxy keeps its config meanwhile."""
XDS_SEND_TIMEOUT_S = 20.0
"""A proxy that takes no bytes for so long is cut off: leaving it connected would leave it stale without anyone
knowing."""
XDS_CONFIRM_TIMEOUT_S = 2.0
"""One attempt to have the head confirmed. Above etcd's election time, so that a change of leader is not an outage."""
XDS_CONFIRM_RETRY_S = 0.5
"""Pause after a failed attempt, jittered by as much again."""
XDS_REMOVAL_GRACE_S = 15.0
"""How long after a reconnect removals wait for a proxy to ask for listeners and routes; Envoy's own fetch time-out."""
XDS_FIRST_REQUEST_S = 10.0
"""A stream that says nothing for so long holds a slot for nothing."""
XDS_NODES_REMEMBERED = 20_000
"""Nodes whose newest served position a frontend keeps (about 1 KiB each, more while they are connected)."""
XDS_CLUSTER_SETS_REMEMBERED = 4
"""Cluster sets kept per node, to know what a reconnecting SotW proxy still holds."""
XDS_ERROR_DETAIL_CHARS = 512
"""Of a proxy's reason for a refusal, in logs and status."""

# --- projector: the compiler
COMPILED_PLANS_MAX = 65_536
"""Rendered resources and virtual hosts remembered: those of some 10 000 virtual nodes, with room for what
alternates."""
COMPILED_BYTES_MAX = 256 * 1024 * 1024
"""Their bytes. A cluster is about 250 bytes; route configurations of big gateways are what this bounds."""

EXPLAINED_TRIALS_MAX = 512
"""Resources that are left out one by one to see whether an Envoy resource is there because of them: a second or two."""

# --- replica
FOLD_BATCH_RECORDS = 1024
"""Records opened and folded before others get the loop: some 50 ms."""
FOLD_IN_BULK_FROM = 256
"""Records that come at once from which they are folded in bulk: fewer are told one by one to who follows changes."""
FOLD_EVENTS_TOLD = 1024
"""The last events of a bulk fold that listeners are told of; of the rest they hear only that they were many."""
COLLECTION_THRESHOLDS = (20_000, 20, 20)
"""New objects before Python looks for cycles among them, and how many such looks before one at older ones and at all.
Its own 700, 10 and 10 look at everything ten times a second under load."""
COLLECTION_PAUSE_MAX_S = 300.0
"""How long a load may keep garbage collections off: the garbage of minutes does no harm, that of a day would."""
FREEZE_FROM_ITEMS = 10_000
"""Items of a loaded state from which on it is kept out of later garbage collections, at the price of what is garbage
just then: a few hundred kilobytes, once a start."""
EXAMINE_DEADLINE_S = 600.0
"""How long `meshlog quarantine` may fold the log before it writes: a whole history of some millions of records."""
QUARANTINE_RACES_MAX = 100
"""Appends of a quarantine that other writers may beat: replicas are halted then, so there are hardly any."""
REPLICA_CONFIRM_RETRY_S = 0.1
"""Between quorum reads while etcd does not answer; one for all that wait, since they share reads."""

# --- health port
HEALTH_REQUEST_BYTES_MAX = 8 * 1024
"""A request without a body, from a probe or a scraper."""
HEALTH_TIMEOUT_S = 5.0
"""From the connection to the answer."""
HEALTH_CONNECTIONS_MAX = 64
"""Probes and scrapers at once; more are closed unheard."""

# --- cli
PROBE_TIMEOUT_S = 2.0
"""One health probe: a role that needs longer to say that it is ready is not."""
PROBE_PAUSE_S = 0.1
"""Between probes while `up` waits."""
UP_TIMEOUT_S = 120.0
"""How long `up` waits for every role: twelve Python and Go processes on two busy CPUs need some 15 s."""
DOWN_GRACE_S = SHUTDOWN_GRACE_S + 2.0
"""From SIGTERM to SIGKILL in `down`: a role's own grace and its end."""
DOWN_ETCD_GRACE_S = 12.0
"""The same for etcd: a leader tries to hand over for 7 s (its request time-out) although nobody is left to take
over."""
LOG_TAIL_LINES = 12
"""Lines of a failed process's log that `up` shows."""
CLI_CONNECT_TIMEOUT_S = 1.0
"""To one API server, before the next one is tried."""
CLI_READ_TIMEOUT_S = 30.0
"""For one answer: above the server's own limit for a command."""
CLI_EVENTS_PAGE = 500
"""Events asked for at a time by `meshlog log`."""
CLI_FOLLOW_RETRY_S = 1.0
"""Before `meshlog log --follow` asks again when no server could answer."""

# --- cluster.etcd
ETCD_CALL_S = 2.0
"""One call to one etcd member. Above an election (1 s) so that a slow answer is not taken for a lost one too soon."""

ETCD_READ_TOTAL_S = 5.0
"""A read, over all members and tries: enough for an election and a retry, short enough to answer 503 in time."""

ETCD_RETRY_PAUSE_S = 0.05
"""After every member was tried once. Doubles up to ETCD_RETRY_PAUSE_MAX_S."""

ETCD_RETRY_PAUSE_MAX_S = 0.5

ETCD_MEMBER_PENALTY_S = 0.5
"""How long a member that failed is tried last. Doubles with each failure in a row up to ETCD_MEMBER_PENALTY_MAX_S."""

ETCD_MEMBER_PENALTY_MAX_S = 5.0

ETCD_KEEPALIVE_MS = 10_000
"""HTTP/2 pings on idle connections; etcd closes a connection that pings more often than every 5 s."""

ETCD_KEEPALIVE_TIMEOUT_MS = 3_000

ETCD_CONNECT_MS = 1_000
"""One attempt to connect to a member. Members are on a LAN; a dead one must not hold a reader for gRPC's 20 s."""

ETCD_MESSAGE_BYTES = 128 * 1024 * 1024
"""Largest answer taken from etcd: a page of FOLLOW_PAGE_FRAMES full frames is 64 MiB."""

WATCH_PROGRESS_S = 1.0
"""How often a watch asks for a sign of life."""

WATCH_STALL_S = 3.0
"""Silence of three asked signs: the member is stopped or cut off, another one is watched."""

WATCH_BACKLOG = 256
"""Answers of a watch that wait for their reader before the watch's thread waits: bounds memory with a slow fold."""

# --- cluster: members
MEMBER_LEASE_S = 10
"""A member that died is off the list within this; long enough to outlive an etcd election (1-3 s)."""
MEMBER_RENEW_S = 3.0
"""Between renewals: two may fail before the lease ends."""
MEMBER_RETRY_S = 0.5
"""Before a failed renewal or registration is tried again."""
MEMBER_RECORD_BYTES = 4 * 1024
"""One member's record; a larger one was not written by us."""

# --- eventlog.fsck
MAX_FINDINGS = 1_000
"""Findings listed in one report; a log with more than that needs no longer list."""

FSCK_TRIES = 3
"""A check begins anew if etcd compacted the moment that it looks at."""

# --- roles
CONFIRM_EVERY_S = 2.0
"""How often an idle API server asks a quorum for the head: one small read."""
CONFIRM_TIMEOUT_S = 4.0
"""Longer than an election, so that a change of leader is no alarm."""
CONFIRMED_AGE_READY_S = 10.0
"""An API server whose last confirmed head is older than this tells load balancers to go elsewhere."""
MEMBERS_READ_S = 5.0
"""Between a projector's looks at who else lives: half a member's lease or so."""

# --- api: connections
HTTP_HEAD_S = 10.0
"""From the connection, or the first byte of a further request, to the end of its headers."""

# --- projector
LEFT_NODES_MAX = 4_096
"""Nodes without a subscriber whose last compilation is remembered; its bytes are shared with those of living ones."""

# --- restore, epochs, drill
RECENT_EVENTS_KEPT = 4_096
"""Events without their specs that an API server keeps in memory (some 4 MB), for a restore to name what was lost: the
archive is a second behind, and no log takes that many events in a second or two."""

DRILL_SLICE_RECORDS = 64
"""Folded at once in a drill (some 3 ms of an API server's loop), then as long a rest: half a core at most."""

DRILL_ARCHIVE_WAIT_S = 60.0
"""For the archive to have what the log had when the drill began; it is a second behind when all is well."""

DRILL_RETRY_S = 600.0
"""After a drill that failed; also the longest sleep between looks at when the next one is due."""

DRILL_POLL_S = 1.0
"""Between looks at the archive, and at whether the log is folded."""

DRILL_LOOK_S = 5.0
"""Between looks of every API server at the last result: one small read."""

DRILL_EVERY_S = 6 * 3600
"""A restore that would not work is known within a quarter of a day; at a million events a drill takes two minutes."""

EPOCH_LOOK_S = 5.0
"""Between looks of an API server without a quorum at whether a restore has begun another epoch."""

RESTORE_ETCD_ASK_S = 3.0
"""For the old etcd to say where its head is; one that has lost its quorum never does."""

RESTORE_ARCHIVE_WAIT_S = 30.0
"""For the archive to reach the head of an etcd that still answers; it is a second behind when all is well."""

RESTORE_TIMEOUT_S = 120.0
"""For etcd, and then for the roles, to become ready in a restore, on a slow machine."""

RESTORE_POLL_S = 0.2
"""Between looks at the archive, or at members that are to come up."""

RESTORE_HOSTS_S = 5.0
"""For new members on other hosts to answer before the operator is told what to do there, and to call again."""

RESTORE_WRITE_S = 30.0
"""For the first records of a new epoch to be written, over an election of members that have just started."""

# --- eventlog.archive
ARCHIVE_READ_TRIES = 5
"""How often an index is read anew because an archiver dropped what it names; each try sees a newer one."""

ARCHIVE_LEAVES_REMEMBERED = 64
"""Leaves that a reader keeps, at some 30 KiB each."""

# --- api: history
HISTORY_STRETCH_GAP = 64
"""Events between two wanted ones that are read over rather than asked around."""
HISTORY_BATCH_EVENTS = 200
"""Events opened before the event loop gets its turn: some 10 ms of work."""
EVENTS_SCAN_MAX = 20_000
"""Events that one answer of the history looks at, whatever its filters leave of them: about a second of work. Then it
says where to go on."""
EVENTS_CHUNK = 500
"""Events read at a time when the newest are wanted first."""
FOLLOW_WAIT_MAX_S = 20.0
"""How long an answer of the history may be held back until there is something to tell."""
PAST_STATES_KEPT = 8
"""Past states remembered: who looks at a moment looks again. Each may be as large as the present one."""
PAST_STATE_EVERY_EVENTS = 20_000
"""A fold that takes longer than a call may is kept this often, so that the next call goes on from there."""
PAST_CHECKPOINT_WORTH_EVENTS = 2_000
"""To fold so many events from a remembered state is as quick as to fetch and open a checkpoint."""
PAST_FOLDS_AT_ONCE = 2
"""Folds of the past beside each other in one server; more would only take each other's time."""
MOMENT_AHEAD_US = 5_000_000
"""How far a moment that is asked for may be ahead of this server's clock: what two hosts' clocks may differ."""
PROVENANCE_MAX = 1_000
"""Changes of one answer of which it is looked up who made them."""
DIFF_PAGE_MAX = 500
"""Differing resources, or resources of the past, in one answer."""
DIFF_PAGE_BYTES = 8 * 1024 * 1024
"""Their specs, before and after."""

# --- api: audit of refused calls
AUDIT_QUEUE_MAX = 2_000
"""Refused calls that wait for their segment, about 2 MB; more are counted only."""
AUDIT_SOURCE_PER_S = 2.0
"""Refused calls of one address that are kept in full, sustained; more are counted only."""
AUDIT_SOURCE_BURST = 100
"""The same at once: a broken deployment pipeline shows what it tried."""
AUDIT_SOURCES_MAX = 4_096
"""Addresses whose rate is remembered; the one not heard of for longest is forgotten first."""
AUDIT_FLUSH_S = 3.0
"""Between segments, if there is anything to write: what a killed server loses, and one object for a whole flood."""
AUDIT_CLOSE_S = 2.0
"""How long a server that stops may take to write its last segment."""
AUDIT_PRUNE_S = 3_600.0
"""Between looks for segments that are older than the archive keeps."""
AUDIT_PAGE_MAX = 1_000
"""Calls in one answer of the audit."""
AUDIT_PAGE_SEGMENTS = 200
"""Segments that one answer may open while it looks for what a filter lets through; the next page goes on there."""
AUDIT_PAGE_EVENTS = 20_000
"""The same for events of the log."""
AUDIT_MESSAGE_CHARS = 512
"""Of an error's message in the audit."""
AUDIT_VALUE_CHARS = 256
"""Of one request parameter, path or user agent in the audit: what a stranger sent must not fill it."""
AUDIT_MEMBERS_MAX = 24
"""Request parameters shown; App Mesh's calls have at most ten."""

# --- eventlog.checkpoints
CHECKPOINT_PART_BYTES = 192 * 1024 - 512
"""Of a checkpoint in one part, compressed; with its envelope at most 192 KiB, three quarters of the largest value."""

CHECKPOINT_TXN_PARTS = 4
"""Parts written in one Txn: under 1 MiB, so that appends beside it wait for no long Raft entry."""

CHECKPOINT_PLAIN_BYTES = 1024 * 1024 * 1024
"""Documents opened. Thirty times those of a full token window over some thousand resources; a bound on what a damaged
length can claim."""

CHECKPOINT_MANIFEST_BYTES = 256 * 1024
"""A manifest lists its parts: room for those of 1 GB, and no value in the store is larger."""

FENCED_WRITE_DEADLINE_S = 20.0
"""How long a duty repeats a write whose answer was lost: over two elections; its fence decides whether it still may."""

# --- eventlog.keys
KEY_CONNECT_S = 2.0
"""To a key service. It is asked when a role starts and when a new data key is seen, never for a record."""

KEY_CALL_S = 5.0
"""For one answer of a key service; KMS and Vault answer within some 20 ms."""

KEY_CALL_TRIES = 3
"""Of one call, with growing pauses, before the caller is told that the service does not answer."""

KEY_CALL_PAUSE_S = 0.2
"""The first of those pauses, doubled each time."""

KEY_COMMAND_S = 15.0
"""For a program that wraps or unwraps: a smart card is slow, and one that waits for a password would wait for ever."""

KEY_ANSWER_BYTES = 64 * 1024
"""Of one answer of a key service or program: a wrapped key is below 1 KiB."""

KEY_ID_CHARS = 512
"""Of a key-encryption key's id: an ARN is below 200."""

KEY_CHECK_PAUSE_S = 1.0
"""At a role's start, between looks whether its data keys open, while etcd or the key service does not answer."""

KEYRING_REFRESH_S = 2.0
"""Between an API server's looks for data keys that another one has drawn: so long it may seal with the older one."""

KEY_WRITE_TRIES = 8
"""Of one data key's re-wrapping, when others re-wrap it at the same time or an answer was lost."""

KEY_PROBES_AT_ONCE = 8
"""Data keys unwrapped at once at a start: a hundred of them at 20 ms each are no wait, and no burst for KMS."""

ARCHIVE_OBJECT_BYTES = 64 * 1024 * 1024
"""The largest object that is read: far above a merged segment, the largest that an archiver writes."""

ARCHIVE_STALE_FILE_S = 3600.0
"""A file that has been half written for so long was left by a crash."""

ARCHIVE_CONNECT_S = 2.0
"""One attempt to connect to an S3-compatible store."""

ARCHIVE_REQUEST_S = 15.0
"""One request to it: four megabytes over a slow link. It is repeated anyway, so a lost one costs this much lag."""

# --- cluster: duties
DUTY_LEASE_S = 10
"""A duty whose holder died is taken over within this and DUTY_RETRY_S; long enough to outlive an etcd election."""

DUTY_RENEW_S = 2.5
"""Between renewals of a duty's lease: two may fail."""

DUTY_MARGIN_S = 1.0
"""A holder stops this long before its lease may end, for clocks that run at slightly different speeds."""

DUTY_RETRY_S = 2.0
"""Between looks at whether a duty is free: one small read."""

DUTY_PAUSE_S = 1.0
"""After a tenure that ended, so that a work that fails at once does not spin."""

ARCHIVE_SHIPMENT_BYTES = 4 * 1024 * 1024
"""Frames in one segment: what a busy second brings, and little enough to send again when an upload fails."""

ARCHIVE_MERGE_BYTES = 1024 * 1024
"""Segments from this size on are left as they are; smaller ones are merged, so that a year has thousands, not millions
of them."""

ARCHIVE_ROLLUP_MANIFESTS = 64
"""Manifests between two roll-ups: half a minute of a busy log, and what a reader has to read at most."""

ARCHIVE_LEAF_ENTRIES = 256
"""Entries in one leaf of the index, some 30 KiB."""

ARCHIVE_POLL_S = 0.25
"""Between looks at the log, so also between shipments of a busy log: with two uploads well below a second of lag."""

ARCHIVE_THOROUGH_READS = 8
"""Every so many looks, data keys and checkpoints are looked at too although there is no new record: every 2 s."""

ARCHIVE_SURVEY_S = 3600.0
"""Between looks at what retention lets go."""

ARCHIVE_NONCE_BYTES = 16
"""What sets two archivers' objects apart."""

ARCHIVE_RETRY_S = 0.1
"""First pause after a step that failed; doubles up to ARCHIVE_RETRY_MAX_S, so an archive that is back is caught up."""

ARCHIVE_RETRY_MAX_S = 2.0

ARCHIVE_HALT_S = 10.0
"""Between looks at an archive that is not what it must be, while an operator mends it."""

# --- cluster: clocks
CLOCK_SKEW_MAX_US = 2_000_000
"""How far a server's clock may be off the median of the members' before it stops writing: NTP keeps hosts within
milliseconds, and what a reader asks for by time is asked for by the second."""
CLOCK_RENEWAL_S = 0.5
"""How long a member's renewal may be on its way into etcd without making its clock look slow."""
CLOCK_LOOK_S = 0.5
"""Between an API server's looks at the members: bounds how exactly it knows their clocks. One small read."""

TIMELINE_PAGE_FRAMES = 256
"""Frames that a reader of history asks etcd for at once."""

KEKS_TOLD_MAX = 48
"""Key-encryption keys that a member says it holds, in its record of MEMBER_RECORD_BYTES: four rotations a year for six
years, both classes."""

# --- duties: checkpoints, trimming, etcd's space
CHECKPOINT_EVENTS = 10_000
"""Events after which a checkpoint is due: a start folds a checkpoint and so many in a fraction of a second."""
CHECKPOINT_EVERY_S = 900
"""A checkpoint at least so often where there are events, so that what is rarely written is trimmed too."""
CHECKPOINT_GAP_S = 30.0
"""Never two within this: one of a full token window is some MB, and etcd keeps what was deleted for COMPACT_KEEP_S."""
CHECKPOINT_LOOK_S = 0.5
"""Between looks at whether one is due; nothing is read for it."""
CHECKPOINTS_KEPT = 3
"""In etcd: the one to start from, the one to start from if that is damaged, and one that is being reproduced."""
REPRODUCE_LOOK_S = 2.0
"""Between a replica's looks for new checkpoints: one listing of names."""
STATE_HASHES_KEPT = 65_536
"""Recent states' hashes that a replica remembers (about 10 MB): a checkpoint of a busy log is stored seconds, and so
tens of thousands of events, after its state was."""
TRIM_KEEP_EVENTS = 10_000
"""Newest events that stay in etcd although the archive has them: for followers that were away for a moment, and for
history that is asked for most."""
REGISTRY_LOOK_S = 10.0
"""Between looks at what seldom changes beside the registry's log: data keys, checkpoints, how far its archive is."""
REGISTRY_ARCHIVE_POLL_S = 1.0
REGISTRY_TRIM_KEEP_EVENTS = 2_000
"""The same of the registry's log, which nobody looks far back in."""
TRIM_LOOK_S = 5.0
"""Between looks at what may be trimmed: three small reads."""
TRIM_STEP_EVENTS = 2_000
"""Trimmed in one Txn: some milliseconds of etcd's time, and a watch answer of bounded size."""
COMPACT_KEEP_S = 300
"""etcd's own history: longer than any watch is away without being a new start, far shorter than it takes to fill
etcd."""
COMPACT_LOOK_S = 15.0
"""Between compactions; each frees what became old since the last."""
SPACE_LOOK_S = 2.0
"""Between looks at the members' database sizes: one small call to each."""
ETCD_QUOTA_BYTES = 4 * 1024**3
"""A member's database: fifty times what a trimmed log takes. At this size etcd takes no more writes."""
SPACE_ALARM_SHARE = 0.7
"""Share of the quota from which on an alarm is raised: days ahead for a cluster that grows, minutes for a flood."""
DEFRAGMENT_FREE_BYTES = 64 * 1024**2
"""A member's file is rewritten when more than this, and more than what is used, is free in it; each rewriting stops
that member for as long as copying what is used takes."""
APPLIED_BEHIND_MAX = 1_000
"""Raft entries that a member in step may be behind: a second of a busy cluster."""
DEFRAGMENT_S = 120.0
"""One member's rewriting: 4 GiB on a slow disk."""
COMPACT_S = 60.0
"""One compaction, with the space really freed at its end."""
HEALTHY_AGAIN_S = 60.0
"""How long a member may take, after it was rewritten, to be in step with its leader again; then the rest is left."""

ARCHIVE_WATCH_S = 1.0
"""Between an API server's looks at how far the archive is."""

ARCHIVE_ALARM_S = 15.0
"""An archive that lacks something for so long is down: a hand-over of the duty takes its lease (10 s) and a little."""

ARCHIVE_SAMPLES = 256
"""Positions remembered with when they were reached, for those that the archive does not have yet."""

CLI_KEYS_TOLD_S = 20.0
"""How long `meshlog keys rotate --kek` waits for every member to tell that it has the new key: some renewals."""

# --- eventlog.proof
PROOF_HASHES_A_LINE = 1_000
"""Hashes in one line of a proof: lines of 43 KB, which every tool can show."""
REPLACE_MEMBER_TIMEOUT_S = 120.0
"""Until a new member has the data of the others: 4 GiB over a fast link."""
REPLACE_MEMBER_POLL_S = 0.5
"""Between looks at whether it has caught up."""

ARCHIVE_CALLS_TOGETHER = 16
"""Uploads, downloads or deletions at a time: over a network each takes some tens of milliseconds."""

ARCHIVE_RELOAD_READS = 240
"""After so many looks, every minute, the index is read and verified anew: so an archive that broke, or went away, while
the log was idle is noticed before it is needed."""

# --- manifests
MANIFEST_NESTING_MAX = 100
"""Levels of objects and lists in a manifest. A template of CDK's has about twenty; libyaml recurses without a bound."""
MANIFEST_FILE_MAX_BYTES = 16 * 2**20
"""One manifest: sixteen times what CloudFormation takes; a list of all that a cluster has is smaller."""
APPLY_ATTEMPTS = 6
"""Times that one change of a plan is sent while servers say that they are busy, or that they cannot just now."""
APPLY_PAUSE_S = 0.5
"""Before the second of them, and once more of it before each later one: 7.5 s in all, longer than an election."""

# --- connect
CONNECT_DIAL_S = 1.0
"""From dialling an API server to a connection, TLS included; then the next one is asked."""
CONNECT_IDLE_S = 20.0
"""A kept connection older than this is not used again: well below the servers' HTTP_KEEP_ALIVE_S."""
CONNECT_ATTEMPT_S = 20.0
"""For one server's answer: above COMMAND_DEADLINE_S, so that one which only waits for etcd is not taken for dead."""
CONNECT_TOTAL_S = 50.0
"""For all attempts of one request: below the 60 s after which SDKs give up."""
CONNECT_PATIENCE_S = 5.0
"""How long a request that no server takes is tried on: a server's restart."""
CONNECT_ROUND_PAUSE_S = 0.2
"""Between rounds over all servers."""
CONNECT_PROBE_EVERY_S = 1.0
"""Between looks whether a server answers: one small call each, which touches neither the log nor etcd."""
CONNECT_PROBE_S = 2.0
"""For a probe's answer: a server that hangs is left within this and CONNECT_PROBE_EVERY_S."""
CONNECT_THREADS_MAX = 256
"""Requests under way, with those left to a server that hangs."""
CONNECT_ANSWER_BYTES_MAX = 32 * 1024 * 1024
"""One answer: eight times the largest page of history."""

# --- access keys

KEY_USE_EVERY_S = 900.0
"""How often an API server puts on record which access keys were used: a quarter of the hour that is told, so that an
idle log stays idle and a crash forgets little."""

# --- the registry's duties

HEARTBEAT_LOOK_S = 2.0
"""Between looks of the duty at all heartbeats: well below the shortest that may be owed."""
HEARTBEAT_GAP_S = 6.0
"""Between two looks that succeeded; longer, and everybody is watched anew: their heartbeats may not have reached us."""
HEARTBEAT_LEASES_S = (5, 10, 20, 60, 300, 900, 3_600)
"""How long leases of heartbeats last: an interval is rounded up, so that a server has few leases whatever is asked."""
HEARTBEATS_AT_ONCE = 100
"""Instances in one call."""
REGISTRY_EVENTS_LOOKED = 20_000
"""Of the registry's log, in one question for the events of a service: some seconds of reading."""
CLOUD_MAP_POLL_S = 5
"""Between two questions about one service."""
CLOUD_MAP_WHOLE_S = 60.0
"""All instances are asked for at least so often, whether the revision has moved or not."""
CLOUD_MAP_EMPTY_S = 120.0
"""A service that had instances and suddenly has none is believed after so long of the same answer."""
CLOUD_MAP_AT_ONCE = 8
"""Questions under way: each is a thread."""
CLOUD_MAP_TIMEOUT_S = 5.0
"""For AWS to answer one question, and to connect."""
CLOUD_MAP_ALARM_S = 30.0
"""A source that has not answered for so long is told of."""
CLOUD_MAP_INSTANCES = 1_000
"""Asked for at once: Cloud Map's own bound."""
