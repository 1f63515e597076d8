"""What a run is asked to do. Pure; the command line is in `cli`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ROWS: Final = tuple(range(1, 14))
CEILINGS: Final = 0
"""The row of the ceilings: what this machine does without any store."""

VALUE_BYTES: Final = 100
ROUNDS_MAX: Final = 100
KEYS_MIN: Final = 1024
"""A batch takes so many different keys that fewer would measure collisions."""


@dataclass(frozen=True, slots=True)
class Options:
    """The parameters of a run.

    Attributes:
        rows: which rows; 0 are the ceilings.
        rounds: how often each slice is measured.
        seconds: of each slice, after `warmup_s`.
        keys: how many keys there are, where the row does not say otherwise.
        partitions: of ringkv, where the row does not say otherwise.
        partitions_beside: of ringkv in rows 1 to 6, beside systems that have one Raft group or none.
        batches_in_flight: batches of 128 that one client has under way, of either system.
        keys_many: of the larger store in row 9.
        keys_memory: of rows 10 and 11.
        kills: of row 7, over all rounds.
        idle_s: over which rows 8 and 10 watch an idle cluster.
        minutes: of row 9's long load.
        files_mib: how much row 12 copies.
    """

    rows: tuple[int, ...] = (CEILINGS, *ROWS)
    rounds: int = 5
    seconds: float = 4.0
    warmup_s: float = 1.0
    keys: int = 100_000
    partitions: int = 16
    partitions_beside: int = 1
    batches_in_flight: int = 16
    keys_many: int = 10_000_000
    keys_memory: int = 1_000_000
    kills: int = 20
    idle_s: float = 20.0
    minutes: float = 60.0
    files_mib: int = 128

    def __post_init__(self) -> None:
        unknown = sorted(set(self.rows) - {CEILINGS, *ROWS})
        if unknown or not self.rows:
            raise ValueError(
                f"there is no row {', '.join(map(str, unknown)) or '(none given)'}: they are 0 to {ROWS[-1]}"
            )
        if not 1 <= self.rounds <= ROUNDS_MAX:
            raise ValueError(f"{self.rounds} rounds is not 1 to {ROUNDS_MAX}")
        for name in ("seconds", "idle_s", "minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("keys", "keys_many", "keys_memory"):
            if getattr(self, name) < KEYS_MIN:
                raise ValueError(f"{name} must be at least {KEYS_MIN}, not {getattr(self, name)}")
        for name in ("partitions", "partitions_beside", "batches_in_flight", "kills", "files_mib"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.warmup_s < 0:
            raise ValueError(f"warmup_s must not be below 0, not {self.warmup_s}")

    @property
    def kills_per_round(self) -> int:
        """How often each round kills a leader, so that all together reach `kills`."""
        return -(-self.kills // self.rounds)
