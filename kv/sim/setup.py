"""What a seed stands for: size of the cluster, limits, network, faults, workload. Pure.

Here lives the drawing of a run's circumstances. Limits are small, so that all that happens at a limit
(compaction, snapshots, checkpoints, segment rotation, full windows, session eviction) happens often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from kv.sim.schedule import MIXES, SOBER_DRIFT_MAX, SOBER_RATES, WILD_RATES
from kv.sim.workload import Pace

DURATION_S: Final = 60.0
"""Simulated seconds of one seed at scale 1."""
CLIENTS: Final = 4
HEARTBEAT_MS: Final = 100
ELECTION_MIN_MS: Final = 600
ELECTION_MAX_MS: Final = 1200
LEASE_MS: Final = 380
"""Allowed by `SOBER_DRIFT_MAX`: 380 * 1.2 is below 600 * 0.8."""
KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Setup:
    """The circumstances of a run."""

    nodes: int = 3
    scale: int = 4
    """Heartbeats, election timeouts, pauses of clients and faults last so many times production's defaults,
    while disk and network keep their speed: less happens that is only waiting."""
    partitions: int = 4
    lossy: bool = False
    """Raft messages travel as datagrams: lost, doubled, reordered."""
    mixes: tuple[str, ...] = MIXES
    sober_clocks: bool = False
    """Clocks keep to the assumption of leases, and clients read by them."""
    duration_s: float = 4 * DURATION_S
    clients: int = CLIENTS
    pace: Pace = field(default_factory=Pace)
    window_bytes: int = 8 * KIB
    """Of entries sent and not proved, for each follower; also the size of one append message."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Settings of `NodeConfig` that are not drawn from the seed."""

    @property
    def rates(self) -> tuple[float, ...]:
        """At which clocks may run while a fault has them."""
        return SOBER_RATES if self.sober_clocks else WILD_RATES

    @property
    def timers(self) -> Mapping[str, float]:
        """The settings of `NodeConfig` that follow from the scale and the clocks."""
        lease = {"lease_ms": LEASE_MS * self.scale, "clock_drift_max": SOBER_DRIFT_MAX}
        return {
            **(lease if self.sober_clocks else {"lease_ms": 0}),
            "heartbeat_ms": HEARTBEAT_MS * self.scale,
            "election_min_ms": ELECTION_MIN_MS * self.scale,
            "election_max_ms": ELECTION_MAX_MS * self.scale,
            "leader_fallback_ms": ELECTION_MIN_MS * self.scale,
        }

    def but(self, **changes: Any) -> Setup:  # noqa: ANN401 - the names are those of the fields
        """The same with some changes; None changes nothing."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


def setup_of(seed: int) -> Setup:
    """The circumstances that a seed stands for when nothing else is asked for."""
    return draw_setup(Random(f"setup {seed}"))


def draw_setup(rng: Random) -> Setup:
    """Draw the circumstances of a seed."""
    mixes: Sequence[str] = MIXES
    if rng.random() < 0.5:
        mixes = sorted(rng.sample(MIXES, rng.randint(1, len(MIXES))))
    scale = rng.choice((1, 4, 4, 4))
    return Setup(
        scale=scale,
        duration_s=DURATION_S * scale,
        nodes=rng.choice((3, 3, 3, 3, 3, 3, 5, 5, 1, 2)),
        lossy=rng.random() < 0.4,
        mixes=tuple(mixes),
        sober_clocks=rng.random() < 0.5,
        pace=Pace(think_mean_s=rng.choice((0.2, 0.5, 0.5, 1.0)) * scale, tasks=rng.choice((1, 2, 2))),
        window_bytes=rng.choice((2, 8, 64, 1024)) * KIB,
    )


def draw_limits(rng: Random, *, lossy: bool) -> Mapping[str, int]:
    """Draw the settings of `NodeConfig` that differ from production's; the same for every node.

    Where messages overtake each other a snapshot has one chunk in flight: a chunk out of turn waits
    for a repetition, which TCP never causes.
    """
    return {
        "map_bytes_initial": rng.choice((256 * KIB, 16 * KIB * KIB)),
        "segment_bytes": rng.choice((16, 64, 256)) * KIB,
        "log_cache_bytes_max": rng.choice((2, 16, 256)) * KIB,
        "log_retain_entries": rng.choice((5, 30, 200)),
        "log_retain_bytes": rng.choice((8, 64, 1024)) * KIB,
        "snapshot_chunk_bytes": rng.choice((1, 8, 64)) * KIB,
        "snapshot_window": 1 if lossy else rng.choice((1, 2, 4)),
        "checkpoint_ops_max": rng.choice((10, 60, 1000)),
        "checkpoint_bytes_max": rng.choice((16, 256)) * KIB,
        "checkpoint_interval_ms": rng.choice((1000, 5000)),
        "command_bytes_max": rng.choice((1, 8, 1024)) * KIB,
        "commands_in_flight_max": rng.choice((1, 4)),
        "session_ttl_s": rng.choice((5, 60, 3600)),
        "sessions_max": rng.choice((6, 20, 1000)),
        "pending_requests_max": rng.choice((4, 4096)),
    }
