"""The goals of the performance work, and what a run says of each.

Pure. A goal relates a figure of ringkv to one of a peer (or of ringkv under other circumstances) measured in the same
run. Where a figure may come from several works ("etcd's best"), the one with the best median over all rounds is taken.
The ratio is that of the medians; its spread are the ratios inside each round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from benchmarks.record import Run, Sample
from benchmarks.stats import Spread, median

RINGKV: Final = "ringkv"
ETCD: Final = "etcd"
NATS: Final = "NATS KV"
GRPCIO: Final = "grpcio.aio"
DISK: Final = "disk"


class Verdict(StrEnum):
    """How a goal fared."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one system; of several works the best counts, which is the least one if `least`."""

    system: str
    works: tuple[str, ...]
    metric: str
    least: bool = False


@dataclass(frozen=True, slots=True)
class Goal:
    """`figure` (over `base`, if there is one) is to be at least or, if `at_most`, at most `bound`."""

    id: str
    row: int
    text: str
    figure: Figure
    base: Figure | None
    bound: float
    at_most: bool = False
    unit: str = "x"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A goal and what was measured. `works` are the works that counted, of the figure and of the base."""

    goal: Goal
    verdict: Verdict
    value: Spread | None = None
    figure: float | None = None
    base: float | None = None
    works: tuple[str, ...] = ()


def per_s(system: str, *works: str) -> Figure:
    """Return the throughput of the best of `works`."""
    return Figure(system, works, "per_s")


def p50(system: str, work: str) -> Figure:
    """Return the median latency of `work`."""
    return Figure(system, (work,), "p50_ms", least=True)


PUT_128: Final = "put, batches of 128"
TXN_PY: Final = "put, Txn of 128 (grpc.aio)"
TXN_C_8: Final = "put, Txn of 128, 8 in flight (h2load)"
TXN_C_32: Final = "put, Txn of 128, 32 in flight (h2load)"
GETS_128: Final = "get, batches of 128"
RANGE_TXN_PY: Final = "get, Txn of 128 (grpc.aio)"
RANGE_TXN_C: Final = "get, Txn of 128 (h2load)"
RANGE_C: Final = "get, 1,024 in flight (h2load)"
PUT_C: Final = "put, 1,024 in flight (h2load)"
PUT_256: Final = "put, 256 tasks"
GET_256: Final = "get, 256 tasks"
PUT_512: Final = "put, 512 tasks"
PUT_1: Final = "put, 1 task"
GET_1: Final = "get, 1 task"
ECHO: Final = "empty unary call"
UNARY_GET_LEADER: Final = "unary get at the leader"
UNARY_PUT_LEADER: Final = "unary put at the leader"
UNARY_GET_OTHER: Final = "unary get at another node"
UNARY_PUT_OTHER: Final = "unary put at another node"
OUTAGE: Final = "no write after SIGKILL of the leader"
IDLE_64: Final = "idle, 64 partitions"
IDLE_256: Final = "idle, 256 partitions"
SCALE_4: Final = "put in batches, 4 partitions"
SCALE_64: Final = "put in batches, 64 partitions"
SCALE_FEW: Final = "put in batches, few keys"
SCALE_MANY: Final = "put in batches, many keys"
SOAK_FIRST: Final = "put in batches, first window"
SOAK_LAST: Final = "put in batches, last window"
SOAK_OLD: Final = "put in batches, store of the long load"
SOAK_FRESH: Final = "put in batches, fresh store beside it"
RSS_IDLE: Final = "idle, 16 partitions"
RSS_FULL: Final = "many keys, 16 partitions"
RESTART: Final = "restart after SIGKILL until it serves"
LARGE: Final = "put of 1 MiB values"
COPY: Final = "plain copy and fsync, three times"
PEAK: Final = "closed loop, at its best"
FLOOD: Final = "open loop, at twice that rate"

GOALS: Final = (
    Goal("1", 1, "put, 256 tasks, over etcd from grpc.aio", per_s(RINGKV, PUT_256), per_s(ETCD, PUT_256), 10),
    Goal(
        "2",
        2,
        "put in batches of 128, over etcd's best with Txn of 128 from any client",
        per_s(RINGKV, PUT_128),
        per_s(ETCD, TXN_PY, TXN_C_8, TXN_C_32),
        1.3,
    ),
    Goal(
        "3a", 3, "get, 256 tasks, over etcd from grpc.aio", per_s(RINGKV, GET_256), per_s(ETCD, GET_256), 10
    ),
    Goal(
        "3b",
        3,
        "get in batches of 128, over etcd's best from any client, its Txn of 128 gets included",
        per_s(RINGKV, GETS_128),
        per_s(ETCD, RANGE_C, GET_256, RANGE_TXN_PY, RANGE_TXN_C),
        4,
    ),
    Goal(
        "3c",
        3,
        "get in batches of 128, over etcd's best with single gets from any client",
        per_s(RINGKV, GETS_128),
        per_s(ETCD, RANGE_C, GET_256),
        4,
    ),
    Goal("4a", 4, "put, 1 task, p50 over etcd's", p50(RINGKV, PUT_1), p50(ETCD, PUT_1), 1, at_most=True),
    Goal("4b", 4, "get, 1 task, p50 over etcd's", p50(RINGKV, GET_1), p50(ETCD, GET_1), 1, at_most=True),
    Goal("5", 5, "put, 512 tasks, over NATS JetStream KV", per_s(RINGKV, PUT_512), per_s(NATS, PUT_512), 4),
    Goal(
        "6a",
        6,
        "unary get at the leader, over an empty grpcio.aio server",
        per_s(RINGKV, UNARY_GET_LEADER),
        per_s(GRPCIO, ECHO),
        0.6,
    ),
    Goal(
        "6b",
        6,
        "unary put at the leader, over an empty grpcio.aio server",
        per_s(RINGKV, UNARY_PUT_LEADER),
        per_s(GRPCIO, ECHO),
        0.35,
    ),
    Goal(
        "7",
        7,
        "time without a write after SIGKILL of the leader, over etcd's",
        Figure(RINGKV, (OUTAGE,), "s", least=True),
        Figure(ETCD, (OUTAGE,), "s", least=True),
        0.7,
        at_most=True,
    ),
    Goal(
        "8a",
        8,
        "CPU of the busiest node, idle, 64 partitions",
        Figure(RINGKV, (IDLE_64,), "cpu_percent", least=True),
        None,
        3,
        at_most=True,
        unit="% of a core",
    ),
    Goal(
        "8b",
        8,
        "CPU of the busiest node, idle, 256 partitions",
        Figure(RINGKV, (IDLE_256,), "cpu_percent", least=True),
        None,
        8,
        at_most=True,
        unit="% of a core",
    ),
    Goal("9a", 9, "64 partitions over 4", per_s(RINGKV, SCALE_64), per_s(RINGKV, SCALE_4), 0.9),
    Goal("9b", 9, "many keys over few", per_s(RINGKV, SCALE_MANY), per_s(RINGKV, SCALE_FEW), 0.5),
    Goal("9c", 9, "the last window over the first", per_s(RINGKV, SOAK_LAST), per_s(RINGKV, SOAK_FIRST), 0.9),
    Goal(
        "9d",
        9,
        "the store of the long load over a fresh one beside it",
        per_s(RINGKV, SOAK_OLD),
        per_s(RINGKV, SOAK_FRESH),
        0.9,
    ),
    Goal(
        "10a",
        10,
        "resident memory of the largest node, idle, 16 partitions",
        Figure(RINGKV, (RSS_IDLE,), "rss_mib", least=True),
        None,
        120,
        at_most=True,
        unit="MiB",
    ),
    Goal(
        "10b",
        10,
        "the same without data pages with many keys, over idle",
        Figure(RINGKV, (RSS_FULL,), "rss_without_data_mib", least=True),
        Figure(RINGKV, (RSS_IDLE,), "rss_without_data_mib", least=True),
        2,
        at_most=True,
    ),
    Goal(
        "11",
        11,
        "restart with many keys and a full log tail until it serves",
        Figure(RINGKV, (RESTART,), "serves_s", least=True),
        None,
        5,
        at_most=True,
        unit="s",
    ),
    Goal(
        "12",
        12,
        "1 MiB values, over a plain copy with fsync three times",
        Figure(RINGKV, (LARGE,), "mib_per_s"),
        Figure(DISK, (COPY,), "mib_per_s"),
        0.25,
    ),
    Goal("13a", 13, "goodput at twice the peak rate", per_s(RINGKV, FLOOD), per_s(RINGKV, PEAK), 0.8),
    Goal(
        "13b",
        13,
        "share of the refusals that are definite",
        Figure(RINGKV, (FLOOD,), "definite_share"),
        None,
        1,
        unit="",
    ),
)
"""In the order of issue 5's table; 13 is its paragraph on overload."""


