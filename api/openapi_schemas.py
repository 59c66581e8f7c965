"""What routes under `/meshlog/v1/` take and answer, in JSON Schema: the shapes behind the OpenAPI document. Data.

A route's query members and body fields are in the route table itself; what each name means stands in MEMBERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.events import EVENT_TYPES
from mesh.kinds import KINDS

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
YES_NO: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
OBJECT_OR_TEXT: Schema = {"anyOf": [OBJECT, TEXT]}
TIME: Schema = {"type": "string", "format": "date-time", "description": "Log time, ISO 8601 in UTC."}
POSITION: Schema = {
    "type": "string",
    "pattern": r"^[0-9]+\.[0-9]+$",
    "description": "A position of the log, `<epoch>.<position>`.",
}
MOMENT: Schema = {
    "anyOf": [TEXT, WHOLE],
    "description": "A position of the log (`42`, `1.42`) or a time with its zone (`2026-11-22T10:42:00Z`).",
}


def ref(name: str) -> Schema:
    """One of COMPONENTS."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def record(members: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object that always has `members`, and may have `optional`."""
    properties = {**members, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(members)}


AGE: Mapping[str, Schema] = {"position": POSITION, "age_s": maybe(NUMBER)}
"""Of a stale answer."""
_PLACE: Mapping[str, Schema] = {"position": WHOLE, "epoch": WHOLE}

