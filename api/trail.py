"""Calls as CloudTrail tells them: one JSON document for each accepted or refused call. Pure.

An accepted call's document is made from its event in the log; a refused one's when it is refused. Both name what was
asked for; neither holds a specification, a tag, a certificate or a secret: what a field of those names had is HIDDEN,
in CloudTrail's own words. Times are whole seconds in UTC, as there.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from identity.caller import Caller
from identity.sigv4 import APPMESH, MESHLOG, STS
from mesh.events import (
    ACCESS_KEY_CREATED,
    ACCESS_KEY_DELETED,
    ACCESS_KEY_DISABLED,
    ACCESS_KEY_ENABLED,
    ACCESS_KEYS_USED,
    ACCOUNT_CREATED,
    AUTHORITY_CREATED,
    AUTHORITY_KEY_KEPT,
    AUTHORITY_RETIRED,
    AUTHORITY_ROOT_ADDED,
    AUTHORITY_ROOT_DROPPED,
    AUTHORITY_ROOT_PROMOTED,
    CERTIFICATE_DELETED,
    CERTIFICATE_IMPORTED,
    CERTIFICATE_ISSUED,
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    INLINE_POLICY_DELETED,
    INLINE_POLICY_PUT,
    LEVEL_RAISED,
    LOG_RESTORED,
    MESH_ROLLED_BACK,
    MESH_SHARED,
    MESH_UNSHARED,
    POLICY_ATTACHED,
    POLICY_DELETED,
    POLICY_DETACHED,
    POLICY_PUT,
    PRINCIPAL_CREATED,
    PRINCIPAL_DELETED,
    PROXY_IDENTITY_ISSUED,
    QUOTA_CHANGED,
    RECORD_QUARANTINED,
    RESOURCE_CREATED,
    RESOURCE_DELETED,
    RESOURCE_UPDATED,
    TAGS_CHANGED,
    TRUST_POLICY_PUT,
    Event,
    subject,
)
from mesh.kinds import KINDS, MESH, ResourceKey
from mesh.principals import IAM, AccessKey, iam_name
from runtime.limits import AUDIT_MEMBERS_MAX, AUDIT_MESSAGE_CHARS, AUDIT_VALUE_CHARS

HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"
UNKNOWN_OPERATION = "UnknownOperation"
NOT_RECORDED = "RefusalsNotRecorded"
_VERSION = "1.11"
_SHOWN = re.compile(
    r".*Name|RoleArn|DurationSeconds|meshOwner|resourceArn|limit|nextToken|clientToken|"
    r"mesh|to|only|at|since|until|dry_run|account|node|after|user|role|policy|action|resource|admin|access_key_id|"
    r"arn|authority|domain"
)
_CLAIMED = re.compile(r"Credential=([A-Za-z0-9]{4,128})/", re.ASCII)
_READS = ("Describe", "List", "Get")
CLOUD_MAP_SOURCE = "servicediscovery.amazonaws.com"
_SOURCES = {APPMESH: "appmesh.amazonaws.com", IAM: "iam.amazonaws.com", STS: "sts.amazonaws.com", MESHLOG: "meshlog"}
_ASSUMED = re.compile(r"arn:aws:sts::(?P<account>\d{12}):assumed-role/(?P<role>[^/]+)/(?P<session>.+)")
_OPERATIONS: Mapping[str, str] = {
    MESH_ROLLED_BACK: "RollbackMesh",
    ACCESS_KEYS_USED: "RecordKeyUse",
    QUOTA_CHANGED: "SetQuota",
    ACCOUNT_CREATED: "CreateAccount",
    MESH_SHARED: "ShareMesh",
    MESH_UNSHARED: "UnshareMesh",
    AUTHORITY_CREATED: "CreateCertificateAuthority",
    AUTHORITY_KEY_KEPT: "CreateCertificateAuthority",
    AUTHORITY_ROOT_ADDED: "RotateCertificateAuthority",
    AUTHORITY_ROOT_PROMOTED: "RotateCertificateAuthority",
    AUTHORITY_ROOT_DROPPED: "RotateCertificateAuthority",
    AUTHORITY_RETIRED: "RetireCertificateAuthority",
    CERTIFICATE_ISSUED: "IssueCertificate",
    CERTIFICATE_IMPORTED: "ImportCertificate",
    CERTIFICATE_DELETED: "DeleteCertificate",
    PROXY_IDENTITY_ISSUED: "IssueProxyIdentity",
    DATA_KEYS_DRAWN: "RotateKeys",
    DATA_KEYS_REWRAPPED: "RewrapKeys",
    LEVEL_RAISED: "RaiseLevel",
    LOG_RESTORED: "RestoreLog",
    RECORD_QUARANTINED: "QuarantineRecord",
}
_IAM_OPERATIONS: Mapping[str, str] = {
    ACCESS_KEY_CREATED: "CreateAccessKey",
    ACCESS_KEY_DISABLED: "UpdateAccessKey",
    ACCESS_KEY_ENABLED: "UpdateAccessKey",
    ACCESS_KEY_DELETED: "DeleteAccessKey",
    PRINCIPAL_CREATED: "Create{}",
    PRINCIPAL_DELETED: "Delete{}",
    POLICY_ATTACHED: "Attach{}Policy",
    POLICY_DETACHED: "Detach{}Policy",
    INLINE_POLICY_PUT: "Put{}Policy",
    INLINE_POLICY_DELETED: "Delete{}Policy",
    TRUST_POLICY_PUT: "UpdateAssumeRolePolicy",
    POLICY_PUT: "CreatePolicy",
    POLICY_DELETED: "DeletePolicy",
}
"""IAM's own; {} is User or Role."""
_VERBS: Mapping[str, str] = {RESOURCE_CREATED: "Create", RESOURCE_UPDATED: "Update", RESOURCE_DELETED: "Delete"}