def judge(goal: Goal, run: Run) -> Judgement:
    """Return what `run` says of `goal`."""
    ours = _best(goal.figure, run.samples)
    theirs = _best(goal.base, run.samples) if goal.base else None
    if ours is None or (goal.base is not None and theirs is None):
        return Judgement(goal, Verdict.UNKNOWN)
    value, rounds = _ratio(ours, theirs)
    met = value <= goal.bound if goal.at_most else value >= goal.bound
    return Judgement(
        goal,
        Verdict.MET if met else Verdict.MISSED,
        Spread(value, min(rounds), max(rounds), len(rounds)),
        ours.value,
        theirs.value if theirs else None,
        (ours.work, *((theirs.work,) if theirs else ())),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    work: str
    value: float
    by_round: dict[int, float]


def _best(figure: Figure, samples: Sequence[Sample]) -> _Measured | None:
    found = [measured for work in figure.works if (measured := _measured(figure, work, samples)) is not None]
    if not found:
        return None
    return (min if figure.least else max)(found, key=lambda measured: measured.value)


def _measured(figure: Figure, work: str, samples: Sequence[Sample]) -> _Measured | None:
    by_round: dict[int, list[float]] = {}
    for sample in samples:
        if sample.system == figure.system and sample.work == work and figure.metric in sample.metrics:
            by_round.setdefault(sample.round, []).append(sample.metrics[figure.metric])
    if not by_round:
        return None
    every = [value for values in by_round.values() for value in values]
    return _Measured(work, median(every), {number: median(values) for number, values in by_round.items()})


def _ratio(ours: _Measured, theirs: _Measured | None) -> tuple[float, list[float]]:
    """Return the ratio of the medians and those of the rounds that both have."""
    if theirs is None:
        return ours.value, list(ours.by_round.values())
    if theirs.value == 0:
        return float("inf"), [float("inf")]
    ratio = ours.value / theirs.value
    rounds = [
        value / theirs.by_round[number]
        for number, value in ours.by_round.items()
        if theirs.by_round.get(number)
    ]
    return ratio, rounds or [ratio]
