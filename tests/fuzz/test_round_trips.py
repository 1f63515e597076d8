"""Round trips of the codecs: what was encoded comes back, for any value.

What the tests of a codec's own file hold already is not repeated here (frames in test_wal_format, errors in
test_errors, the cluster map in test_map).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv.client.types import ReadLevel
from kv.client.url import ENDPOINTS_MAX, parse_url
from kv.config import load_config
from kv.gateway import codec, replies
from kv.ids import KEY_BYTES_MAX
from kv.internal.v1 import log_pb2, raft_pb2
from kv.partition.batch import decode_batch
from kv.partition.checkpoint import Checkpoint
from kv.partition.session import Session
from kv.raft.wal_format import SegmentHeader, decode_segment_header, encode_segment_header
from kv.router.routing import with_request_id
from kv.v1 import kv_pb2
from tests.fuzz.raft_targets import PEERS, Subject
from tests.partition.tools import batch, put
from tests.raft.harness import EPOCH, GROUP

U64 = st.integers(0, (1 << 64) - 1)
KEYS = st.binary(min_size=1, max_size=KEY_BYTES_MAX)


@given(st.tuples(U64, U64, U64, U64, U64))
def test_segment_header(fields: tuple[int, int, int, int, int]) -> None:
    """A segment's header reads back."""
    header = SegmentHeader(*fields)
    assert decode_segment_header(encode_segment_header(header)) == header


@given(st.tuples(st.integers(0, (1 << 32) - 1), U64, U64, U64, U64, U64))
def test_store_mark(fields: tuple[int, int, int, int, int, int]) -> None:
    """The mark of a store reads back."""
    mark = Checkpoint(*fields)
    assert Checkpoint.decode(mark.encode()) == mark


@given(
    st.tuples(U64, U64, U64, U64), st.dictionaries(U64, st.binary(max_size=40)), st.lists(U64, unique=True)
)
def test_session(head: tuple[int, int, int, int], results: dict[int, bytes], tombstones: list[int]) -> None:
    """A session reads back with its results and tombstones in their order."""
    session = Session(*head)
    for sequence, result in results.items():
        session.keep(sequence, result)
    session.tombstones = dict.fromkeys(tombstones)
    again = Session.decode(session.encode())
    assert again == session
    assert list(again.results) == list(results)
    assert list(again.tombstones) == tombstones


@given(U64, st.lists(st.tuples(KEYS, st.binary(max_size=50), U64, U64), max_size=5))
def test_command(time_ms: int, writes: list[tuple[bytes, bytes, int, int]]) -> None:
    """A command carries its batches byte by byte, those with a router's request id appended too."""
    raws = [with_request_id(batch(put(key, value)), 7, high, low) for key, value, high, low in writes]
    command = log_pb2.Command(time_ms=time_ms, batches=raws)
    again = log_pb2.Command.FromString(command.SerializeToString())
    assert (again.time_ms, list(again.batches)) == (time_ms, raws)
    for raw, (key, value, sequence, acknowledged) in zip(again.batches, writes, strict=True):
        if sequence > acknowledged:
            decoded = decode_batch(raw)
            assert decoded.operations[0][1:3] == (key, value)
            assert (decoded.session, decoded.sequence, decoded.acknowledged) == (7, sequence, acknowledged)


@settings(max_examples=30)
@given(
    st.sampled_from([GROUP, GROUP + 1]),
    st.sampled_from([EPOCH, EPOCH + 1]),
    st.sampled_from([*PEERS, "n1", "stranger", ""]),
    st.sampled_from(PEERS),
)
def test_envelope(group: int, epoch: int, sender: str, connection: str) -> None:
    """A message is let in exactly if it is of this group and epoch, and its sender is who the connection is."""
    message = raft_pb2.RaftMessage(
        group=group, epoch=epoch, sender=sender, term=9, stale_term=raft_pb2.StaleTerm()
    )
    subject = Subject()
    subject.deliver(raft_pb2.RaftMessage.FromString(message.SerializeToString()), connection)
    assert (subject.group.term == 9) is ((group, epoch, sender) == (GROUP, EPOCH, connection))


@given(KEYS, st.binary(max_size=100), st.none() | U64)
def test_json(key: bytes, value: bytes, revision: int | None) -> None:
    """Any bytes go through JSON: as base64 always, as text if they are text; and replies name them likewise."""
    fields = {"key_base64": base64.b64encode(key).decode(), "value_base64": base64.b64encode(value).decode()}
    if revision is not None:
        fields = {**fields, "if_revision": revision}  # type: ignore[dict-item]
    made = codec.put_request(codec.read_json(json.dumps(fields).encode()))
    assert (made.operations[0].put.key, made.operations[0].put.value) == (key, value)
    assert made.operations[0].put.HasField("condition") is (revision is not None)
    reply = replies.put_reply(made, kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=1, version=1)))
    again = {name: reply[name] for name in reply if name not in ("revision", "version")}
    assert codec.put_request(codec.read_json(json.dumps(again).encode())).operations[0].put.key == key


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z0-9.-]{0,20}|\[[0-9a-f:]{2,20}\]", fullmatch=True), st.integers(1, 65535)
        ),
        min_size=1,
        max_size=ENDPOINTS_MAX,
        unique=True,
    ),
    st.none() | st.integers(1, 3_600_000),
    st.none() | st.sampled_from([level for level in ReadLevel if level is not ReadLevel.BOUNDED]),
)
def test_url(hosts: list[tuple[str, int]], timeout_ms: int | None, level: ReadLevel | None) -> None:
    """Addresses, timeout and level of a URL are those that it was made of."""
    endpoints = tuple(f"{host}:{port}" for host, port in hosts)
    timeout = [] if timeout_ms is None else [f"timeout={timeout_ms}ms"]
    query = timeout + ([] if level is None else [f"level={level.name.lower()}"])
    options = parse_url(f"kv://{','.join(endpoints)}" + (f"/?{'&'.join(query)}" if query else ""))
    assert options.endpoints == endpoints
    assert timeout_ms is None or options.timeout_s == pytest.approx(timeout_ms / 1000)
    assert options.level.kind is (level or ReadLevel.LINEARIZABLE)


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 64), st.floats(1.0, 10.0), st.sampled_from(["debug", "info"]))
def test_toml(
    tmp_path_factory: pytest.TempPathFactory, nodes: int, partitions: int, load_factor: float, level: str
) -> None:
    """A configuration file gives the configuration that the same settings give as flags."""
    peers = ",".join(f"n{i}=host{i}:7000" for i in range(1, nodes + 1))
    flags: dict[str, Any] = {
        "peers": peers,
        "partitions": partitions,
        "load_factor": load_factor,
        "log_level": level,
    }
    file: Path = tmp_path_factory.mktemp("config") / "kv.toml"
    # A JSON string or number is one in TOML too.
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in flags.items()))
    assert load_config(file, node_id="n1") == load_config(node_id="n1", **flags)
