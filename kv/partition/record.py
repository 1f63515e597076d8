"""The stored form of one key's value and history, and the wire form of the results made from it.

Here live two codecs: the record that the store keeps for a key (a disk format), and the framing
by which results are joined into a response without a message object for each. Pure.

A record is 32 bytes of header, then the value: create revision, mod revision, version, expiry,
each an unsigned 64-bit little-endian integer. The expiry is reserved and 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final

from kv.errors import KVError, to_proto
from kv.v1 import kv_pb2
from kv.wire import varint

HEADER: Final = Struct("<QQQQ")
"""(create revision, mod revision, version, expiry)."""

HEADER_BYTES: Final = HEADER.size

unpack_history: Final = Struct("<QQQ").unpack_from
"""Returns (create revision, mod revision, version) of a record, for those who need no more and often."""

unpack_birth: Final = Struct("<Q8xQ").unpack_from
"""Returns (create revision, version) of a record."""

_FIELD_1: Final = b"\x0a"
"""Tag of a length-delimited field 1: `GetResult.item`, `OperationResult.get`, `BatchResponse.results`."""

_TXN_RESULTS: Final = b"\x1a"
"""Tag of `TxnResult.results`, field 3."""


def decode_record(record: bytes) -> tuple[int, int, int, bytes]:
    """Return (create revision, mod revision, version, value)."""
    create_revision, mod_revision, version, _ = HEADER.unpack_from(record)
    return create_revision, mod_revision, version, record[HEADER_BYTES:]


def mod_revision_of(record: bytes | None) -> int:
    """Return the revision of the last write; 0 for no record."""
    return 0 if record is None else int.from_bytes(record[8:16], "little")


def item_of(key: bytes, record: bytes) -> kv_pb2.KeyValue:
    """Return the key with its value and history, as users see it."""
    create_revision, mod_revision, version, _ = HEADER.unpack_from(record)
    return kv_pb2.KeyValue(
        key=key,
        value=record[HEADER_BYTES:],
        create_revision=create_revision,
        mod_revision=mod_revision,
        version=version,
    )


# A "part" is the bytes of one `results` field of a BatchResponse, tag and length included. A
# response is the parts one after the other: Protobuf joins messages by joining their bytes.


def result_part(result: kv_pb2.OperationResult) -> bytes:
    """Return the part that holds `result`."""
    return _framed(result.SerializeToString())


def error_part(error: KVError) -> bytes:
    """Return the part that holds `error` as the result of one operation."""
    return result_part(kv_pb2.OperationResult(error=to_proto(error)))


def get_part(key: bytes, record: bytes | None) -> bytes:
    """Return the result of a get. Three frames by hand around one message: a third of the time of four messages."""
    if record is None:
        return MISSING_PART
    return _framed(_framed(_framed(item_of(key, record).SerializeToString())))


def txn_part(succeeded: bool, revision: int, parts: list[bytes]) -> bytes:
    """Return the result of a transaction whose operations gave `parts`."""
    head = kv_pb2.TxnResult(succeeded=succeeded, revision=revision).SerializeToString()
    body = head + b"".join([_TXN_RESULTS + part[1:] for part in parts])
    return _framed(b"\x22" + varint(len(body)) + body)  # 0x22: OperationResult.txn, field 4


def row_by_row(results: Iterable[kv_pb2.OperationResult]) -> Iterator[kv_pb2.OperationResult]:
    """Yield the results with those of many puts one by one: outcomes are asked for by the place of a row."""
    for result in results:
        if result.HasField("put_many"):
            many = result.put_many
            for version in many.versions:
                yield kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=many.revision, version=version))
        else:
            yield result


def _framed(payload: bytes) -> bytes:
    return _FIELD_1 + varint(len(payload)) + payload


MISSING_PART: Final = result_part(kv_pb2.OperationResult(get=kv_pb2.GetResult()))
"""The result of a get that found no such key."""
