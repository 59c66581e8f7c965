"""etcd's own users and rights: who may touch which keys. A cluster without access control becomes one with it.

Users are named by the CN of their client certificate and have no password. `root` provisions and checks; `api` writes
the log; `projector` reads it and registers itself under `members/`; `maintenance` compacts, rewrites files and lifts
NOSPACE, which etcd lets only root's role do: API servers alone hold its certificate. Setting it up again changes
nothing, and so disturbs nobody: each grant would move etcd's auth revision and fail what is in flight. It never widens
a right beyond `rights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grpc

from cluster.etcd import protos
from cluster.etcd.values import prefix_end
from mesh.errors import NoQuorum, SettingsError
from runtime.limits import ETCD_ADMIN_TIMEOUT_S
from runtime.settings import TlsFiles

ROOT = "root"
MAINTENANCE = "maintenance"


class Right(NamedTuple):
    """What a role may do with the keys that begin with `prefix`."""

    prefix: str
    write: bool


def rights(key_prefix: str) -> Mapping[str, tuple[Right, ...]]:
    """Least rights by user, `root` and `maintenance` aside (they may do everything)."""
    return {
        "api": (Right(key_prefix, write=True),),
        "projector": (Right(key_prefix, write=False), Right(f"{key_prefix}members/", write=True)),
    }


def enable_access(addresses: Sequence[str], tls: TlsFiles, key_prefix: str) -> None:
    """Make the users and their rights, then demand them, by the first member that answers. `tls` is root's certificate.

    Blocking; seconds at most. NoQuorum if no member answers, SettingsError if etcd refuses root's certificate.
    """
    failures = []
    credentials = grpc.ssl_channel_credentials(
        tls.authority.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    for address in addresses:
        with grpc.secure_channel(address, credentials) as channel:
            try:
                _Access(protos.rpc.AuthStub(channel)).enable(rights(key_prefix))
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
                    raise SettingsError(
                        f"etcd at {address} does not take {tls.certificate} as its user '{ROOT}': {error.details()}; "
                        "use the admin certificate that this cluster was made with"
                    ) from error
                failures.append(f"{address}: {error.details()}")
            else:
                return
    raise NoQuorum(f"no etcd member could set up access control ({'; '.join(failures)}); start them and call again")


class _Access:
    """The steps, over one member's Auth service."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def enable(self, wanted: Mapping[str, tuple[Right, ...]]) -> None:
        self._user(ROOT, ROOT)
        self._user(MAINTENANCE, ROOT)
        for name, granted in wanted.items():
            self._role(name, granted)
            self._user(name, name)
        # A no-op where it is on already.
        self._call("AuthEnable", protos.rpc.AuthEnableRequest())

    def _role(self, name: str, granted: Sequence[Right]) -> None:
        self._add("RoleAdd", protos.rpc.AuthRoleAddRequest(name=name))
        permission = protos.auth.Permission
        has = {
            (bytes(found.key), bytes(found.range_end), int(found.permType))
            for found in self._call("RoleGet", protos.rpc.AuthRoleGetRequest(role=name)).perm
        }
        for right in granted:
            key = right.prefix.encode()
            kind = permission.READWRITE if right.write else permission.READ
            wanted = (key, prefix_end(key), int(kind))
            if wanted not in has:
                perm = permission(key=key, range_end=wanted[1], permType=kind)
                self._call("RoleGrantPermission", protos.rpc.AuthRoleGrantPermissionRequest(name=name, perm=perm))

    def _user(self, name: str, role: str) -> None:
        if name == ROOT:
            self._add("RoleAdd", protos.rpc.AuthRoleAddRequest(name=ROOT))
        without_password = protos.auth.UserAddOptions(no_password=True)
        self._add("UserAdd", protos.rpc.AuthUserAddRequest(name=name, options=without_password))
        if role not in self._call("UserGet", protos.rpc.AuthUserGetRequest(name=name)).roles:
            self._call("UserGrantRole", protos.rpc.AuthUserGrantRoleRequest(user=name, role=role))

    def _add(self, method: str, request: Any) -> None:
        try:
            self._call(method, request)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION or "already exists" not in str(error.details()):
                raise

    def _call(self, method: str, request: Any) -> Any:
        return getattr(self._stub, method)(request, timeout=ETCD_ADMIN_TIMEOUT_S)
