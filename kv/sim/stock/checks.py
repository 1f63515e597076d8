"""What must hold, whichever kind of replica: checked after every event. No schedules here.

The kinds of violation (Raft dissertation, figure 3.2):

- `two leaders`: election safety;
- `lost`: leader completeness: a replica leads a term without an entry that was applied in an earlier one;
  or an acknowledged write is not what all replicas have applied in the end;
- `differ`: state machine safety: two replicas apply different entries at one index, or stand at the same
  index with different states;
- `stopped`: a replica stopped itself.

Stale reads are counted, not raised: the stock library offers only reads of the local state.
"""

from __future__ import annotations

import zlib

from kv.sim.stock.replica import LogEntry, Replica, State

KINDS = ("lost", "two leaders", "differ", "stopped")


class Violation(Exception):
    """A property does not hold; `kind` is one of `KINDS`."""

    def __init__(self, kind: str, text: str) -> None:
        assert kind in KINDS, kind
        super().__init__(text)
        self.kind = kind


def step(state: State, command: str | None) -> State:
    """The state after a command; a no-op (None) changes nothing."""
    if command is None:
        return state
    count, digest = state
    return count + 1, zlib.crc32(command.encode(), digest)


class Checks:
    """Everything seen so far in a trial. `base` is the index at which every replica begins."""

    def __init__(self, base: int) -> None:
        self.applied: dict[int, LogEntry] = {}
        self.last_applied = base
        self.acknowledged: dict[str, int] = {}
        self.reads = self.stale_reads = 0
        self.first_stale_read = ""
        self._states: dict[int, State] = {base: (0, 0)}
        self._terms: dict[int, int] = {}
        """The term, or a later one, in which each applied index was committed."""
        self._leaders: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._newest_seen = base

    # ------------------------------------------------------------ after every event

    def look(self, replica: Replica) -> bool:
        """Check one replica; True if it is a new leader. Raises `Violation`."""
        if replica.failure is not None:
            raise Violation("stopped", f"replica {replica.number}: {replica.failure}")
        entries = replica.take_applied()
        for entry in entries:
            self._applies(replica, entry)
        applied = replica.applied_index
        if entries or self._seen.get(replica.number) != applied:
            self._seen[replica.number] = applied
            self._compare_state(replica, applied)
        return replica.is_leader and self._leads(replica)

    def _applies(self, replica: Replica, entry: LogEntry) -> None:
        index = entry[1]
        known = self.applied.get(index)
        if known is None:
            self.applied[index] = entry
            self.last_applied = max(self.last_applied, index)
            self._terms[index] = replica.term
            before = self._states.get(index - 1)
            if before is not None:
                self._states[index] = step(before, replica.command(entry[0]))
        elif known != entry:
            raise Violation(
                "differ",
                f"replica {replica.number} applies {_show(replica, entry)} at {index},"
                f" where {_show(replica, known)} was applied",
            )

    def _compare_state(self, replica: Replica, applied: int) -> None:
        expected = self._states.get(applied)
        if expected is not None and replica.state != expected:
            raise Violation(
                "differ",
                f"replica {replica.number} stands at {applied} with {replica.state[0]} commands applied"
                f" (checksum {replica.state[1]:08x}), another with {expected[0]} ({expected[1]:08x})",
            )

    def _leads(self, replica: Replica) -> bool:
        term = replica.term
        known = self._leaders.get(term)
        if known == replica.number:
            return False
        if known is not None:
            raise Violation("two leaders", f"replicas {known} and {replica.number} both lead term {term}")
        self._leaders[term] = replica.number
        index = self.last_applied
        while index in self._terms and self._terms[index] >= term:
            index -= 1  # only what was committed in an earlier term binds this leader
        entry = self.applied.get(index)
        if entry is not None and not replica.holds(index, entry):
            raise Violation(
                "lost",
                f"replica {replica.number} leads term {term} without {_show(replica, entry)}"
                f" at {index}, which was applied in term {self._terms[index]}",
            )
        return True

    # ------------------------------------------------------------ clients

    def acknowledge(self, command: str, index: int) -> None:
        """A client was told that its command is applied, at `index`."""
        self.acknowledged[command] = index
        self._newest_seen = max(self._newest_seen, index)

    @property
    def newest_seen(self) -> int:
        """The highest index that any client knows to be applied: what a read that begins now must see."""
        return self._newest_seen

    def read(self, begun_at: int, served_at: int, text: str) -> None:
        """A read that began when clients knew of `begun_at` saw the state at `served_at`."""
        self.reads += 1
        if served_at < begun_at:
            self.stale_reads += 1
            self.first_stale_read = self.first_stale_read or text
        self._newest_seen = max(self._newest_seen, served_at)

    # ------------------------------------------------------------ in the end

    def survive(self, replica: Replica) -> None:
        """Every acknowledged write is what was applied at its index. Raises `Violation`."""
        for command, index in self.acknowledged.items():
            entry = self.applied.get(index)
            if entry is None or replica.command(entry[0]) != command:
                what = "nothing" if entry is None else _show(replica, entry)
                raise Violation("lost", f"{command} was acknowledged at {index}, where {what} is applied")


def _show(replica: Replica, entry: LogEntry) -> str:
    data, _, term = entry
    return f"{replica.command(data) or 'a no-op'} of term {term}"
