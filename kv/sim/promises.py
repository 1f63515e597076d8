"""What clients were promised: each answer is held against the model at the index that it names.

Linearizability is checked in linear time, by a witness: the partition's log index is the order, the
virtual clock is real time. An operation must take effect above the highest index that was known to
any client when it began, and must return what the model holds at its own index. Here lives this
judgement and its books; what happens inside the cluster is judged in `kv.sim.properties`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kv.client.types import Evidence, Item, ReadLevel
from kv.errors import KVError
from kv.ids import META_GROUP
from kv.sim.model import Model, Version, Written
from kv.sim.properties import Ledger

NAMES: Final[Mapping[ReadLevel, str]] = {
    ReadLevel.LINEARIZABLE: "linearizable",
    ReadLevel.LEASE: "linearizable",
    ReadLevel.SESSION: "session-reads-see-what-was-seen",
    ReadLevel.BOUNDED: "bounded-reads-are-young",
}
"""The property by which a level is judged; those that are not here promise a real state only."""
REAL: Final = "stale-reads-are-real"
AGE_SLACK_S: Final = 0.001
"""Ages are told in whole milliseconds, rounded up."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation when it was invoked."""

    client: str
    at_s: float
    floors: dict[int, int]
    """By partition: the highest index that an ended operation had proved."""
    own: dict[int, int]
    """The same of the operations of this client alone."""


