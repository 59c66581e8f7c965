"""Each route under `/meshlog/v1/` in words: what it does, what it answers. Data.

A route without an entry is documented all the same, by its action's name; a test says which entry is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from api.openapi_schemas import (
    AGE,
    OBJECT,
    OBJECT_OR_TEXT,
    POSITION,
    TEXT,
    TIME,
    WHOLE,
    YES_NO,
    Schema,
    list_of,
    maybe,
    record,
    ref,
)  # fmt: skip


class Told(NamedTuple):
    """A route in words: what it does, what it answers. `more` is a paragraph for who needs it."""

    summary: str
    answer: Schema
    more: str = ""


_HISTORY = record({"events": list_of(ref("Event"))}, {
    "next": maybe(POSITION), "reached": POSITION, "head": POSITION, "oldest": maybe(POSITION), **AGE,
})  # fmt: skip


def _of_principals(kind: str) -> dict[str, Told]:
    """Users and roles have the same routes."""
    plural, principal = f"{kind}s", ref("Principal")
    return {
        f"GET iam/{plural}": Told(f"The account's {plural}", record({plural: list_of(principal)}, AGE)),
        f"GET iam/{plural}/show": Told(f"One {kind}, with its inline policies and its access keys", principal),
        f"POST iam/{plural}": Told(f"Make a {kind}", principal),
        f"POST iam/{plural}/delete": Told(f"Delete a {kind}", ref("Gone")),
        f"POST iam/{plural}/attach": Told(f"Attach a managed policy to a {kind}", principal),
        f"POST iam/{plural}/detach": Told(f"Take a managed policy from a {kind}", principal),
        f"POST iam/{plural}/policies": Told(f"Put an inline policy into a {kind}", principal),
        f"POST iam/{plural}/policies/delete": Told(f"Delete an inline policy of a {kind}", principal),
    }


TOLD: Mapping[str, Told] = {
    "GET openapi.json": Told("This document", OBJECT),
    "GET status": Told(
        "What the server that answers says of itself, and the members of the cluster that it sees",
        record(
            {
                "role": TEXT, "id": TEXT, "zone": TEXT, "epoch": WHOLE, "position": WHOLE, "level": WHOLE,
                "state_hash": TEXT, "ready": YES_NO, "reason": TEXT,
            },
            {"members": list_of(OBJECT)},
        ),
        "Answered from this server's own memory, so also while etcd does not answer (then without `members`).",
    ),
    "POST proxies/identity": Told(
        "Sign a certificate for the proxy of a virtual node or gateway",
        record(
            {
                "node": TEXT, "certificate_pem": TEXT, "chain": TEXT, "ca": TEXT, "not_after": TIME,
                "xds": list_of(record({"zone": TEXT, "address": TEXT})),
            }
        ),
        "`xds` lists the frontends to dial. The key stays with the caller: `csr_pem` is a signing request.",
    ),
    "GET events": Told(
        "Events of the log, a page at a time",
        _HISTORY,
        "To go on, `next` is given back as `after` (oldest first) or as `before` (newest first). With `wait_s` an "
        "answer without events is held back until there is one; `reached` is what to ask after then. With "
        "`consistency=stale` the last ones are told from memory, from `oldest` on, without their specs.",
    ),
    "GET resources": Told(
        "Resources as they are, or as they were at a moment",
        record({"at": ref("Moment"), "resources": list_of(ref("Resource")), "next": maybe(TEXT)}, AGE),
        "A page ends at `next`, which is given back as `after`. Who made the last change is told of resources that "
        "are asked for by `name`.",
    ),
    "GET diff": Told(
        "What differs between two moments",
        record({
            "from": ref("Moment"), "to": ref("Moment"), "changes": list_of(ref("Change")), "next": maybe(TEXT),
        }),
    ),
    "GET diff/xds": Told(
        "What differs, between two moments, in what a proxy's Envoys are given",
        record({"from": ref("Moment"), "to": ref("Moment"), "changes": list_of(ref("XdsChange"))}),
    ),
    "GET proxies/config": Told(
        "What a proxy's Envoys are given at a moment, and which events are behind one of its resources",
        record({
            "at": ref("Moment"), "registry": POSITION, "node": TEXT, "alarms": list_of(TEXT),
            "resources": list_of(record({"resource": TEXT, "version": TEXT}, {"spec": OBJECT_OR_TEXT})),
            "why": maybe(record({"causes": list_of(ref("Cause")), "named_by": list_of(TEXT)})),
        }),
        "With `why`, that resource alone. Of a secret only name and version are told. Endpoints are those of the "
        "registry as it is now.",
    ),
    "POST rollback": Told(
        "Take a mesh, or some of its resources, back to a moment",
        record(
            {
                "position": maybe(WHOLE), "to": ref("Moment"), "changes": list_of(ref("Change")),
                "refused": list_of(TEXT), "needs": list_of(TEXT),
            },
            {"seen": POSITION},
        ),
        "One event of its own: history is never rewritten, and a rollback can be rolled back. `dry_run` tells what "
        "would change; its `seen`, given back, makes the call fail if the mesh has changed since.",
    ),
    "GET access-keys": Told(
        "The account's access keys, without their secrets", record({"access_keys": list_of(ref("AccessKey"))}, AGE)
    ),
    "POST access-keys": Told(
        "Make an access key for a user", ref("AccessKey"), "The secret is told this once, and by a repeated call."
    ),
    "POST access-keys/disable": Told("Disable an access key", ref("AccessKey")),
    "POST access-keys/enable": Told("Enable an access key again", ref("AccessKey")),
    "POST access-keys/delete": Told(
        "Delete an access key", record({"access_key_id": TEXT, "deleted": YES_NO})
    ),
    **_of_principals("user"),
    **_of_principals("role"),
    "POST iam/roles/trust": Told("Replace who may assume a role", ref("Principal")),
    "GET iam/policies": Told("The account's policies, and AWS's managed ones", record(
        {"policies": list_of(ref("Policy"))}, AGE
    )),
    "GET iam/policies/show": Told("A policy and its document", ref("Policy")),
    "POST iam/policies": Told(
        "Make a policy, or give it another document", ref("Policy"), "`create`: refuse if it is there already."
    ),
    "POST iam/policies/delete": Told("Delete a policy that nobody has", ref("Gone")),
    "POST iam/simulate": Told(
        "What the policies of a user or role would decide, and which statement of which policy",
        record(
            {
                "principal": TEXT, "action": TEXT, "resource": TEXT, "decision": TEXT, "policy": maybe(TEXT),
                "statement": maybe(TEXT), "message": maybe(TEXT),
            }
        ),
    ),
    "GET shares": Told(
        "Meshes that the account shares, and those that are shared with it",
        record({"account": TEXT, "shares": list_of(ref("Share"))}, AGE),
        "`since`: the position from which on the other account sees what happens in the mesh.",
    ),
    "POST shares": Told("Share a mesh with other accounts", ref("Shared")),
    "POST shares/end": Told(
        "Share a mesh with these accounts no more",
        ref("Shared"),
        "Their proxies get no configuration from then on; what they made in the mesh stays.",
    ),
    "GET accounts": Told("The cluster's accounts; a tenant sees itself", record(
        {"accounts": list_of(ref("Account"))}, AGE
    )),
    "POST accounts": Told(
        "Make an account and its first admin key", ref("Account"), "Its secret is told once, and by a repeated call."
    ),
    "GET quotas": Told(
        "The account's quotas, and how much of each is used where there is most",
        record({"account": TEXT, "quotas": list_of(ref("Quota"))}, AGE),
    ),
    "POST quotas": Told("Set a quota; null: App Mesh's default again", ref("Quota")),
    "GET pki/authorities": Told("The account's certificate authorities", record(
        {"authorities": list_of(ref("CertificateAuthority"))}, AGE
    )),
    "POST pki/authorities": Told(
        "Make a certificate authority",
        ref("CertificateAuthority"),
        "`arn`: the one that specifications name already. With `certificate` (PEM) it is a root from elsewhere, which "
        "is only believed, until the authority is rotated.",
    ),
    "POST pki/authorities/rotate": Told(
        "Give an authority a new root, which takes the old one's place step by step", ref("CertificateAuthority")
    ),
    "POST pki/authorities/retire": Told("Delete an authority that nobody needs any more", ref("Retired")),
    "GET pki/certificates": Told("The account's certificates", record(
        {"certificates": list_of(ref("Certificate"))}, AGE
    )),
    "GET pki/certificates/show": Told("One certificate, with its public chain and who shows it", ref("Certificate")),
    "POST pki/certificates": Told(
        "Have an authority issue a certificate", ref("Certificate"), "Its key is drawn here and never told."
    ),
    "POST pki/certificates/rotate": Told(
        "Issue a certificate anew: another key and serial, the same names", ref("Certificate"),
        "Proxies are pushed the new one at once. `authority`: who issues it from now on.",
    ),
    "POST pki/certificates/import": Told(
        "Bring along a certificate with its chain and key", ref("Certificate"), "What is there by that ARN is replaced."
    ),
    "POST pki/certificates/delete": Told("Delete a certificate that no specification names", ref("Retired")),
    "POST registry/heartbeats": Told(
        "Say that instances are alive",
        record({"service": TEXT, "instances": list_of(TEXT), "lasting_s": OBJECT}),
        "`service` is an id, an ARN or namespace/name. They must be registered with MESHLOG_HEARTBEAT_S.",
    ),
    "GET registry/services": Told(
        "The account's registered services with their instances: health, heartbeats, and who registered them when",
        record({"services": list_of(OBJECT)}),
    ),
    "GET registry/events": Told(
        "What happened in the registry: the last events of the account, of a service or of an instance",
        record({"events": list_of(OBJECT), "head": POSITION}),
    ),
    "GET keys": Told(
        "What wraps what: data keys, key-encryption keys, providers, and what an operator should do",
        record(
            {
                "data_keys": list_of(ref("DataKey")), "key_encryption_keys": list_of(ref("KeyEncryptionKey")),
                "providers": list_of(ref("KeyProvider")), "to_do": list_of(TEXT),
                "members": list_of(record({"role": TEXT, "id": TEXT, "zone": TEXT, "keks": list_of(TEXT)})),
            }
        ),
    ),
    "POST keys/rotate": Told("Draw new data keys, with which records are sealed from now on", record(
        {"drawn": list_of(TEXT)}
    )),
    "POST keys/rewrap": Told(
        "Wrap data keys by another key-encryption key; records stay as they are",
        record(
            {
                "rewrapped": list_of(record({"id": TEXT, "kek": TEXT})), "left": list_of(TEXT), "notes": list_of(TEXT),
            }
        ),
    ),
    "GET audit": Told(
        "Calls that were accepted or refused, as one trail",
        record({"events": list_of(ref("Call")), "next": maybe(TEXT)}, {"notice": TEXT}),
        "A page may be short, or even empty, and still have a `next`: give it back as `after`.",
    ),
}  # fmt: skip
"""By method and path below `/meshlog/v1/`."""
