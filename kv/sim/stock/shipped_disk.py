"""The files of a stock replica, in memory: its journal, the journal's meta file, and its dump file.

What lives here: which of it a crash leaves. What must not: the library.

As shipped (`FileJournal`, `MetaStorer` and `Serializer` of PySyncObj 0.3.17) every write goes to the page
cache and nothing is ever synced; term and vote are stored at once, the commit index about once a second. A
process that dies therefore loses nothing but the newest commit index. A power loss loses what the kernel
has not written back yet: of the journal any suffix of its changes, of the other two files the newest version.
That is kinder than a real disk: changes are never torn and never reordered within a file.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal, overload

from kv.sim.stock.replica import LogEntry

WRITE_BACK_MIN_S, WRITE_BACK_MAX_S = 1.0, 5.0
"""How often the kernel writes back; Linux' defaults may take 30 s."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What the meta file holds."""

    term: int = 0
    voted_for: int | None = None
    commit_index: int = 1


@dataclass
class Platter:
    """What would survive a power loss for sure."""

    entries: list[LogEntry] = field(default_factory=list)
    meta: Meta = field(default_factory=Meta)
    dumps: dict[str, bytes] = field(default_factory=dict)


class ShippedDisk:
    """The files of one replica."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.meta = Meta()
        self.dumps: dict[str, bytes] = {}
        self._platter = Platter()
        self._changes: list[Callable[[list[LogEntry]], None]] = []

    def change(self, change: Callable[[list[LogEntry]], None]) -> None:
        """Change the journal, in the page cache."""
        change(self.entries)
        self._changes.append(change)

    def write_back(self) -> None:
        """The kernel writes everything to disk."""
        self._settle(len(self._changes))
        self._platter.meta = self.meta
        self._platter.dumps = dict(self.dumps)

    def power_loss(self, rng: Random) -> None:
        """Go back to what is on disk, and a part of what was not written back."""
        self._settle(rng.randint(0, len(self._changes)))
        self._changes.clear()
        self.entries = list(self._platter.entries)
        self.meta = self._platter.meta = rng.choice((self.meta, self._platter.meta))
        self.dumps = dict(rng.choice((self.dumps, self._platter.dumps)))
        self._platter.dumps = dict(self.dumps)

    def _settle(self, count: int) -> None:
        for change in self._changes[:count]:
            change(self._platter.entries)
        del self._changes[:count]


class ShippedJournal:
    """What the library calls a journal (its `FileJournal`), on a `ShippedDisk`. The names are the library's."""

    def __init__(self, disk: ShippedDisk, erased: Callable[[list[LogEntry]], None]) -> None:
        self._disk, self._erased = disk, erased
        self._meta = disk.meta

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry."""
        entry = (command, idx, term)
        self._disk.change(lambda entries: entries.append(entry))

    def clear(self) -> None:
        """Remove all."""
        self._disk.change(lambda entries: entries.clear())

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Remove the entries from this position on."""
        self._erased(self._disk.entries[entryFrom:])
        self._disk.change(lambda entries: entries.__delitem__(slice(entryFrom, None)))

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Remove the entries before this position."""
        self._disk.change(lambda entries: entries.__delitem__(slice(None, entryTo)))

    @overload
    def __getitem__(self, item: int) -> LogEntry: ...

    @overload
    def __getitem__(self, item: slice) -> list[LogEntry]: ...

    def __getitem__(self, item: int | slice) -> LogEntry | list[LogEntry]:
        return self._disk.entries[item]

    def __len__(self) -> int:
        return len(self._disk.entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Remember the commit index; it is stored with the next term or the next second."""
        self._meta = Meta(self._meta.term, self._meta.voted_for, raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        """The commit index that was stored last."""
        return self._meta.commit_index

    def setCurrentTerm(self, term: int, votedForNodeId: int | None) -> None:
        """Store term and vote at once."""
        self._meta = self._disk.meta = Meta(term, votedForNodeId, self._meta.commit_index)

    def getCurrentTerm(self) -> int:
        """The term that was stored last."""
        return self._meta.term

    def getVotedForNodeId(self) -> int | None:
        """The vote that was stored last."""
        return self._meta.voted_for

    def onOneSecondTimer(self) -> None:
        """Store what is not stored yet."""
        self._disk.meta = self._meta

    def _destroy(self) -> None: ...


class DumpFile(io.BytesIO):
    """A dump file open for writing; its content is there once it is closed."""

    def __init__(self, dumps: dict[str, bytes], name: str) -> None:
        super().__init__()
        self._dumps, self._name = dumps, name

    def close(self) -> None:
        """Let others see it."""
        if not self.closed:
            self._dumps[self._name] = self.getvalue()
        super().close()


class DumpFiles:
    """The few calls with which the library's serializer reaches its files. Names are "number/name"."""

    def __init__(self, disks: dict[int, ShippedDisk]) -> None:
        self._disks = disks

    def exists(self, name: str) -> bool:
        """As `os.path.isfile`."""
        return name in self._dumps(name)

    def open(self, name: str, mode: Literal["rb", "wb"]) -> io.BytesIO:
        """As `open`."""
        dumps = self._dumps(name)
        if mode == "wb":
            return DumpFile(dumps, name)
        if name not in dumps:
            raise FileNotFoundError(name)
        return io.BytesIO(dumps[name])

    def replace(self, old: str, new: str) -> None:
        """As the library's `atomicReplace`."""
        dumps = self._dumps(new)
        dumps[new] = dumps.pop(old)

    def _dumps(self, name: str) -> dict[str, bytes]:
        return self._disks[int(name.partition("/")[0])].dumps
