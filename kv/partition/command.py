"""A command of the log: how the leader writes it, and how each replica reads it back. Pure.

An entry is the prefix byte and a serialized `kv.internal.v1.Command`. Both ways spare copies of what may be a value of
1 MiB: the leader joins the batches' bytes as they came, and a follower has Protobuf read the batches where they stand
instead of taking each out first. On the wire a field of bytes and a nested message are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kv.internal.v1 import log_pb2
from kv.partition.batch import Batch, batch_of
from kv.raft.api import ENTRY_PREFIX
from kv.wire import tag_of, varint

_TIME_MS: Final = bytes((log_pb2.Command.TIME_MS_FIELD_NUMBER << 3,))
_BATCHES: Final = tag_of(log_pb2.Command.BATCHES_FIELD_NUMBER)
_PREFIX_BYTES: Final = len(ENTRY_PREFIX)


def encode_command(time_ms: int, batches: Iterable[bytes]) -> bytes:
    """Return the entry of a command: the bytes that Protobuf would write."""
    parts = [ENTRY_PREFIX, _TIME_MS, varint(time_ms)] if time_ms else [ENTRY_PREFIX]
    for raw in batches:
        parts += (_BATCHES, varint(len(raw)), raw)
    return b"".join(parts)


def decode_command(data: bytes) -> tuple[int, list[Batch]]:
    """Return the time and the batches of an entry; the prefix alone is the no-op with which a term begins.

    Raises `DecodeError`, or what `batch_of` raises: neither is ever in a log, since a leader takes in nothing that it has
    not decoded.
    """
    if len(data) == _PREFIX_BYTES:
        return 0, []
    command = log_pb2.ReadCommand.FromString(data[_PREFIX_BYTES:])
    return command.time_ms, [batch_of(message) for message in command.batches]