COMPONENTS: Mapping[str, Schema] = {
    "Error": record({"message": TEXT, "__type": TEXT}),
    "Moment": record({**_PLACE, "time": maybe(TIME)}),
    "LastChange": record(_PLACE, {"time": TIME, "type": TEXT, "actor": TEXT}),
    "Tag": record({"key": TEXT, "value": TEXT}),
    "Event": record(
        {
            **_PLACE, "time": TIME, "type": one_of(*EVENT_TYPES), "actor": TEXT, "account": TEXT, "mesh": maybe(TEXT),
            "resource": maybe(TEXT), "source_ip": TEXT, "request_id": TEXT, "summary": TEXT, "data": OBJECT,
        },
        {"version": WHOLE},
    ),
    "Resource": record(
        {
            "meshName": TEXT, "spec": OBJECT, "status": record({"status": TEXT}),
            "metadata": record(
                {
                    "arn": TEXT, "uid": TEXT, "version": WHOLE, "meshOwner": TEXT, "resourceOwner": TEXT,
                    "createdAt": NUMBER, "lastUpdatedAt": NUMBER,
                }
            ),
            "tags": list_of(ref("Tag")), "last_change": maybe(ref("LastChange")),
        },
        {kind.name_member: TEXT for kind in KINDS.values() if kind.name_member != "meshName"},
    ),
    "Side": record({"version": WHOLE, "spec": OBJECT, "tags": OBJECT}),
    "Change": record(
        {
            "resource": TEXT, "change": one_of("created", "updated", "deleted"), "before": maybe(ref("Side")),
            "after": maybe(ref("Side")), "last_change": maybe(ref("LastChange")),
        }
    ),
    "XdsSide": record({"version": TEXT, "spec": OBJECT}),
    "XdsChange": record(
        {
            "resource": TEXT, "change": one_of("created", "updated", "deleted"), "before": maybe(ref("XdsSide")),
            "after": maybe(ref("XdsSide")),
        }
    ),
    "Cause": record(
        {
            "what": TEXT, "role": one_of("content", "presence"), "log": one_of("mesh", "registry"),
            "deletion": YES_NO, "fields": list_of(TEXT),
            "event": maybe(record({}, {**_PLACE, "time": TIME, "type": TEXT, "actor": TEXT})),
        }
    ),
    "Call": {
        "type": "object",
        "description": "One call in the form of a CloudTrail record.",
        "properties": {
            "eventTime": TEXT, "eventSource": TEXT, "eventName": TEXT, "eventID": TEXT, "requestID": maybe(TEXT),
            "sourceIPAddress": maybe(TEXT), "errorCode": maybe(TEXT), "errorMessage": maybe(TEXT),
            "userIdentity": OBJECT, "requestParameters": maybe(OBJECT),
        },
        "required": ["eventTime", "eventSource", "eventName", "userIdentity"],
    },
    "DataKey": record(
        {
            "id": TEXT, "class": TEXT, "created": TIME, "scheme": TEXT, "kek": maybe(TEXT), "sealing": YES_NO,
            "problem": maybe(TEXT),
        }
    ),
    "KeyEncryptionKey": record(
        {
            "id": TEXT, "class": TEXT, "scheme": TEXT, "data_keys": WHOLE, "current": YES_NO,
            "lacking": list_of(TEXT),
        }
    ),
    "AccessKey": record(
        {
            "access_key_id": TEXT, "principal": TEXT, "account": TEXT, "admin": YES_NO, "created": TIME,
            "disabled": maybe(TIME), "last_used": maybe(TIME),
        },
        {"secret_access_key": TEXT},
    ),
    "Principal": record(
        {"arn": TEXT, "name": TEXT, "created": TIME, "policies": list_of(TEXT), "inline": list_of(TEXT)},
        {"trust": TEXT, "documents": OBJECT, "access_keys": list_of(TEXT), **AGE},
    ),
    "Policy": record(
        {
            "arn": TEXT, "name": TEXT, "description": maybe(TEXT), "version": WHOLE, "created": maybe(TIME),
            "updated": maybe(TIME), "attached": list_of(TEXT),
        },
        {"document": TEXT, **AGE},
    ),
    "Gone": record({"arn": TEXT, "name": TEXT, "deleted": YES_NO}),
    "CertificateAuthority": record(
        {
            "arn": TEXT, "name": TEXT, "issuing": maybe(TEXT), "rotating": YES_NO, "certificates": WHOLE,
            "created": TIME, "updated": TIME,
            "roots": list_of(record({
                "id": TEXT, "not_before": TIME, "not_after": TIME, "added": TIME, "certificate": TEXT,
            })),
        },
    ),
    "Certificate": record(
        {
            "arn": TEXT, "domain": TEXT, "names": list_of(TEXT), "authority": maybe(TEXT), "root": maybe(TEXT),
            "serial": TEXT, "version": WHOLE, "status": one_of("issued", "imported", "expired"), "not_before": TIME,
            "not_after": TIME, "created": TIME, "updated": TIME,
        },
        {"chain": TEXT, "roots": list_of(TEXT), "in_use_by": list_of(TEXT), **AGE},
    ),
    "Retired": record({"arn": TEXT, "deleted": YES_NO}),
    "Share": record({"mesh": TEXT, "owner": TEXT, "account": TEXT, "since": POSITION}),
    "Shared": record({"mesh": TEXT, "owner": TEXT, "shared_with": list_of(TEXT), "changed": list_of(TEXT)}),
    "Account": record(
        {"account": TEXT, "name": TEXT, "created": maybe(TIME), "operator": YES_NO},
        {"access_key_id": TEXT, "secret_access_key": TEXT},
    ),
    "Quota": record(
        {
            "code": TEXT, "name": TEXT, "value": WHOLE, "default": WHOLE, "adjustable": YES_NO,
            "used": maybe(record({"count": WHOLE, "where": TEXT})),
        }
    ),
    "KeyProvider": record(
        {
            "class": TEXT, "scheme": TEXT, "place": TEXT, "wraps": YES_NO, "reachable": YES_NO, "current": maybe(TEXT),
            "unused": list_of(TEXT), "problem": maybe(TEXT),
        }
    ),
}  # fmt: skip


