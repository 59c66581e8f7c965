"""The domain's own bounds, each with its reason. (Those of the running parts are in runtime/limits.py.)"""

from __future__ import annotations

SPEC_MAX_BYTES = 128 * 1024
"""Canonical JSON of one spec: half of the 256 KiB that a value in etcd may take, so that tags and sealing fit too."""

NAME_MAX_CHARS = 255
"""App Mesh's bound for resource names; virtual service names have none in the model, so we give them the same."""

TAGS_PER_RESOURCE = 50
"""App Mesh's quota (SM: TagList max 50)."""

CLIENT_TOKEN_MAX_CHARS = 36
"""SM docs: 'up to 36 letters, numbers, hyphens, and underscores'."""

TOKENS_KEPT = 65_536
"""Answers to repeated calls kept by count: about 40 MiB at worst, an hour of 18 writes a second."""

TOKEN_WINDOW_US = 24 * 3600 * 1_000_000
"""Answers to repeated calls kept by log time: the day that AWS services commonly give a clientToken."""

TOMBSTONES_KEPT = 65_536
"""Deleted resources whose last version is remembered; of older ones a bound of it is known (see rollback)."""

PROBLEMS_SHOWN = 25
"""Problems listed in one BadRequest: enough to mend a file in one go, without megabytes of answer."""

PROBLEMS_COUNTED = 1_000
"""Problems looked for before giving up, so that a body made of nothing but mistakes costs little."""

VALUE_SHOWN_CHARS = 80
"""How much of a wrong value an error message repeats."""

NAMES_SHOWN = 5
"""How many names a message lists before it only counts (App Mesh: 'Listing up to 5 route names')."""

# --- who may do what (IAM's own quotas, so that what is brought along from there fits)

ACCESS_KEYS_PER_USER = 2
"""So that a key can be rotated: the new one is there before the old one goes."""

POLICY_MAX_CHARS = 6_144
"""A managed policy's document, white space not counted."""

INLINE_POLICIES_MAX_CHARS = 10_240
"""All inline policies of a user or role together, white space not counted."""

TRUST_POLICY_MAX_CHARS = 4_096
"""A role's trust policy (IAM: 2 048, adjustable up to this)."""

SESSION_POLICY_MAX_CHARS = 2_048
"""A policy passed to AssumeRole."""

POLICY_TEXT_MAX_BYTES = 65_536
"""Any document as it comes, white space included: it is kept verbatim, in every state."""

POLICIES_PER_PRINCIPAL = 20
"""Managed policies attached to one user or role (IAM: 10, adjustable up to this)."""

PRINCIPALS_PER_ACCOUNT = 6_000
"""Users and roles of an account (IAM: 5 000 users, 1 000 roles)."""

POLICIES_PER_ACCOUNT = 1_500
"""Managed policies of an account's own."""

USER_NAME_MAX_CHARS = 64
"""Of a user, or of a role."""

POLICY_NAME_MAX_CHARS = 128

UNCOUNTED_MAX = 2_048
"""Changes that a state's fingerprint has not counted yet: about 500 events, some 5 ms of counting at once."""

# --- quotas (mesh/quotas.py)

QUOTA_MAX = 100_000
"""The highest value of a quota: beyond any mesh that one cluster is for; more would be no bound at all."""

# --- sharing (mesh/sharing.py)

CONSUMERS_PER_MESH = 500
"""Accounts that one mesh is shared with: they are kept in one entry, which is read whole (20 bytes each)."""

TENANT_NAME_CHARS = 64
"""Of an account's name, which is for people."""

REGEX_PROGRAM_MAX = 900
"""Steps of RE2's program for one regex. App Mesh's proxies, and ours, refuse more than 1000; Envoy by itself 100."""

# --- the registry (mesh/registry/): Cloud Map's own quotas, and bounds of ours

NAMESPACES_PER_ACCOUNT = 50
"""Cloud Map's quota for a region."""

SERVICES_PER_NAMESPACE = 1_000
"""As many as one page of names is looked through for; Cloud Map bounds instances only."""

INSTANCES_PER_NAMESPACE = 2_000
"""Cloud Map's quota."""

INSTANCES_PER_SERVICE = 1_000
"""Cloud Map's quota."""

INSTANCE_ATTRIBUTES_MAX = 30
"""Custom attributes of one instance (Cloud Map's quota)."""

INSTANCE_ATTRIBUTES_MAX_CHARS = 5_000
"""All keys and values of an instance's attributes together (Cloud Map's quota)."""

SERVICE_ATTRIBUTES_MAX = 30
"""Attributes of one service (Cloud Map's quota)."""

REGISTRY_OPERATIONS_KEPT = 10_000
"""Operations that can still be asked about, in all accounts: some hours of a busy registry, 3 MiB."""

REGISTRY_TOKENS_KEPT = 16_384
"""Answers to repeated registry calls kept by count: SDKs repeat within minutes; 5 MiB."""

HEARTBEAT_MIN_S, HEARTBEAT_MAX_S = 5, 3_600
"""Within how long an instance may owe a heartbeat: less would make a slow minute of ours look like its death."""

REGISTRY_TAGS_MAX = 50
"""Cloud Map's quota of tags on one resource."""

COPIED_AT_ONCE = 40
"""Instances in one event of what is copied from another registry: at 5 000 characters each, 200 kB at worst."""

# --- certificates (mesh/certificates.py)

AUTHORITIES_PER_ACCOUNT = 200
"""Certificate authorities of an account (ACM PCA's own quota)."""

CERTIFICATES_PER_ACCOUNT = 2_500
"""Certificates of an account (ACM's own quota): about 3 KiB each, in every state."""

CERTIFICATE_NAMES_MAX = 100
"""Names in one certificate (ACM: 10, adjustable up to this)."""

CERTIFICATE_NAME_CHARS = 253
"""Of one name: what DNS allows."""

AUTHORITY_NAME_CHARS = 64
"""Of an authority's name, which is its root's common name (X.509 allows no more)."""

CERTIFICATE_CHAIN_MAX_BYTES = 32 * 1024
"""A certificate with those above it, PEM. It is kept in every state, and sent to every proxy that shows it."""

CERTIFICATE_KEY_MAX_BYTES = 8 * 1024
"""A certificate's private key, PEM: RSA of 4096 bits takes 3.3 KiB."""

# --- heartbeats of registered instances (mesh/registry/heartbeats.py)

HEARTBEAT_BRAKE_SHARE = 0.5
"""Of a service's instances, within HEARTBEAT_BRAKE_WINDOW_US: when more would fall silent, it is rather us, or a
network, and none of them is marked."""

HEARTBEAT_BRAKE_WINDOW_US = 60 * 1_000_000
"""What counts as at once."""