@dataclass(slots=True)
class Attempt:
    """A call as far as it got: filled in on its way, told about only if it is refused."""

    request_id: str
    time_us: int
    source_ip: str
    method: str
    path: str
    user_agent: str = ""
    claimed_key: str = ""
    action: str = ""
    caller: Caller | None = None
    members: Mapping[str, Any] = field(default_factory=dict)


def claimed_key(authorization: str) -> str:
    """The access key id that an Authorization header names, believed by nobody; '' if it names none."""
    match = _CLAIMED.search(authorization)
    return match[1] if match else ""


def refused_call(attempt: Attempt, code: str, message: str, region: str) -> dict[str, Any]:
    """The document of a call that was refused, without its event id, which its place in the trail gives."""
    service, _, name = attempt.action.partition(":")
    parameters = _shown(attempt.members)
    if not name:
        service, name = APPMESH, UNKNOWN_OPERATION
        parameters = {"method": attempt.method[:AUDIT_VALUE_CHARS], "path": attempt.path[:AUDIT_VALUE_CHARS]}
    caller = attempt.caller
    identity = (
        _user(caller.account, caller.principal, caller.access_key_id)
        if caller
        else {"type": "Unknown", "principalId": None, "arn": None, "accountId": None,
              "accessKeyId": attempt.claimed_key or None}
    )  # fmt: skip
    return _document(
        time_us=attempt.time_us,
        service=service,
        name=name,
        region=region,
        source_ip=attempt.source_ip,
        identity=identity,
        parameters=parameters,
        request_id=attempt.request_id,
        account=caller.account if caller else None,
    ) | {
        "userAgent": attempt.user_agent[:AUDIT_VALUE_CHARS] or None,
        "errorCode": code,
        "errorMessage": message[:AUDIT_MESSAGE_CHARS],
    }


def accepted_call(event: Event, region: str, keys: Iterable[AccessKey]) -> dict[str, Any]:
    """The document of a call that is in the log. `keys` tell the actor's access key, where it has but one."""
    key = subject(event.type, event.data)
    data = event.data or {}
    parameters: dict[str, Any] = _names(key) if key else {}
    if event.type in (RESOURCE_CREATED, RESOURCE_UPDATED):
        parameters["spec"] = HIDDEN
    if event.type == MESH_ROLLED_BACK:
        parameters["to"] = ".".join(str(part) for part in data["to"])
    if event.type in _IAM_OPERATIONS:
        parameters |= _iam_names(data)
    mine = [each.access_key_id for each in keys if each.principal == event.actor]
    name = _operation(event, key)
    return _document(
        time_us=event.time_us,
        service=_service(event),
        name=name,
        region=region,
        source_ip=event.source_ip,
        identity=_user(event.account, event.actor, mine[0] if len(mine) == 1 else None),
        parameters=parameters or None,
        request_id=event.request_id,
        account=key.account if key else event.account,
    ) | {
        "responseElements": {"position": str(event.position)},
        "eventID": event_id("log", str(event.position), event.request_id),
    }


def told_to(account: str, document: dict[str, Any]) -> dict[str, Any]:
    """The document as an account may read it: of another one's caller, which account it is (as CloudTrail tells)."""
    caller = document["userIdentity"].get("accountId")
    if caller in (None, account):
        return document
    identity = {"type": "AWSAccount", "principalId": caller, "accountId": caller}
    return document | {"userIdentity": identity, "sourceIPAddress": None}