MEMBERS: Mapping[str, Schema] = {
    "account": {**TEXT, "pattern": "^[0-9]{12}$", "description": "The account that owns it; else the caller's own."},
    "actor": {**TEXT, "description": "An ARN, or what follows its last slash; `*` stands for any text."},
    "after": {**TEXT, "description": "Where to go on: what the answer before called `next` or `reached`."},
    "allow_mesh_deletion": {**YES_NO, "description": "Let the rollback delete the mesh, if it was not there then."},
    "at": {**MOMENT, "description": f"The moment to look at; now if absent. {MOMENT['description']}"},
    "before": {**MOMENT, "description": f"Only what came before. {MOMENT['description']}"},
    "class": {**TEXT, "description": "A class of data key, or `all`."},
    "instance": {**TEXT, "description": "The id of an instance in the registry."},
    "instances": {"description": "Ids of instances in the registry."},
    "namespace": {**TEXT, "description": "The name of a namespace in the registry."},
    "service": {**TEXT, "description": "The name of a service in the registry; of a heartbeat, also its id or ARN."},
    "action": {**TEXT, "description": "An action, such as `appmesh:UpdateRoute`."},
    "create": {**YES_NO, "description": "Refuse if it is there already."},
    "document": {"description": "A policy document: JSON text, kept verbatim, or an object."},
    "policy": {**TEXT, "description": "A managed policy's name, or its ARN."},
    "resource": {**TEXT, "description": "An ARN; `*` if absent."},
    "role": {**TEXT, "description": "A role's name, or its ARN."},
    "tags": {**OBJECT, "description": "Tags that the call would put on the resource."},
    "trust": {"description": "Who may assume the role: a trust policy, JSON text or an object."},
    "own": {**YES_NO, "description": "In another account's mesh: take back only what the caller's account made."},
    "why": {**TEXT, "description": "One of the resources, `Cluster/<name>`: which events and fields are behind it."},
    "with": {**list_of(TEXT), "description": "Accounts, of twelve digits each."},
    "access_key_id": {**TEXT, "description": "The key's id."},
    "admin": {**YES_NO, "description": "Let the key do everything in its account."},
    "code": {**TEXT, "description": "App Mesh's code of the quota, such as `L-AC861A39`."},
    "user": {**TEXT, "description": "A user's name, or its ARN."},
    "value": {**WHOLE, "description": "The new value."},
    "clientToken": {
        **TEXT, "pattern": "^[A-Za-z0-9_-]{1,36}$",
        "description": "Makes the call safe to repeat: the same token and body are one event and get one answer.",
    },
    "arn": {**TEXT, "description": "The ARN that it is to have; else one is drawn."},
    "authority": {**TEXT, "description": "A certificate authority's ARN."},
    "certificate": {**TEXT, "description": "A certificate's ARN; what is brought along from elsewhere: PEM."},
    "chain": {**TEXT, "description": "The certificates above it, its issuer first, PEM."},
    "domain": {**TEXT, "description": "The name that a certificate is for."},
    "names": {**list_of(TEXT), "description": "Further names: DNS names (`*.` may begin one), addresses, URIs."},
    "private_key": {**TEXT, "description": "The certificate's key, PEM without a password. It is never told again."},
    "validity_s": {**WHOLE, "description": "How long it is good for, in seconds."},
    "consistency": {
        **one_of("strong", "stale"),
        "description": "`stale`: from what this server has folded, marked with its age, without asking etcd.",
    },
    "csr_pem": {**TEXT, "description": "A certificate signing request, PEM."},
    "dry_run": {**YES_NO, "description": "Tell what would be done, and do nothing."},
    "force": {**YES_NO, "description": "Go on although a member lacks the key."},
    "from": {**MOMENT, "description": f"The earlier side. {MOMENT['description']}"},
    "kind": {**one_of(*KINDS), "description": "A kind of resource, in any case of letters."},
    "limit": {**WHOLE, "minimum": 1, "maximum": 1000, "description": "Items in one answer."},
    "mesh": {**TEXT, "description": "A mesh's name."},
    "min_position": {
        **TEXT,
        "description": "Answer from that position of the log or a later one: the read waits for it. Give the "
        "`x-meshlog-position` of a write to see that write.",
    },
    "name": {**TEXT, "description": "A name: a resource's (of events also its path), a policy's, an account's."},
    "node": {**TEXT, "description": "`mesh/<mesh>[@<account>]/virtualNode|virtualGateway/<name>`, or its ARN."},
    "only": {**list_of(TEXT), "description": "Take back these resources alone: `virtualNode/web`, or their ARNs."},
    "order": {**one_of("oldest", "newest"), "description": "Which come first."},
    "parent": {**TEXT, "description": "The name of a route's router, or of a gateway route's gateway."},
    "seen": {**MOMENT, "description": "The position that a dry run was decided on."},
    "since": {**MOMENT, "description": f"The first to tell of. {MOMENT['description']}"},
    "source_ip": {**TEXT, "description": "The address that the call came from."},
    "specs": {**one_of("yes", "no"), "description": "Whether resources come with what is in them; `yes` if absent."},
    "status": {**one_of("accepted", "refused"), "description": "Both, if absent."},
    "to": {**MOMENT, "description": f"The later side, or the moment to go back to. {MOMENT['description']}"},
    "type": {**one_of(*EVENT_TYPES), "description": "A type of event, in any case of letters."},
    "until": {**MOMENT, "description": f"The last to tell of. {MOMENT['description']}"},
    "wait_s": {**NUMBER, "minimum": 0, "description": "Hold an answer without events back for so long."},
}  # fmt: skip
"""Query members and body fields, by name. Their types in a body are the route's own."""
