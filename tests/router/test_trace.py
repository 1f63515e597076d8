"""The router's steps in a trace."""

from __future__ import annotations

from kv.router.trace import TRAIL_STEPS_MAX, Trail
from kv.v1 import kv_pb2


def test_steps_are_timed_from_the_arrival() -> None:
    """Each step says how long after "received" it was, in microseconds of this node's clock."""
    trail = Trail("n1", 100.0)
    trail.note("sent", 100.00125, "n2")
    steps = kv_pb2.BatchResponse.FromString(trail.encoded()).trace
    assert [(s.component, s.node, s.step, s.at_us, s.detail) for s in steps] == [
        ("router", "n1", "received", 0, ""),
        ("router", "n1", "sent", 1250, "n2"),
    ]


def test_it_joins_what_a_replica_said() -> None:
    """Behind a response that has a trace the steps follow, and nothing of the response changes."""
    served = kv_pb2.BatchResponse(
        evidence=[kv_pb2.Evidence(node="n2")], trace=[kv_pb2.TraceStep(component="leader", step="served")]
    )
    joined = kv_pb2.BatchResponse.FromString(served.SerializeToString() + Trail("n1", 0.0).encoded())
    assert [step.component for step in joined.trace] == ["leader", "router"]
    assert [proof.node for proof in joined.evidence] == ["n2"]


def test_a_trail_is_bounded_and_keeps_its_end() -> None:
    """Beyond TRAIL_STEPS_MAX the last step is the newest, and the first ones stay."""
    trail = Trail("n1", 0.0)
    for number in range(3 * TRAIL_STEPS_MAX):
        trail.note("sent", float(number), str(number))
    steps = kv_pb2.BatchResponse.FromString(trail.encoded()).trace
    assert len(steps) == TRAIL_STEPS_MAX
    assert (steps[0].step, steps[-1].detail) == ("received", str(3 * TRAIL_STEPS_MAX - 1))