def not_recorded(time_us: int, dropped: Mapping[str, int], region: str) -> dict[str, Any]:
    """Says how many refused calls were counted only, by error code."""
    identity = {"type": "AWSService", "invokedBy": "meshlog"}
    return _document(
        time_us=time_us,
        service=MESHLOG,
        name=NOT_RECORDED,
        region=region,
        source_ip="",
        identity=identity,
        parameters=None,
        request_id="",
        account=None,
    ) | {"eventType": "AwsServiceEvent", "serviceEventDetails": {"refusals": dict(dropped)}, "errorCode": NOT_RECORDED}


def event_id(*place: str) -> str:
    """A UUID out of an event's place: the same one each time that it is read."""
    digest = hashlib.sha256("\0".join(place).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"


def matches(document: Mapping[str, Any], *, actor: str | None, source_ip: str | None, mesh: str | None) -> bool:
    """Whether a document is of that actor (ARN, user name or access key id), address and mesh; None asks nothing."""
    identity = document["userIdentity"]
    parameters = document["requestParameters"] or {}
    return (
        (actor is None or actor in (identity.get("arn"), identity.get("userName"), identity.get("accessKeyId")))
        and (source_ip is None or source_ip == document["sourceIPAddress"])
        and (mesh is None or mesh in (parameters.get("meshName"), parameters.get("mesh")))
    )


def _document(
    *,
    time_us: int,
    service: str,
    name: str,
    region: str,
    source_ip: str,
    identity: Mapping[str, Any],
    parameters: Mapping[str, Any] | None,
    request_id: str,
    account: str | None,
) -> dict[str, Any]:
    return {
        "eventVersion": _VERSION,
        "userIdentity": dict(identity),
        "eventTime": _iso(time_us),
        "eventSource": _SOURCES.get(service, service),
        "eventName": name,
        "awsRegion": region,
        "sourceIPAddress": source_ip,
        "userAgent": None,
        "errorCode": None,
        "errorMessage": None,
        "requestParameters": dict(parameters) if parameters is not None else None,
        "responseElements": None,
        "requestID": request_id,
        "eventID": None,
        "readOnly": name.startswith(_READS),
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": account,
        "eventCategory": "Management",
    }


def _user(account: str, principal: str, access_key_id: str | None) -> dict[str, Any]:
    assumed = _ASSUMED.fullmatch(principal)
    if assumed:
        role = f"arn:aws:iam::{assumed['account']}:role/{assumed['role']}"
        issuer = {"type": "Role", "arn": role, "accountId": assumed["account"], "userName": assumed["role"]}
        return {
            "type": "AssumedRole",
            "principalId": f"{assumed['role']}:{assumed['session']}",
            "arn": principal,
            "accountId": account,
            "accessKeyId": access_key_id,
            "userName": assumed["role"],
            "sessionContext": {"sessionIssuer": issuer},
        }
    return {
        "type": "IAMUser" if ":user/" in principal else "AWSService",
        "principalId": principal.rpartition(":")[2],
        "arn": principal,
        "accountId": account,
        "accessKeyId": access_key_id,
        "userName": principal.rpartition("/")[2],
    }


def _operation(event: Event, key: ResourceKey | None) -> str:
    if event.type == TAGS_CHANGED:
        return "TagResource" if (event.data or {}).get("set") else "UntagResource"
    if event.type in _VERBS and key is not None:
        return _VERBS[event.type] + KINDS[key.kind].title
    if event.type in _IAM_OPERATIONS:
        kind = "Role" if ":role/" in (event.data or {}).get("principal", "") else "User"
        return _IAM_OPERATIONS[event.type].format(kind)
    return _OPERATIONS.get(event.type, event.type)


def _service(event: Event) -> str:
    if event.type in _VERBS or event.type == TAGS_CHANGED:
        return APPMESH
    return IAM if event.type in _IAM_OPERATIONS else MESHLOG


def _iam_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a change of access names; of documents nothing."""
    name = iam_name(data.get("principal", ""))
    named = {f"{name.kind}Name": name.name} if name is not None else {}
    for member, shown in (("access_key_id", "accessKeyId"), ("policy", "policyArn"), ("name", "policyName")):
        if member in data:
            named[shown] = data[member]
    return named


def _names(key: ResourceKey) -> dict[str, Any]:
    names = {MESH.name_member: key.mesh}
    kind = KINDS[key.kind]
    if kind.parent:
        names[KINDS[kind.parent].name_member] = key.parent
    return names | ({} if kind is MESH else {kind.name_member: key.name})


def _shown(members: Mapping[str, Any]) -> dict[str, Any] | None:
    shown: dict[str, Any] = {}
    for name, value in list(members.items())[:AUDIT_MEMBERS_MAX]:
        plain = isinstance(value, str | int | bool) and _SHOWN.fullmatch(name) is not None
        shown[name[:AUDIT_VALUE_CHARS]] = (
            (value[:AUDIT_VALUE_CHARS] if isinstance(value, str) else value) if plain else HIDDEN
        )
    return shown or None


def _iso(time_us: int) -> str:
    return datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
