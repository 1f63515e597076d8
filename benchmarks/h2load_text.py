"""What h2load prints, read.

Pure. How it is run is in `h2load`. h2load sees HTTP only: a refused gRPC call has status 200 as well, so who measures
asks the store itself whether the writes were done (`systems`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UNITS_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_REQUESTS: Final = re.compile(
    r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
)
_RATE: Final = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")
_DATA: Final = re.compile(r"\((\d+)\) data")
_LATENCY: Final = re.compile(r"time for request:\s+([\d.]+)(us|ms|s)\s+([\d.]+)(us|ms|s)\s+([\d.]+)(us|ms|s)")


@dataclass(frozen=True, slots=True)
class H2Load:
    """One h2load's figures; `mean_ms` and `max_ms` are latencies of requests."""

    per_s: float
    succeeded: int
    failed: int
    mean_ms: float
    max_ms: float
    data_bytes: int
    """Of all replies, those of the warm-up included."""


def read_h2load(text: str) -> H2Load:
    """Return the figures in what h2load printed. Raises `ValueError` with the text if they are not there."""
    rate, requests, latency = _RATE.search(text), _REQUESTS.search(text), _LATENCY.search(text)
    data = _DATA.search(text)
    if rate is None or requests is None or latency is None or data is None:
        raise ValueError(f"h2load printed no result:\n{text[-2000:]}")
    _, _, succeeded, failed, errored, timeout = map(int, requests.groups())
    return H2Load(
        per_s=float(rate[1]),
        succeeded=succeeded,
        failed=failed + errored + timeout,
        mean_ms=float(latency[5]) * _UNITS_MS[latency[6]],
        max_ms=float(latency[3]) * _UNITS_MS[latency[4]],
        data_bytes=int(data[1]),
    )


def together(parts: list[H2Load]) -> H2Load:
    """Return the figures of several that ran at the same time. Raises `ValueError` without any."""
    if not parts:
        raise ValueError("no h2load ran")
    succeeded = sum(part.succeeded for part in parts)
    weighted = sum(part.mean_ms * part.succeeded for part in parts)
    return H2Load(
        per_s=sum(part.per_s for part in parts),
        succeeded=succeeded,
        failed=sum(part.failed for part in parts),
        mean_ms=weighted / succeeded if succeeded else 0.0,
        max_ms=max(part.max_ms for part in parts),
        data_bytes=sum(part.data_bytes for part in parts),
    )
