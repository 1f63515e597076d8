"""After each fault has ended: how long until every partition serves again?

Pure. Needs the fault periods (see `kv_jepsen.periods`). A partition is told by the evidence of its replies, or by a
function of the call where calls without a reply must count as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kv_jepsen.checkers.evidence import partition as partition_of
from kv_jepsen.checkers.finding import CheckResult, Finding, judged, quantiles_ms
from kv_jepsen.history import Call, Value
from kv_jepsen.periods import Period, calm_spells


def recovery(
    calls: Sequence[Call],
    periods: Sequence[Period],
    recovery_ms_max: float | None = None,
    partition: Callable[[Call], Value] = partition_of,
) -> CheckResult:
    """The time from the end of all faults to the first call that begins after it and succeeds, for each partition.

    Args:
        calls: of the whole history.
        periods: when there were faults.
        recovery_ms_max: longer is a finding, as is a partition that never came back within the history.
        partition: which partition a call is about; None leaves it out.
    """
    by_partition: dict[Value, list[Call]] = {}
    for call in calls:
        name = partition(call)
        if name is not None:
            by_partition.setdefault(name, []).append(call)
    waits: list[int] = []
    findings: list[Finding] = []
    unseen = 0
    heals = 0
    for heal_ns, until_ns in calm_spells(periods):
        heals += 1
        for name, part in by_partition.items():
            tried = [c for c in part if c.start_ns >= heal_ns and (until_ns is None or c.start_ns < until_ns)]
            wait = _wait(tried, heal_ns)
            if wait is not None:
                waits.append(wait)
            unseen += wait is None
            findings += _judge(name, heal_ns, tried, wait, recovery_ms_max)
    counts: dict[str, float] = {"heals": heals, "partitions": len(by_partition), "not_seen": unseen}
    counts |= {f"recovery_{name}": value for name, value in quantiles_ms(waits).items()}
    reason = "no fault ended within the history" if not heals else "no call tells its partition"
    return judged("recovery", findings, counts, "" if waits else reason)


def _wait(tried: Sequence[Call], heal_ns: int) -> int | None:
    ends = [call.end_ns for call in tried if call.ok and call.end_ns is not None]
    return min(ends) - heal_ns if ends else None


def _judge(
    name: Value, heal_ns: int, tried: Sequence[Call], wait: int | None, limit_ms: float | None
) -> Iterator[Finding]:
    if limit_ms is None:
        return
    at_s = heal_ns / 1e9
    if wait is not None and wait > limit_ms * 1e6:
        why = f"Partition {name} took {wait / 1e6:.0f} ms after the heal at {at_s:.1f} s; {limit_ms:g} ms are allowed."
        yield Finding("slow", why, (tried[0].id,))
    elif wait is None and tried:
        lasted = max(call.end_ns or call.start_ns for call in tried) - heal_ns
        if lasted > limit_ms * 1e6:
            why = f"Partition {name} served nobody after the heal at {at_s:.1f} s, for {lasted / 1e6:.0f} ms."
            yield Finding("never", why, tuple(call.id for call in tried[:10]))
