"""What a run and its client processes say to each other: one JSON object a line, over the pipes of standard input and output.

    run to process     the share, then {"start_ns": ...}; the end of the pipe means: stop
    process to run     {"prefilled": n} ..., {"ready": true}, {"progress": ...} ..., {"result": ...}
                       or {"error": ...} instead of any of them

Pure. Times are of the machine's monotonic clock, which all of them read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from kv.errors import KVError, from_proto, to_proto
from kv.v1 import kv_pb2

LINE_BYTES_MAX: Final = 64 << 20
"""A result: windows times endings times buckets, a few MiB at most."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a process is."""

    ok: int
    """Operations that ended well in the measured time, so far."""
    failed: int
    dropped: int
    outstanding: int
    """Open loop: operations that wait for their answers."""

    def __add__(self, other: Progress) -> Progress:
        return Progress(
            self.ok + other.ok,
            self.failed + other.failed,
            self.dropped + other.dropped,
            self.outstanding + other.outstanding,
        )

    def fields(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return asdict(self)


NOTHING: Final = Progress(0, 0, 0, 0)


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Return the message of a line. Raises `ValueError` for what is none."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"a message is an object, not {type(message).__name__}")
    return message


def error_fields(error: KVError) -> dict[str, Any]:
    """Return an error as values of JSON."""
    return {"error": to_proto(error).SerializeToString().hex()}


def parse_error(text: str) -> KVError:
    """Return the error of `error_fields`."""
    return from_proto(kv_pb2.Error.FromString(bytes.fromhex(text)))
