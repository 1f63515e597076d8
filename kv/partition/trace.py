"""The way of the few requests that asked to see it, step by step.

Here live the steps and who is concerned by one. Pure but for the clock that it is given. A request that asks for
no trace never comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from kv.partition.queue import Request
from kv.v1 import kv_pb2

TRACES_MAX: Final = 16
"""Requests traced at once; one more gets a trace that says so."""

TRACE_STEPS_MAX: Final = 64
"""Steps of one trace; later ones are left out."""

_READ_STEPS: Final = frozenset(("probed", "confirmed", "lease", "asked leader", "answered"))
"""Events of the Raft group that concern reads."""


@dataclass(slots=True)
class _Trace:
    component: str
    began_at: float
    writes: bool
    index: int = 0
    """Of the entry of a write; 0 before there is one."""
    steps: dict[tuple[str, str], float] = field(default_factory=dict)
    """(step, detail) and when it was first seen, in order."""

    def add(self, step: str, detail: str, now: float) -> None:
        """Take a step, if it is a new one."""
        if len(self.steps) < TRACE_STEPS_MAX:
            self.steps.setdefault((step, detail), now)


class Traces:
    """The requests that are traced. A `kv.raft.api.Tracer`."""

    def __init__(self, node: str, clock: Callable[[], float]) -> None:
        """`clock`: seconds, monotonic."""
        self._node = node
        self._clock = clock
        self._traces: dict[Request, _Trace] = {}

    def __len__(self) -> int:
        return len(self._traces)

    def begin(self, request: Request, component: str) -> None:
        """Trace a request from now on."""
        if len(self._traces) < TRACES_MAX:
            now = self._clock()
            trace = self._traces[request] = _Trace(component, now, request.batch.writes)
            trace.add("received", "", now)

    def step(self, requests: Sequence[Request], step: str, detail: str = "") -> None:
        """Note a step of these requests, those of them that are traced."""
        for request in requests:
            trace = self._traces.get(request)
            if trace is not None:
                trace.add(step, detail, self._clock())

    def appended(self, requests: Sequence[Request], index: int) -> None:
        """The requests became the entry `index`."""
        self.step(requests, "proposed", f"one command of {len(requests)} requests")
        self.step(requests, "appended", f"index {index}")
        for request in requests:
            trace = self._traces.get(request)
            if trace is not None:
                trace.index = index

    def note(self, step: str, index: int, detail: str) -> None:
        """Take an event of the Raft group; see `Tracer`."""
        now = self._clock()
        for trace in self._traces.values():
            if step in _READ_STEPS:
                if not trace.writes:
                    trace.add(step, detail or (f"index {index}" if index else ""), now)
            elif step not in ("appended", "applied") and 0 < trace.index <= index:
                trace.add(step, detail, now)  # the two are noted above, where the requests are known

    def end(self, request: Request, served: str) -> bytes:
        """Return the steps in a form that can be put behind any serialized `BatchResponse`; `served`: which state."""
        trace = self._traces.pop(request, None)
        if trace is None:
            step = kv_pb2.TraceStep(
                component="replica",
                node=self._node,
                step="not traced",
                detail=f"{TRACES_MAX} others were at the same time",
            )
            return kv_pb2.BatchResponse(trace=[step]).SerializeToString()
        trace.add("served", served, self._clock())
        steps = [
            kv_pb2.TraceStep(
                component=trace.component,
                node=self._node,
                step=step,
                at_us=max(0, round((at - trace.began_at) * 1e6)),
                detail=detail,
            )
            for (step, detail), at in trace.steps.items()
        ]
        return kv_pb2.BatchResponse(trace=steps).SerializeToString()
