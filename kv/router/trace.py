"""The router's part of a request's trace.

Pure: `Trail` keeps the steps of one request that asked for them, with times that the caller passes, and gives
them as bytes to be put behind the response (protobuf joins messages by joining their bytes).
"""

from __future__ import annotations

from typing import Final

from kv.ids import NodeId
from kv.v1 import kv_pb2

COMPONENT: Final = "router"

TRAIL_STEPS_MAX: Final = 64
"""A request that is tried for long has more: those are left out, but the last one is kept."""


class Trail:
    """The steps of one request in this router."""

    __slots__ = ("_began", "_node", "_steps")

    def __init__(self, node: NodeId, now: float) -> None:
        """Begin with the step "received" at `now`, in seconds of the clock by which all steps are noted."""
        self._node = node
        self._began = now
        self._steps: list[kv_pb2.TraceStep] = []
        self.note("received", now)

    def note(self, step: str, now: float, detail: str = "") -> None:
        """Add a step."""
        if len(self._steps) >= TRAIL_STEPS_MAX:
            self._steps.pop()
        at_us = max(0, round((now - self._began) * 1_000_000))
        self._steps.append(
            kv_pb2.TraceStep(component=COMPONENT, node=self._node, step=step, at_us=at_us, detail=detail)
        )

    def encoded(self) -> bytes:
        """Return the steps as a serialized `kv.v1.BatchResponse` that has nothing else."""
        return kv_pb2.BatchResponse(trace=self._steps).SerializeToString()
