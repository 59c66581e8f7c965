"""The etcd3 package's messages and stubs on a current protobuf: sources in, typed-enough handles out.

etcd3 0.12 ships stubs generated for protobuf 3, which no longer import. Their descriptors are sound, though: they are
read out of the `*_pb2.py` sources as text (never executed), completed with the few fields that later etcds added, and
given to the default descriptor pool; modules with classes made from them stand in for the originals. Only then is
etcd3 imported. Nothing else in the tree may import etcd3.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.internal import enum_type_wrapper

_PACKAGE = "etcd3.etcdrpc"
_FILES = ("kv", "auth", "rpc")

_BOOL = FieldDescriptorProto.TYPE_BOOL
_INT64 = FieldDescriptorProto.TYPE_INT64
_UINT64 = FieldDescriptorProto.TYPE_UINT64
_STRING = FieldDescriptorProto.TYPE_STRING

# Fields that etcd 3.4 to 3.6 added to messages of etcd3's 3.3 (etcd api/etcdserverpb/rpc.proto): message, name, number,
# type, repeated.
_LATER_FIELDS = (
    ("WatchCreateRequest", "watch_id", 7, _INT64, False),
    ("WatchCreateRequest", "fragment", 8, _BOOL, False),
    ("WatchResponse", "fragment", 7, _BOOL, False),
    ("StatusResponse", "raftAppliedIndex", 7, _UINT64, False),
    ("StatusResponse", "errors", 8, _STRING, True),
    ("StatusResponse", "dbSizeInUse", 9, _INT64, False),
    ("StatusResponse", "isLearner", 10, _BOOL, False),
    ("StatusResponse", "dbSizeQuota", 12, _INT64, False),
    ("Member", "isLearner", 5, _BOOL, False),
    ("MemberAddRequest", "isLearner", 2, _BOOL, False),
)


def _install() -> ModuleType:
    found = importlib.util.find_spec("etcd3")
    if found is None or found.origin is None:
        raise ImportError("the etcd3 package is not installed: run `make setup`")
    folder = Path(found.origin).parent / "etcdrpc"
    for name in _FILES:
        described = FileDescriptorProto.FromString(_serialized_descriptor(folder / f"{name}_pb2.py"))
        if name == "auth":
            described.message_type.add(name="UserAddOptions").field.add(
                name="no_password", number=1, type=_BOOL, label=FieldDescriptorProto.LABEL_OPTIONAL
            )
        if name == "rpc":
            _complete(described)
        file = descriptor_pool.Default().AddSerializedFile(described.SerializeToString())
        sys.modules[f"{_PACKAGE}.{name}_pb2"] = _module_of(f"{_PACKAGE}.{name}_pb2", file)
    return importlib.import_module(_PACKAGE)


def _serialized_descriptor(source: Path) -> bytes:
    """The bytes given to `serialized_pb=_b('…')` in a generated module, read without running it."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb" and isinstance(node.value, ast.Call):
            return str(ast.literal_eval(node.value.args[0])).encode("latin1")
    raise ImportError(f"{source} is not the generated module of etcd3 0.12 that this build knows: run `make setup`")


def _complete(file: FileDescriptorProto) -> None:
    """Add what later etcds speak and this tree needs: progress requests, fragments, users without password."""
    messages = {message.name: message for message in file.message_type}
    for message, name, number, kind, repeated in _LATER_FIELDS:
        label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        messages[message].field.add(name=name, number=number, type=kind, label=label)
    messages["AuthUserAddRequest"].field.add(
        name="options",
        number=3,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
        type_name=".authpb.UserAddOptions",
    )
    file.message_type.add(name="WatchProgressRequest")
    messages["WatchRequest"].field.add(
        name="progress_request",
        number=3,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
        type_name=".etcdserverpb.WatchProgressRequest",
        oneof_index=0,
    )


def _module_of(name: str, file: FileDescriptor) -> ModuleType:
    """A module with what a generated one has: a class for each message, the enums and their values."""
    module = ModuleType(name)
    module.__dict__["DESCRIPTOR"] = file
    for message_name, message in file.message_types_by_name.items():
        module.__dict__[message_name] = message_factory.GetMessageClass(message)
    for enum_name, enum in file.enum_types_by_name.items():
        module.__dict__[enum_name] = enum_type_wrapper.EnumTypeWrapper(enum)
        module.__dict__.update({value.name: value.number for value in enum.values})
    return module


rpc: Any = _install()
"""`etcd3.etcdrpc`: message classes and stubs (KVStub, WatchStub, LeaseStub, MaintenanceStub, ClusterStub, AuthStub)."""

kv: Any = sys.modules[f"{_PACKAGE}.kv_pb2"]
auth: Any = sys.modules[f"{_PACKAGE}.auth_pb2"]
"""Message classes of `mvccpb` and `authpb`."""

etcd3: Any = importlib.import_module("etcd3")
