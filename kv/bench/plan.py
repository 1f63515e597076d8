"""What a run is to do: every setting, checked as a whole, and the share of it that one client process does. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from kv.bench.keys import THETA_MAX, key_bytes_min
from kv.bench.kinds import Arrivals, Distribution, Kind
from kv.client.levels import level_of, preference_of, write_level_of
from kv.client.url import check_timeout_s, parse_url
from kv.errors import InvalidArgument, Unimplemented
from kv.ids import KEY_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX

CONCURRENCY_MAX: Final = 65_536
"""Tasks of a closed loop, in all processes."""

CONNECTIONS_MAX: Final = 64
"""Clients in each process."""

PROCESSES_MAX: Final = 64

RATE_PER_S_MAX: Final = 1_000_000.0
"""Operations a second of an open loop; far above what processes of Python send."""

OUTSTANDING_MAX: Final = 65_536
"""The most that `--outstanding-max` takes, in all processes."""

KEYS_MAX: Final = 1_000_000_000

SCAN_LENGTH_MAX: Final = 100_000
"""Keys of one scan."""

BATCH_OPS_MAX: Final = 10_000
"""Operations of one batch."""

BATCH_BYTES_MAX: Final = 16 * REQUEST_BYTES_MAX
"""Keys and values of one batch; the client splits it into requests."""

DURATION_S_MAX: Final = 86_400.0
COUNT_MAX: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Raises `InvalidArgument` that names the setting at fault, `Unimplemented` for watches."""

    kind: Kind
    url: str
    """Any nodes, with the client's own options."""
    level: str | None = None
    """Of reads; None: that of the URL. So are the next three."""
    prefer: str | None = None
    write_level: str | None = None
    timeout_s: float | None = None
    """Of each operation, all its attempts together."""
    concurrency: int = 64
    """Closed loop: tasks in all processes, each of which awaits its own operation before the next."""
    rate_per_s: float | None = None
    """Open loop: operations that are due each second, in all processes. None: a closed loop."""
    arrivals: Arrivals = Arrivals.POISSON
    outstanding_max: int = 10_000
    """Open loop: while so many operations of all processes have no answer, one that is due is dropped, and counted."""
    connections: int = 1
    """Clients in each process, each with streams and sessions of its own."""
    processes: int = 1
    value_bytes: int = 100
    keys: int = 10_000
    key_bytes: int = 16
    distribution: Distribution = Distribution.UNIFORM
    theta: float = 0.99
    """Of a zipfian distribution; 0.99 is that of YCSB (Cooper et al., SoCC 2010)."""
    read_ratio: float = 0.5
    """Of a mixed load: the share of gets."""
    scan_length: int = 100
    batch_ops: int = 100
    duration_s: float = 10.0
    """Of the measured part."""
    count: int | None = None
    """So many operations instead of the duration."""
    warmup_s: float = 1.0
    """The same load for so long before, not measured."""
    prefill: bool = False
    """Write every key once before."""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.kind is Kind.WATCH:
            raise Unimplemented("the store has no watches, so there is nothing to measure")
        self._check_counts()
        self._check_times()
        self._check_sizes()
        self._check_client()

    def _check_counts(self) -> None:
        for name, value, most in (
            ("concurrency", self.concurrency, CONCURRENCY_MAX),
            ("connections", self.connections, CONNECTIONS_MAX),
            ("processes", self.processes, PROCESSES_MAX),
            ("outstanding-max", self.outstanding_max, OUTSTANDING_MAX),
            ("keys", self.keys, KEYS_MAX),
            ("scan-length", self.scan_length, SCAN_LENGTH_MAX),
            ("batch-size", self.batch_ops, BATCH_OPS_MAX),
            ("count", 1 if self.count is None else self.count, COUNT_MAX),
        ):
            if not 1 <= value <= most:
                raise InvalidArgument(f"--{name} {value} is not 1 to {most}")
        for name, least in (("concurrency", self.concurrency), ("outstanding-max", self.outstanding_max)):
            if least < self.processes:
                raise InvalidArgument(
                    f"--{name} {least} is below --processes {self.processes}: each needs one"
                )
        if self.kind is Kind.SCAN and self.scan_length > self.keys:
            raise InvalidArgument(f"--scan-length {self.scan_length} is above --keys {self.keys}")

    def _check_times(self) -> None:
        if self.rate_per_s is not None and not 0.0 < self.rate_per_s <= RATE_PER_S_MAX:
            raise InvalidArgument(f"--rate {self.rate_per_s:g} is not above 0 and at most {RATE_PER_S_MAX:g}")
        if not 0.0 < self.duration_s <= DURATION_S_MAX:
            raise InvalidArgument(
                f"--duration {self.duration_s:g} s is not above 0 and at most {DURATION_S_MAX:g} s"
            )
        if not 0.0 <= self.warmup_s <= DURATION_S_MAX:
            raise InvalidArgument(f"--warmup {self.warmup_s:g} s is not 0 to {DURATION_S_MAX:g} s")
        if not 0.0 <= self.read_ratio <= 1.0:
            raise InvalidArgument(f"--read-ratio {self.read_ratio:g} is not 0 to 1")
        if not 0.0 < self.theta <= THETA_MAX:
            raise InvalidArgument(f"the theta {self.theta:g} is not above 0 and at most {THETA_MAX:g}")
        if self.seed < 0:
            raise InvalidArgument(f"--seed {self.seed} is negative")

    def _check_sizes(self) -> None:
        if not 0 <= self.value_bytes <= VALUE_BYTES_MAX:
            raise InvalidArgument(f"--value-size {self.value_bytes} is not 0 to {VALUE_BYTES_MAX}")
        least = key_bytes_min(self.keys)
        if not least <= self.key_bytes <= KEY_BYTES_MAX:
            raise InvalidArgument(
                f"--key-size {self.key_bytes} is not {least} (what {self.keys} keys need) to {KEY_BYTES_MAX}"
            )
        size = self.batch_ops * (self.key_bytes + self.value_bytes)
        if self.kind is Kind.BATCH and size > BATCH_BYTES_MAX:
            raise InvalidArgument(f"a batch of {size} bytes is above {BATCH_BYTES_MAX}: lower --batch-size")

    def _check_client(self) -> None:
        parse_url(self.url)
        if self.level is not None:
            level_of(self.level)
        if self.prefer is not None:
            preference_of(self.prefer)
        if self.write_level is not None:
            write_level_of(self.write_level)
        if self.timeout_s is not None:
            check_timeout_s(self.timeout_s)

    @property
    def open_loop(self) -> bool:
        """Whether operations are due by the clock."""
        return self.rate_per_s is not None

    def fields(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return asdict(self)

    @staticmethod
    def parse(fields: Mapping[str, Any]) -> Plan:
        """Return the plan of `fields`; raises `InvalidArgument` as the class does."""
        names = {
            "kind": Kind(fields["kind"]),
            "arrivals": Arrivals(fields["arrivals"]),
            "distribution": Distribution(fields["distribution"]),
        }
        return Plan(**{**fields, **names})


@dataclass(frozen=True, slots=True)
class Share:
    """What the process number `index` of a plan does; the shares of all processes are the plan, no more and no less."""

    plan: Plan
    index: int

    def __post_init__(self) -> None:
        assert 0 <= self.index < self.plan.processes, (
            f"there is no process {self.index} of {self.plan.processes}"
        )

    @property
    def tasks(self) -> int:
        """Tasks of a closed loop."""
        return self._of(self.plan.concurrency)

    @property
    def outstanding_max(self) -> int:
        """Operations without an answer above which one that is due is dropped."""
        return self._of(self.plan.outstanding_max)

    @property
    def count(self) -> int | None:
        """Operations; None: as many as there are in the duration."""
        return None if self.plan.count is None else self._of(self.plan.count)

    @property
    def rate_per_s(self) -> float:
        """Operations that are due each second."""
        assert self.plan.rate_per_s is not None, "asked for an open loop only"
        return self.plan.rate_per_s / self.plan.processes

    @property
    def phase(self) -> float:
        """Where in the distance of two constant arrivals this process begins, so that all together are even."""
        return self.index / self.plan.processes

    @property
    def prefill(self) -> range:
        """The numbers of the keys that this process writes before."""
        if not self.plan.prefill:
            return range(0)
        first, last = (
            self.plan.keys * place // self.plan.processes for place in (self.index, self.index + 1)
        )
        return range(first, last)

    @property
    def seed(self) -> str:
        """The seed of this process's random numbers."""
        return f"{self.plan.seed}/{self.index}"

    def _of(self, whole: int) -> int:
        each, more = divmod(whole, self.plan.processes)
        return each + (self.index < more)

    def fields(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return {"plan": self.plan.fields(), "index": self.index}

    @staticmethod
    def parse(fields: Mapping[str, Any]) -> Share:
        """Return the share of `fields`."""
        return Share(Plan.parse(fields["plan"]), int(fields["index"]))


WINDOWS_WANTED: Final = 64
"""Into at most so many windows the measured time is divided: a power of two, so that windows that are joined two by two
still end with it."""

WINDOW_NS_MIN: Final = 100_000_000


def window_ns(plan: Plan) -> int:
    """Return how wide a window of time is in ns: the duration divided by a power of two.

    A run of a number of operations begins with the narrowest; its tally widens them as they become too many.
    """
    if plan.count is not None:
        return WINDOW_NS_MIN
    duration_ns, parts = plan.duration_s * 1e9, WINDOWS_WANTED
    while parts > 1 and duration_ns / parts < WINDOW_NS_MIN:
        parts //= 2
    return math.ceil(duration_ns / parts)
