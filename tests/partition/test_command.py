"""Commands: the bytes that Protobuf would write, and batches read as the leader reads them."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from kv.internal.v1 import log_pb2
from kv.partition.batch import decode_batch
from kv.partition.command import decode_command, encode_command
from kv.raft.api import ENTRY_PREFIX
from tests.partition.tools import append, batch, delete, get, increment, put, txn

BATCHES = [
    batch(put(b"key", b"value")),
    batch(
        put(b"key", b"v" * 20_000),
        get(b"key"),
        request=(7, 3, 1),
    ),
    batch(delete(b"key"), increment(b"count", 5), append(b"list", b"x")),
    batch(txn(then=[put(b"a", b"b")])),
    batch(put(b"", b"a key that is refused")),
]


@given(time_ms=st.integers(0, 2**64 - 1), raws=st.lists(st.binary(max_size=300), max_size=5))
@example(time_ms=0, raws=[])
@example(time_ms=1, raws=[b"", bytes(127), bytes(128), bytes(16_384), bytes(2_097_152)])
def test_an_entry_is_what_protobuf_would_write(time_ms: int, raws: list[bytes]) -> None:
    """Byte for byte, at each number of bytes that a length takes: it is a disk format."""
    command = log_pb2.Command(time_ms=time_ms, batches=raws)
    assert encode_command(time_ms, raws) == ENTRY_PREFIX + command.SerializeToString()


@given(time_ms=st.integers(0, 2**64 - 1), raws=st.lists(st.sampled_from(BATCHES), max_size=6))
def test_a_follower_reads_what_the_leader_wrote(time_ms: int, raws: list[bytes]) -> None:
    """Batches that stand in a command are decoded as those that came alone."""
    assert decode_command(encode_command(time_ms, raws)) == (time_ms, [decode_batch(raw) for raw in raws])


def test_the_no_op_has_no_batches() -> None:
    """A term begins with an entry that is the prefix alone."""
    assert decode_command(ENTRY_PREFIX) == (0, [])
