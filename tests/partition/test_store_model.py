"""The state machine on its real store, against a dict with revisions, through all that may befall a replica.

Entries are applied to a store and to a plain model. Between them come checkpoints, rollbacks, crashes, full
maps, and snapshots: the copy of a checkpoint is installed in another directory, and the story goes on there.
What was not checkpointed is applied again from the log, as recovery does, and must give the same answers.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kv.errors import KVError
from kv.partition.batch import decode_batch
from kv.partition.checkpoint import Checkpoint
from kv.partition.machine import apply_command
from kv.partition.record import HEADER
from kv.partition.session import SessionLimits, SessionTable
from kv.partition.snapshot import FileSink, FileSource
from kv.partition.store import Store, StoreFull
from kv.raft.api import BOOTSTRAP_INDEX
from kv.v1 import kv_pb2
from tests.partition.tools import batch, delete, get, open_session, put

GROUP_ID = 7
LIMITS = SessionLimits(sessions_max=2, session_results_max=3, session_result_bytes_max=200, ttl_ms=10**9)
KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
VALUES = st.binary(max_size=40) | st.sampled_from([b"x" * 5000])
MAP_BYTES = 256 * 1024
CHUNK_BYTES = 7_001


@dataclass
class Item:
    """One key in the model."""

    value: bytes
    created: int
    modified: int
    version: int


@dataclass
class Model:
    """The partition as plain values: keys, and what each open session was answered."""

    index: int = BOOTSTRAP_INDEX
    items: dict[bytes, Item] = field(default_factory=dict)
    answers: dict[int, dict[int, kv_pb2.BatchResponse]] = field(default_factory=dict)

    def put(self, key: bytes, value: bytes, revision: int | None) -> kv_pb2.OperationResult:
        """What a put answers, conditional if a revision is given."""
        old = self.items.get(key)
        has = old.modified if old else 0
        if revision is not None and revision != has:
            return kv_pb2.OperationResult(error=kv_pb2.Error(reason="CONDITION_FAILED"))
        created, version = (old.created, old.version + 1) if old else (self.index, 1)
        self.items[key] = Item(value, created, self.index, version)
        return kv_pb2.OperationResult(put=kv_pb2.PutResult(revision=self.index, version=version))

    def delete(self, key: bytes) -> kv_pb2.OperationResult:
        """What a delete answers."""
        existed = self.items.pop(key, None) is not None
        return kv_pb2.OperationResult(delete=kv_pb2.DeleteResult(deleted=existed, revision=self.index))

    def get(self, key: bytes) -> kv_pb2.OperationResult:
        """What a get answers."""
        item = self.items.get(key)
        if item is None:
            return kv_pb2.OperationResult(get=kv_pb2.GetResult())
        found = kv_pb2.KeyValue(
            key=key,
            value=item.value,
            create_revision=item.created,
            mod_revision=item.modified,
            version=item.version,
        )
        return kv_pb2.OperationResult(get=kv_pb2.GetResult(item=found))

    def records(self) -> list[tuple[bytes, bytes]]:
        """The keys as they are stored."""
        return [
            (key, HEADER.pack(item.created, item.modified, item.version, 0) + item.value)
            for key, item in sorted(self.items.items())
        ]


def reasons_only(response: kv_pb2.BatchResponse) -> kv_pb2.BatchResponse:
    """The response without the texts of its errors, which the model does not know."""
    plain = copy.deepcopy(response)
    for result in plain.results:
        if result.HasField("error"):
            result.error.CopyFrom(kv_pb2.Error(reason=result.error.reason))
    return plain


class StoreMachine(RuleBasedStateMachine):
    """See the file's docstring."""

    @initialize()
    def start(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.replicas = 0
        self.log: list[tuple[bytes, object]] = []
        self.model = Model()
        self.saved = copy.deepcopy(self.model)
        self.mark = Checkpoint(GROUP_ID)
        self._open(Path(self.place.name) / "p0")

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.place.cleanup()

    def _open(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store.open(
            directory, GROUP_ID, map_bytes_initial=MAP_BYTES, required_index=self.mark.applied_index
        )
        self._load()

    def _load(self) -> None:
        """Back at the last checkpoint: the table from the disk, the model from its copy."""
        assert self.store.last == self.mark
        self.sessions = SessionTable(LIMITS)
        self.sessions.load(self.store.sessions())
        self.applied = self.mark.applied_index

    def _replay(self) -> None:
        """Apply again what the checkpoint does not have; the answers are those of the first time."""
        while self.applied < self.model.index:
            raw, first = self.log[self.applied - BOOTSTRAP_INDEX]
            assert self._apply(raw) == first, "an entry that is applied again gives another answer"

    def _apply(self, raw: bytes) -> object:
        """The answer of the next entry; a full map grows as `Replica` lets it."""
        self.applied += 1
        try:
            (outcome,) = apply_command(self.store, self.sessions, self.applied, 1, [decode_batch(raw)])
        except StoreFull:
            assert self.store.rollback(grow=True), "a map that is full can grow"
            self._load()
            self._replay()
            return self._apply(raw)
        if isinstance(outcome, KVError):
            return outcome.reason
        return reasons_only(kv_pb2.BatchResponse.FromString(outcome))

    # ------------------------------------------------------------ entries

    def _entry(self, raw: bytes, expected: object) -> None:
        """Append an entry to the log and apply it; the model is ahead of the store meanwhile."""
        self.log.append((raw, expected))
        assert self._apply(raw) == expected

    @rule(key=KEYS, value=VALUES, revision=st.none() | st.integers(0, 12))
    def put(self, key: bytes, value: bytes, revision: int | None) -> None:
        condition: dict[str, Any] = {} if revision is None else {"revision": revision}
        self.model.index += 1
        results = [self.model.put(key, value, revision), self.model.get(key)]
        self._entry(batch(put(key, value, **condition), get(key)), reasons_only(_response(*results)))

    @rule(key=KEYS, other=KEYS)
    def delete(self, key: bytes, other: bytes) -> None:
        self.model.index += 1
        results = [self.model.delete(key), self.model.put(other, b"after", None)]
        self._entry(batch(delete(key), put(other, b"after")), _response(*results))

    @rule()
    def open_session(self) -> None:
        self.model.index += 1
        session = self.model.index << 16
        opened = kv_pb2.OpenSessionResult(session=session, ttl_ms=LIMITS.ttl_ms)
        self._entry(batch(open_session()), _response(kv_pb2.OperationResult(open_session=opened)))
        self.model.answers[session] = {}
        while len(self.model.answers) > LIMITS.sessions_max:
            del self.model.answers[next(iter(self.model.answers))]

    @precondition(lambda self: self.model.answers)
    @rule(which=st.integers(0, 1), sequence=st.integers(1, 3), key=KEYS, value=VALUES)
    def put_in_session(self, which: int, sequence: int, key: bytes, value: bytes) -> None:
        session = list(self.model.answers)[which % len(self.model.answers)]
        answers = self.model.answers[session] = self.model.answers.pop(session)  # used last
        self.model.index += 1
        if sequence not in answers:
            answers[sequence] = _response(self.model.put(key, value, None))
        self._entry(batch(put(key, value), request=(session, sequence, 0)), answers[sequence])

    @rule(sequence=st.integers(1, 3))
    def unknown_session(self, sequence: int) -> None:
        self.model.index += 1
        self._entry(batch(put(b"a", b"never"), request=(5, sequence, 0)), "SESSION_EXPIRED")

    # ------------------------------------------------------------ what befalls a replica

    @rule()
    def checkpoint(self) -> None:
        at = Checkpoint(GROUP_ID, self.applied, 3, 2, 1, self.store.keys)
        self.store.checkpoint(at, self.sessions.take_changes())
        self.mark, self.saved = at, copy.deepcopy(self.model)

    @rule(grow=st.booleans())
    def rollback(self, grow: bool) -> None:
        self.store.rollback(grow=grow)
        self._load()
        assert list(self.store.range(b"", b"")) == self.saved.records()
        self._replay()

    @rule()
    def crash(self) -> None:
        self.store.close()
        self._open(self.directory)
        assert list(self.store.range(b"", b"")) == self.saved.records()
        self._replay()

    @precondition(lambda self: self.mark.applied_index > BOOTSTRAP_INDEX)
    @rule(crash=st.booleans())
    def move_by_snapshot(self, crash: bool) -> None:
        """The checkpoint becomes the state of a fresh replica, installed at once or by its next start."""
        self.replicas += 1
        directory = Path(self.place.name) / f"p{self.replicas}"
        fresh = Store.open(directory, GROUP_ID, map_bytes_initial=MAP_BYTES)
        self._copy_to(directory)
        if crash:
            fresh.close()
        else:
            fresh.install(self.mark.applied_index)
            fresh.close()
        before = self.store.content_hash()
        self.store.close()
        self._open(directory)
        assert self.store.content_hash() == before
        assert not list(directory.glob("snapshot-*"))
        self._replay()

    def _copy_to(self, directory: Path) -> None:
        source = FileSource(self.store, "1")
        source.prepare()
        assert source.index == self.mark.applied_index
        sink = FileSink(directory, GROUP_ID, source.index, source.total_bytes)
        for offset in range(0, source.total_bytes, CHUNK_BYTES):
            sink.write(offset, source.read(offset, CHUNK_BYTES))
        sink.finish()
        source.close()

    # ------------------------------------------------------------ what always holds

    @invariant()
    def store_agrees(self) -> None:
        if hasattr(self, "store"):
            assert self.applied == self.model.index
            assert list(self.store.range(b"", b"")) == self.model.records()
            assert self.store.keys == len(self.model.items)
            for key in (b"a", b"missing"):
                assert self.store.get(key) == dict(self.model.records()).get(key)


def _response(*results: kv_pb2.OperationResult) -> kv_pb2.BatchResponse:
    return kv_pb2.BatchResponse(results=results)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=10, stateful_step_count=30)
