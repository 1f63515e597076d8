"""The way of a request that asked to see it."""

from __future__ import annotations

import pytest

from kv.errors import KVError, NotLeader
from kv.partition.batch import decode_batch
from kv.partition.queue import Request
from kv.partition.trace import TRACE_STEPS_MAX, TRACES_MAX, Traces
from kv.raft.api import ReadProof, Tracer
from kv.v1 import kv_pb2
from tests.partition.tools import Bench, batch, evidence, get, put, results


def steps_of(outcome: bytes | KVError) -> list[tuple[str, int, str]]:
    """Return (step, microseconds, detail) of a response's trace, all of one component."""
    assert isinstance(outcome, bytes), outcome
    return [(one.step, one.at_us, one.detail) for one in kv_pb2.BatchResponse.FromString(outcome).trace]


def tracer_of(bench: Bench) -> Tracer:
    """Return whom the group tells."""
    assert bench.group.tracer is not None
    return bench.group.tracer


def test_way_of_a_write(bench: Bench) -> None:
    """A traced write shows each step with its time and who acknowledged, besides its results and evidence."""
    bench.group.now = 5.0
    traced = bench.submit(batch(put(b"k", b"v"), trace=True))
    plain = bench.submit(batch(put(b"j", b"v")))
    bench.group.now = 5.001
    bench.replica.pump()
    for after_s, step, index, peer in (
        (0.002, "acknowledged", 2, "n9"),
        (0.003, "synced", 3, ""),
        (0.004, "acknowledged", 3, "n2"),
        (0.004, "acknowledged", 4, "n2"),
        (0.005, "committed", 3, ""),
        (0.005, "confirmed", 3, "n2"),
    ):
        bench.group.now = 5.0 + after_s
        tracer_of(bench).note(step, index, peer)
    bench.group.now = 5.006
    bench.group.commit()
    assert steps_of(traced[0]) == [
        ("received", 0, ""),
        ("proposed", 1000, "one command of 2 requests"),
        ("appended", 1000, "index 3"),
        ("synced", 3000, ""),
        ("acknowledged", 4000, "n2"),
        ("committed", 5000, ""),
        ("applied", 6000, "index 3"),
        ("served", 6000, "index 3"),
    ]
    assert (results(traced[0])[0].put.revision, evidence(traced[0]).index) == (3, 3)
    assert steps_of(plain[0]) == []
    assert bench.group.tracer is None, "nobody is told any more"
    first = kv_pb2.BatchResponse.FromString(traced[0]).trace[0]  # type: ignore[arg-type]
    assert (first.component, first.node) == ("leader", "n1")


def test_way_of_a_read(bench: Bench) -> None:
    """A traced read shows the round that confirmed the leader."""
    answers = bench.submit(batch(get(b"k"), trace=True))
    bench.replica.pump()
    for step, detail in (("probed", "n2"), ("confirmed", "n2"), ("acknowledged", "n3")):
        tracer_of(bench).note(step, 0, detail)
    bench.group.confirm_reads()
    assert [(step, detail) for step, _, detail in steps_of(answers[0])] == [
        ("received", ""),
        ("probed", "n2"),
        ("confirmed", "n2"),
        ("served", "index 2"),
    ]


def test_stale_read_at_a_follower(bench: Bench) -> None:
    """A read that is served at once is traced too, as a replica's."""
    bench.group.depose()
    (answer,) = bench.submit(batch(get(b"k"), stale=True, trace=True))
    assert [step for step, _, _ in steps_of(answer)] == ["received", "served"]
    assert isinstance(answer, bytes)
    assert kv_pb2.BatchResponse.FromString(answer).trace[0].component == "replica"
    assert bench.group.tracer is None


@pytest.mark.parametrize(
    ("level", "options"),
    [
        (kv_pb2.READ_LEVEL_STALE, None),
        (kv_pb2.READ_LEVEL_QUORUM, None),
        (kv_pb2.READ_LEVEL_ALL, None),
        (kv_pb2.READ_LEVEL_BOUNDED, kv_pb2.ReadOptions(max_age_ms=50)),
        (kv_pb2.READ_LEVEL_SESSION, kv_pb2.ReadOptions(after=[kv_pb2.PartitionIndex(partition=7, index=2)])),
    ],
)
def test_read_that_is_served_at_once(bench: Bench, level: int, options: kv_pb2.ReadOptions | None) -> None:
    """A read for which nothing had to be proved tells of which index it is, and how old that may be."""
    bench.ask(batch(put(b"k", b"v")))
    bench.group.depose()
    bench.group.now, bench.group.proof = 5.02, ReadProof(3, 5.0, leased=False)
    (answer,) = bench.submit(batch(get(b"k"), level=level, read=options, trace=True))
    assert steps_of(answer) == [("received", 0, ""), ("served", 0, "index 3, age 20 ms")]


def test_traced_request_that_fails(bench: Bench) -> None:
    """A traced request that ends in an error leaves nothing behind."""
    answers = bench.submit(batch(put(b"k", b"v"), trace=True))
    bench.group.depose()
    assert isinstance(answers[0], NotLeader)
    assert bench.group.tracer is None


def test_traces_max(bench: Bench) -> None:
    """Above the limit a request is served all the same, and its trace says that it was not traced."""
    answers = [bench.submit(batch(put(b"k%d" % n, b"v"), trace=True)) for n in range(TRACES_MAX + 1)]
    bench.group.turn()
    assert [steps_of(answer)[0][0] for (answer,) in answers] == ["received"] * TRACES_MAX + ["not traced"]


def test_steps_max() -> None:
    """A trace is bounded, whatever the group tells; a step that is told again counts once."""
    traces = Traces("n1", lambda: 0.0)
    raw = batch(get(b"k"), trace=True)
    request = Request(raw, decode_batch(raw), lambda _: None)
    traces.begin(request, "leader")
    for _ in range(2):
        for n in range(TRACE_STEPS_MAX + 5):
            traces.note("confirmed", 0, f"n{n}")
    steps = steps_of(traces.end(request, "index 2"))
    assert len(steps) == TRACE_STEPS_MAX
    assert len(traces) == 0
