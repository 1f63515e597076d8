"""What clients were promised: each answer is held against the model at the index that it names.

Linearizability is checked in linear time, by a witness: the partition's log index is the order, the
virtual clock is real time. An operation must take effect above the highest index that was known to
any client when it began, and must return what the model holds at its own index. Here lives this
judgement and its books; what happens inside the cluster is judged in `kv.sim.properties`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kv.client.types import Evidence, Item, ReadLevel
from kv.errors import KVError
from kv.ids import META_GROUP
from kv.sim.model import Model, Version
from kv.sim.properties import Ledger


@dataclass(frozen=True, slots=True)
class Begun:
    """An operation when it was invoked."""

    client: str
    floors: dict[int, int]
    """By partition: the highest index that an ended operation had proved."""


class Promises:
    """The judge of answers."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._floors: dict[int, int] = {}
        self.partition_of: dict[bytes, int] = {}
        self.reads = self.stale_reads = self.writes = self.failures = self.unknown = 0

    def begin(self, client: str) -> Begun:
        """An operation is invoked now."""
        return Begun(client, dict(self._floors))

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

    def read(self, begun: Begun, key: bytes, item: Item | None, level: ReadLevel) -> None:
        """A get was answered."""
        if level is ReadLevel.STALE:
            self.stale_reads += 1
        else:
            self.reads += 1
        if item is None:
            self._read_nothing(begun, key, level)
            return
        proof = item.evidence
        assert proof is not None, "a get of one key has evidence"
        model = self._model(begun, key, proof)
        name = "stale-reads-are-real" if level is ReadLevel.STALE else "linearizable"
        if proof.index > model.index:
            self._fail(name, f"{begun.client} read at {proof.index}, committed is {model.index}", proof)
        if not _shows(item, model.at(key, proof.index)):
            text = f"{begun.client} read {item}, at {proof.index} the key is {model.at(key, proof.index)}"
            self._fail(name, text, proof)
        if level is not ReadLevel.STALE:
            self._happened(begun, proof.partition, proof.index, proof, at_least=True)

    def _read_nothing(self, begun: Begun, key: bytes, level: ReadLevel) -> None:
        partition = self.partition_of.get(key)
        if partition is None:
            return  # nobody has ever touched the key
        model = self._ledger.models[partition]
        low = 0 if level is ReadLevel.STALE else begun.floors.get(partition, 0)
        if all(version.value is not None for version in model.between(key, low, model.index)):
            name = "stale-reads-are-real" if level is ReadLevel.STALE else "linearizable"
            text = f"{begun.client} found no {key!r}, which existed from {low} to {model.index}"
            self._ledger.fail(name, text, [])

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

    def scanned(self, begun: Begun, prefix: bytes, items: Sequence[Item]) -> None:
        """A linearizable scan ended: each partition was read at moments between its begin and its end."""
        self.reads += 1
        found = {item.key: item for item in items}
        if len(found) != len(items) or [item.key for item in items] != sorted(found):
            self._ledger.fail("linearizable", f"{begun.client}: a scan is not in order: {list(found)}", [])
        for partition, model in self._ledger.models.items():
            for key in model.history if partition != META_GROUP else ():
                if key.startswith(prefix):
                    moments = model.between(key, begun.floors.get(partition, 0), model.index)
                    self._check_scanned(begun, key, found.get(key), moments)

    def _check_scanned(self, begun: Begun, key: bytes, item: Item | None, moments: Sequence[Version]) -> None:
        if item is None:
            good = any(moment.value is None for moment in moments)
        else:
            good = any(_shows(item, moment) for moment in moments)
        if not good:
            text = f"{begun.client}: a scan found {item} as {key!r}, meanwhile it was {moments}"
            self._ledger.fail("linearizable", text, [])

    def failed(self, begun: Begun, values: Sequence[bytes], error: KVError) -> None:
        """A write of these unique values failed."""
        if not error.definite:
            self.unknown += 1
            return
        self.failures += 1
        for value in values:
            for group, model in self._ledger.models.items():
                if value in model.written:
                    text = f"{begun.client}: {error.reason} is definite, but {value!r} was written in group {group}: {model.written[value]}"
                    self._ledger.fail("definite-failures-never-applied", text, [])
            self._ledger.forbidden[value] = f"{begun.client}: {error!r}"

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

    def _fail(self, name: str, text: str, proof: Evidence) -> None:
        self._ledger.fail(name, f"partition {proof.partition}: {text}", [proof.node])


def _shows(item: Item, version: Version) -> bool:
    return (item.value, item.mod_revision, item.create_revision, item.version) == (
        version.value,
        version.index,
        version.created,
        version.version,
    )