class Promises:
    """The judge of answers."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Callable[[], float],
        *,
        slowest: float = 1.0,
        durable: Callable[[int], Mapping[str, int]] = lambda _: {},
    ) -> None:
        """Judge by `ledger`.

        Args:
            ledger: the committed logs and their models.
            clock: real time, in virtual seconds.
            slowest: the least rate of any host's clock: by it an age may be underestimated.
            durable: for a partition, up to which index each node has the log on its disk.
        """
        self._ledger, self._clock, self._slowest, self._durable = ledger, clock, slowest, durable
        self._floors: dict[int, int] = {}
        self._own: dict[str, dict[int, int]] = {}
        self._rises: dict[int, _Rises] = {}
        self.partition_of: dict[bytes, int] = {}
        self.reads = self.stale_reads = self.writes = self.failures = self.unknown = 0
        self.levels: Counter[str] = Counter()
        """Reads by the level that was asked for."""
        self.weaker: Counter[str] = Counter()
        """Of those, the ones that returned what no linearizable read could have returned."""
        self.examples: dict[str, str] = {}
        """By level, the first of those in words."""
        self.outcomes: Counter[str] = Counter()

    def begin(self, client: str) -> Begun:
        """An operation of a task `host.number` is invoked now."""
        own = self._own.get(_host(client), {})
        return Begun(client, self._clock(), dict(self._floors), dict(own))

    # ------------------------------------------------------------ ends

    def wrote(
        self, begun: Begun, key: bytes, value: bytes, revision: int, version: int, proof: Evidence
    ) -> None:
        """A put of a unique value was acknowledged."""
        self.writes += 1
        model = self._model(begun, key, proof)
        written = model.written.get(value)
        if written is None or (written.index, written.key, written.version) != (revision, key, version):
            text = f"{begun.client} put {value!r} to {key!r}: revision {revision} version {version}, the log: {written}"
            self._fail("acknowledged-writes-survive", text, proof)
        self._happened(begun, proof.partition, revision, proof)

    def wrote_somewhere(self, begun: Begun, key: bytes, value: bytes, revision: int, version: int) -> None:
        """A put of a batch over several partitions was acknowledged: whose it was is found in the logs."""
        holders = [group for group, model in self._ledger.models.items() if value in model.written]
        group = holders[0] if holders else self.partition_of.get(key, 0)
        self.wrote(begun, key, value, revision, version, Evidence(group, 0, 0, revision, "", None))

    def wrote_in_txn(self, begun: Begun, key: bytes, value: bytes, revision: int, proof: Evidence) -> None:
        """A transaction that put a unique value was acknowledged."""
        self.writes += 1
        model = self._model(begun, key, proof)
        written = model.written.get(value)
        if written is None or (written.index, written.key) != (revision, key):
            text = (
                f"{begun.client} put {value!r} to {key!r} in a transaction at {revision}, the log: {written}"
            )
            self._fail("acknowledged-writes-survive", text, proof)
        self._happened(begun, proof.partition, revision, proof)

    def deleted(self, begun: Begun, key: bytes, existed: bool, revision: int, proof: Evidence) -> None:
        """A delete was acknowledged."""
        self.writes += 1
        model = self._model(begun, key, proof)
        if existed not in model.deletes.get((revision, key), ()):
            text = (
                f"{begun.client} deleted {key!r} at {revision} (existed: {existed}), the log does not say so"
            )
            self._fail("acknowledged-writes-survive", text, proof)
        self._happened(begun, proof.partition, revision, proof)

    def read(
        self,
        begun: Begun,
        key: bytes,
        item: Item | None,
        level: ReadLevel,
        proof: Evidence,
        max_age_s: float | None = None,
    ) -> None:
        """A get was answered; `max_age_s` of a BOUNDED one."""
        strong = NAMES.get(level) == "linearizable"
        self.levels[level.name] += 1
        self.reads += strong
        self.stale_reads += not strong
        model = self._model(begun, key, proof)
        name = NAMES.get(level, REAL)
        if proof.index > model.index:
            self._fail(name, f"{begun.client} read at {proof.index}, committed is {model.index}", proof)
        if not _finds(item, model.at(key, proof.index)):
            text = f"{begun.client} read {item}, at {proof.index} the key is {model.at(key, proof.index)}"
            self._fail(name, text, proof)
        self._check_evidence(begun, item, level, proof)
        self._check_level(begun, level, proof, max_age_s)
        self._count_weaker(begun, key, item, level, proof)
        self._own_rises(begun, proof)

    def _check_level(self, begun: Begun, level: ReadLevel, proof: Evidence, max_age_s: float | None) -> None:
        """The index at which a read was served must be as high as its level promises."""
        floor = 0
        match level:
            case ReadLevel.LINEARIZABLE | ReadLevel.LEASE:
                self._happened(begun, proof.partition, proof.index, proof, at_least=True)
            case ReadLevel.SESSION:
                floor = begun.own.get(proof.partition, 0)
            case ReadLevel.BOUNDED:
                assert max_age_s is not None, "a bounded read has a bound"
                floor = self._floor_at(proof.partition, begun.at_s - max_age_s / self._slowest - AGE_SLACK_S)
            case _:
                pass
        if proof.index < floor:
            text = f"{begun.client}: a {level.name} read at {proof.index}, it was promised {floor} at least"
            self._fail(NAMES[level], text, proof)

    def _check_evidence(self, begun: Begun, item: Item | None, level: ReadLevel, proof: Evidence) -> None:
        """What the evidence says of itself must be true."""
        if proof.revision != (0 if item is None else item.mod_revision):
            self._fail(
                "evidence-is-true", f"{begun.client} read {item} with revision {proof.revision}", proof
            )
        if proof.level is not level and (level, proof.level) != (ReadLevel.LEASE, ReadLevel.LINEARIZABLE):
            self._fail("evidence-is-true", f"{begun.client} asked for {level.name}: {proof}", proof)
        if proof.age_ms is None:
            return
        floor = self._floor_at(
            proof.partition, begun.at_s - proof.age_ms / 1000 / self._slowest - AGE_SLACK_S
        )
        if proof.index < floor:
            text = f"{begun.client}: {proof} is older than it says: {floor} had been acknowledged by then"
            self._fail("evidence-is-true", text, proof)

    def _count_weaker(
        self, begun: Begun, key: bytes, item: Item | None, level: ReadLevel, proof: Evidence
    ) -> None:
        floor = begun.floors.get(proof.partition, 0)
        if proof.index >= floor:
            return
        moments = self._ledger.models[proof.partition].between(key, floor, floor)
        if not any(_finds(item, moment) for moment in moments):
            self.weaker[level.name] += 1
            self.examples.setdefault(
                level.name,
                f"at {begun.at_s:.3f} s {begun.client} reads {key!r} from {proof.node}: {_words(item)} (index "
                f"{proof.index}), though {_words_of(moments[0])} was acknowledged before (index {floor})",
            )

    def read_in_txn(
        self, begun: Begun, key: bytes, item: Item | None, revision: int, proof: Evidence
    ) -> None:
        """A transaction at `revision` read a key that the same entry may write as well."""
        model = self._model(begun, key, proof)
        moments = model.between(key, revision - 1, revision)
        if item is None:
            good = any(moment.value is None for moment in moments)
        else:
            good = any(_shows(item, moment) for moment in moments)
        if not good:
            text = f"{begun.client} read {item} of {key!r} in a transaction at {revision}, it was {moments}"
            self._fail("linearizable", text, proof)

    def scanned(self, begun: Begun, prefix: bytes, items: Sequence[Item], level: ReadLevel) -> None:
        """A scan ended: each partition was read at one moment; for LINEARIZABLE after its begin."""
        self.reads += 1
        found = {item.key: item for item in items}
        if len(found) != len(items) or [item.key for item in items] != sorted(found):
            self._ledger.fail("linearizable", f"{begun.client}: a scan is not in order: {list(found)}", [])
        strong = NAMES.get(level) == "linearizable"
        for partition, model in self._ledger.models.items():
            if partition != META_GROUP:
                low = begun.floors.get(partition, 0) if strong else 0
                self._check_scanned(begun, prefix, found, model, low)

    def _check_scanned(
        self, begun: Begun, prefix: bytes, found: Mapping[bytes, Item], model: Model, low: int
    ) -> None:
        """One index explains all that the scan found in the partition."""
        keys = [key for key in model.history if key.startswith(prefix)]
        changes = {version.index for key in keys for version in model.between(key, low, model.index)}
        moments = sorted({low, *(index for index in changes if index > low)}, reverse=True)
        if not any(all(_finds(found.get(key), model.at(key, at)) for key in keys) for at in moments):
            mine = {key: found.get(key) for key in keys}
            text = f"{begun.client}: no single index from {low} to {model.index} explains a scan that found {mine}"
            self._ledger.fail("scans-read-one-index", text, [])

    # ------------------------------------------------------------ increments, appends, outcomes

    def incremented(
        self, begun: Begun, key: bytes, value: int, revision: int, version: int, proof: Evidence
    ) -> None:
        """An increment was acknowledged with the value after it."""
        self._stored(begun, key, b"%d" % value, revision, version, proof)

    def appended(
        self, begun: Begun, key: bytes, piece: bytes, revision: int, version: int, proof: Evidence
    ) -> None:
        """An append of a unique piece was acknowledged."""
        self.writes += 1
        written = self._model(begun, key, proof).appended.get(piece)
        if written is None or (written.index, written.key, written.version) != (revision, key, version):
            text = f"{begun.client} appended {piece!r} to {key!r}: revision {revision}, the log: {written}"
            self._fail("acknowledged-writes-survive", text, proof)
        self._happened(begun, proof.partition, revision, proof)

    def _stored(
        self, begun: Begun, key: bytes, value: bytes, revision: int, version: int, proof: Evidence
    ) -> None:
        self.writes += 1
        model = self._model(begun, key, proof)
        moments = model.between(key, revision - 1, revision)
        if not any((one.index, one.version, one.value) == (revision, version, value) for one in moments):
            text = f"{begun.client} was told {value!r} at {revision} version {version} of {key!r}, it was {moments}"
            self._fail("acknowledged-writes-survive", text, proof)
        self._happened(begun, proof.partition, revision, proof)

    def on_all(self, begun: Begun, proof: Evidence) -> None:
        """A write at level ALL was acknowledged: it is on every disk."""
        for node, index in self._durable(proof.partition).items():
            if index < proof.index:
                text = (
                    f"{begun.client}: ALL was acknowledged at {proof.index}, {node} has {index} on its disk"
                )
                self._fail("all-means-all", text, proof)

    def decided(self, begun: Begun, values: Sequence[bytes], applied: bool) -> None:
        """An outcome query answered: applied, or not applied and never will be."""
        self.outcomes["applied" if applied else "not applied"] += 1
        for value in values:
            found = list(self._written(value))
            if applied and not found:
                self._ledger.fail(
                    "outcomes-are-true",
                    f"{begun.client} was told that {value!r} was applied: it is in no log",
                    [],
                )
            if not applied:
                self._forbid(begun, value, "declared not applied")

    def _written(self, value: bytes) -> Iterator[tuple[int, Written]]:
        for group, model in self._ledger.models.items():
            for seen in (model.written, model.appended):
                if value in seen:
                    yield group, seen[value]

    def _forbid(self, begun: Begun, value: bytes, why: str) -> None:
        for group, written in self._written(value):
            text = f"{begun.client}: {value!r} was {why}, but written in group {group}: {written}"
            self._ledger.fail("definite-failures-never-applied", text, [])
        self._ledger.forbidden[value] = f"{begun.client}: {why}"

    def failed(self, begun: Begun, values: Sequence[bytes], error: KVError) -> None:
        """A write of these unique values failed."""
        if not error.definite:
            self.unknown += 1
            return
        self.failures += 1
        for value in values:
            self._forbid(begun, value, f"refused, definitely: {error.reason}")

    def stands(self, begun: Begun, values: Sequence[bytes], error: KVError) -> None:
        """A write failed its write level only: it was applied."""
        self.unknown += 1
        for value in values:
            if not any(self._written(value)):
                text = f"{begun.client}: {error.reason} says that {value!r} was applied: it is in no log"
                self._ledger.fail("acknowledged-writes-survive", text, [])

    def conflicted(
        self, begun: Begun, key: bytes, values: Sequence[bytes], error: KVError, expected: bytes | None
    ) -> None:
        """A conditional write was refused: the key must have had another value at some moment meanwhile."""
        self.failed(begun, values, error)
        partition = self.partition_of.get(key)
        if partition is None:
            return
        model = self._ledger.models[partition]
        moments = model.between(key, begun.floors.get(partition, 0), model.index)
        if all(moment.value == expected for moment in moments):
            text = f"{begun.client} was told that {key!r} is not {expected!r}, but it was all the time"
            self._ledger.fail("linearizable", text, [])

    # ------------------------------------------------------------ details

    def _model(self, begun: Begun, key: bytes, proof: Evidence) -> Model:
        known = self.partition_of.setdefault(key, proof.partition)
        if known != proof.partition:
            text = f"{begun.client}: {key!r} was served by partition {known} and {proof.partition}"
            self._fail("linearizable", text, proof)
        return self._ledger.model(proof.partition)

    def _happened(
        self, begun: Begun, partition: int, index: int, proof: Evidence, *, at_least: bool = False
    ) -> None:
        floor = begun.floors.get(partition, 0)
        if index < floor or (index == floor and not at_least):
            # An entry holds many requests: one at the very index of an ended one is possible only if both
            # were under way together, which the caller of `begin` excludes.
            text = f"{begun.client}: takes effect at {index} of partition {partition}, {floor} had ended before it began"
            self._fail("linearizable", text, proof)
        if index > self._floors.get(partition, 0):
            self._floors[partition] = index
            self._rises.setdefault(partition, _Rises()).add(self._clock(), index)
        self._own_rises(begun, proof, index)

    def _own_rises(self, begun: Begun, proof: Evidence, index: int | None = None) -> None:
        own = self._own.setdefault(_host(begun.client), {})
        own[proof.partition] = max(own.get(proof.partition, 0), proof.index if index is None else index)

    def _floor_at(self, partition: int, at_s: float) -> int:
        """The highest index that had been acknowledged to anyone by then."""
        rises = self._rises.get(partition)
        return 0 if rises is None else rises.at(at_s)

    def _fail(self, name: str, text: str, proof: Evidence) -> None:
        self._ledger.fail(name, f"partition {proof.partition}: {text}", [proof.node])


@dataclass(slots=True)
class _Rises:
    """How a floor rose."""

    times: list[float] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)

    def add(self, at_s: float, index: int) -> None:
        self.times.append(at_s)
        self.indexes.append(index)

    def at(self, at_s: float) -> int:
        """The floor at a time."""
        position = bisect_right(self.times, at_s)
        return self.indexes[position - 1] if position else 0


def _host(task: str) -> str:
    return task.split(".", maxsplit=1)[0]


def _words(item: Item | None) -> str:
    return "nothing" if item is None else f"{item.value[:24]!r}"


def _words_of(version: Version) -> str:
    return "nothing" if version.value is None else f"{version.value[:24]!r}"


def _finds(item: Item | None, version: Version) -> bool:
    """Whether a read that found `item` saw that version."""
    return version.value is None if item is None else _shows(item, version)


def _shows(item: Item, version: Version) -> bool:
    return (item.value, item.mod_revision, item.create_revision, item.version) == (
        version.value,
        version.index,
        version.created,
        version.version,
    )
