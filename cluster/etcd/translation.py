"""Plain values to etcd's messages and back. Pure; the only module besides protos.py that knows their fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.etcd import protos
from cluster.etcd.values import (
    Comparison,
    CreateRevisionIs,
    Delete,
    KeyEvent,
    KeyValue,
    ModRevisionIs,
    Operation,
    Put,
    RangeRead,
    RangeResult,
    ValueIs,
)


def range_request(read: RangeRead) -> Any:
    return protos.rpc.RangeRequest(
        key=read.key, range_end=read.range_end, limit=read.limit, revision=read.revision, keys_only=read.keys_only
    )


def range_result(response: Any, revision: int = 0) -> RangeResult:
    """`revision` stands in where the response is part of a Txn's and has no header of its own."""
    items = tuple(key_value(item) for item in response.kvs)
    return RangeResult(items, revision or response.header.revision, response.more)


def reads_of(txn_response: Any) -> Sequence[RangeResult]:
    """The results of the ranges that a Txn carried out."""
    revision = txn_response.header.revision
    return tuple(
        range_result(each.response_range, revision)
        for each in txn_response.responses
        if each.WhichOneof("response") == "response_range"
    )


def key_value(item: Any) -> KeyValue:
    return KeyValue(item.key, item.value, item.create_revision, item.mod_revision, item.version, item.lease)


def key_event(event: Any) -> KeyEvent:
    return KeyEvent(key_value(event.kv), event.type == protos.kv.Event.DELETE)


def comparison(wanted: Comparison) -> Any:
    compare = protos.rpc.Compare
    match wanted:
        case ValueIs(key, value):
            return compare(key=key, target=compare.VALUE, result=compare.EQUAL, value=value)
        case ModRevisionIs(key, revision):
            return compare(key=key, target=compare.MOD, result=compare.EQUAL, mod_revision=revision)
        case CreateRevisionIs(key, revision):
            return compare(key=key, target=compare.CREATE, result=compare.EQUAL, create_revision=revision)


def operation(wanted: Operation) -> Any:
    request_op = protos.rpc.RequestOp
    match wanted:
        case Put(key, value, lease):
            return request_op(request_put=protos.rpc.PutRequest(key=key, value=value, lease=lease))
        case Delete(key, range_end):
            return request_op(request_delete_range=protos.rpc.DeleteRangeRequest(key=key, range_end=range_end))
        case RangeRead():
            return request_op(request_range=range_request(wanted))
