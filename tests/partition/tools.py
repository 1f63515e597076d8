"""Builders of batches, a state in a dict, and a group that commits when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kv.config import PartitionConfig
from kv.errors import KVError, NotLeader
from kv.internal.v1 import log_pb2
from kv.partition.partition import Replica
from kv.partition.store import MAP_BYTES_MAX, Store
from kv.partition.writer import Writer
from kv.raft.api import BOOTSTRAP_INDEX, ENTRY_PREFIX, Entry, ReadProof, Tracer
from kv.v1 import kv_pb2

Op = kv_pb2.Operation


def put(key: bytes, value: bytes, /, *, previous: bool = False, **condition: bool | int | bytes) -> Op:
    """Return a put; any other keyword is its condition."""
    made = kv_pb2.PutOperation(key=key, value=value, return_previous=previous)
    if condition:
        made.condition.CopyFrom(kv_pb2.Condition(**condition))  # type: ignore[arg-type]
    return Op(put=made)


def delete(key: bytes, /, *, previous: bool = False, **condition: bool | int | bytes) -> Op:
    """Return a delete; any other keyword is its condition."""
    made = kv_pb2.DeleteOperation(key=key, return_previous=previous)
    if condition:
        made.condition.CopyFrom(kv_pb2.Condition(**condition))  # type: ignore[arg-type]
    return Op(delete=made)


def increment(key: bytes, delta: int = 1, /, **condition: bool | int | bytes) -> Op:
    """Return an increment; the keyword is its condition."""
    made = kv_pb2.IncrementOperation(key=key, delta=delta)
    if condition:
        made.condition.CopyFrom(kv_pb2.Condition(**condition))  # type: ignore[arg-type]
    return Op(increment=made)


def append(key: bytes, value: bytes, /, **condition: bool | int | bytes) -> Op:
    """Return an append; the keyword is its condition."""
    made = kv_pb2.AppendOperation(key=key, value=value)
    if condition:
        made.condition.CopyFrom(kv_pb2.Condition(**condition))  # type: ignore[arg-type]
    return Op(append=made)


def ask_outcome(session: int, sequence: int) -> Op:
    """Return an outcome query."""
    return Op(outcome=kv_pb2.OutcomeOperation(session=session, sequence=sequence))


def page(start: bytes = b"", end: bytes = b"", limit: int = 0, *, snapshot: int = 0) -> Op:
    """Return a range that keeps a snapshot, or goes on with one."""
    made = kv_pb2.RangeOperation(start=start, end=end, limit=limit, keep_snapshot=True, snapshot=snapshot)
    return Op(range=made)


def get(key: bytes) -> Op:
    """Return a get."""
    return Op(get=kv_pb2.GetOperation(key=key))


def open_session() -> Op:
    """Return an open_session."""
    return Op(open_session=kv_pb2.OpenSessionOperation())


def scan(start: bytes = b"", end: bytes = b"", limit: int = 0, keys_only: bool = False) -> Op:
    """Return a range."""
    return Op(range=kv_pb2.RangeOperation(start=start, end=end, limit=limit, keys_only=keys_only))


def txn(compare: Sequence[kv_pb2.Compare] = (), then: Sequence[Op] = (), otherwise: Sequence[Op] = ()) -> Op:
    """Return a transaction."""
    return Op(txn=kv_pb2.TxnOperation(compare=compare, then_operations=then, else_operations=otherwise))


def batch(
    *operations: Op,
    request: tuple[int, int, int] | None = None,
    stale: bool = False,
    read: kv_pb2.ReadOptions | None = None,
    **fields: int,
) -> bytes:
    """Return a serialized batch; `request` is (session, sequence, acknowledged), `fields` those of the message."""
    made = kv_pb2.BatchRequest(operations=operations, read=read, **fields)  # type: ignore[arg-type]
    if request is not None:
        session, sequence, acknowledged = request
        made.request_id.CopyFrom(
            kv_pb2.RequestId(session=session, sequence=sequence, acknowledged=acknowledged)
        )
    if stale:
        made.level = kv_pb2.READ_LEVEL_STALE
    return made.SerializeToString()


def results(outcome: object) -> list[kv_pb2.OperationResult]:
    """Decode an outcome that must be a response."""
    assert isinstance(outcome, bytes), outcome
    return list(kv_pb2.BatchResponse.FromString(outcome).results)


def evidence(outcome: object) -> kv_pb2.Evidence:
    """Return the only evidence of a response."""
    assert isinstance(outcome, bytes), outcome
    (found,) = kv_pb2.BatchResponse.FromString(outcome).evidence
    return found


def command(*raws: bytes, time_ms: int = 0) -> bytes:
    """Return the data of an entry."""
    made = log_pb2.Command(time_ms=time_ms, batches=raws)
    return ENTRY_PREFIX + made.SerializeToString()


class DictState:
    """The keys of a partition in a dict."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.records.get(key)

    def put(self, key: bytes, record: bytes, is_new: bool) -> None:
        assert is_new == (key not in self.records)
        self.records[key] = record

    def delete(self, key: bytes) -> None:
        del self.records[key]

    def range(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self.records):
            if key >= start and (not end or key < end):
                yield key, self.records[key]


class FakeGroup:
    """A group of one replica's view: it appends what is proposed and commits when told to."""

    def __init__(self, replica: Replica, *, log: list[Entry] | None = None) -> None:
        self.replica = replica
        self.group_id = replica.partition_id
        self.epoch = 1
        self.is_leader = True
        self.term = 1
        self.leader: str | None = "n1"
        self.entry_bytes_max = 5 * 1024 * 1024
        self.log: list[Entry] = [] if log is None else log
        self.commit_index = replica.applied_index
        self.durable_lag = 0
        self.compacted: list[int] = []
        self.woken = 0
        self.reads: list[tuple[Callable[[ReadProof | None], None], float, bool]] = []
        self.refuse: KVError | None = None
        self.more: list[bool] = []
        """Of each proposal: whether another was announced."""
        self.now = 0.0
        self.lease_allowed = True
        self.lease_holds = False
        self.proof: ReadProof | None = None
        self.all_durable_index = 0
        self.lagging: Sequence[str] = ()
        self.tracer: Tracer | None = None
        replica.attach(self)

    @property
    def first_index(self) -> int:
        return max([BOOTSTRAP_INDEX - 1, *(index - 1 for index in self.compacted)])

    @property
    def last_index(self) -> int:
        return BOOTSTRAP_INDEX + len(self.log)

    @property
    def durable_index(self) -> int:
        return self.last_index - self.durable_lag

    def propose(self, data: bytes, *, more: bool = False) -> int:
        assert len(data) <= self.entry_bytes_max
        if self.refuse is not None:
            raise self.refuse
        if not self.is_leader:
            raise NotLeader
        self.log.append((data, self.last_index + 1, self.term))
        self.more.append(more)
        return self.last_index

    def read_index(self, done: Callable[[ReadProof | None], None], *, lease: bool = False) -> None:
        self.reads.append((done, self.now, lease))

    def behind(self, index: int) -> Sequence[str]:
        return self.lagging if index > self.all_durable_index else ()

    def trace(self, tracer: Tracer | None) -> None:
        self.tracer = tracer

    def wake(self) -> None:
        self.woken += 1

    def compact(self, index: int) -> None:
        assert index <= self.replica.checkpoint_index
        self.compacted.append(index)

    def entries(self, first: int, last: int) -> Sequence[Entry]:
        assert first > self.first_index + 1
        assert last <= self.commit_index
        return self.log[first - BOOTSTRAP_INDEX - 1 : last - BOOTSTRAP_INDEX]

    # what a test does with it

    def commit(self, index: int | None = None) -> None:
        """Commit up to `index` (default: all) and hand it to the replica."""
        index = self.last_index if index is None else index
        first, self.commit_index = self.commit_index + 1, index
        self.replica.apply(self.log[first - BOOTSTRAP_INDEX - 1 : index - BOOTSTRAP_INDEX])

    def confirm_reads(self, *, index: int | None = None) -> None:
        """Answer the reads that wait: as leader, or with the index that the leader gave."""
        reads, self.reads = self.reads, []
        for done, began_at, lease in reads:
            known = self.commit_index if self.is_leader else index
            if known is None:
                done(None)
            else:
                self.proof = ReadProof(known, began_at, leased=lease and self.lease_holds)
                done(self.proof)

    def all_durable(self) -> None:
        """Every replica has proved that it has the whole log on disk."""
        self.all_durable_index = self.last_index

    def turn(self) -> None:
        """One turn with everything committed and confirmed at once."""
        self.replica.pump()
        self.commit()
        self.confirm_reads()

    def depose(self) -> None:
        """Lose the leadership to another node in a new term."""
        self.all_durable_index, self.lagging = 0, ()
        self.is_leader, self.leader, self.term = False, "n2", self.term + 1
        self.replica.leadership(False, self.term)

    def elect(self) -> None:
        """Win an election."""
        self.is_leader, self.leader, self.term = True, "n1", self.term + 1
        self.replica.leadership(True, self.term)


def partition_config(**changes: float) -> PartitionConfig:
    """Return small limits."""
    values: dict[str, Any] = {
        "checkpoint_bytes_max": 1 << 20,
        "checkpoint_ops_max": 1000,
        "checkpoint_interval_s": 30.0,
        "command_bytes_max": 1 << 20,
        "commands_in_flight_max": 4,
        "session_ttl_s": 60.0,
        "sessions_max": 100,
        "session_results_max": 16,
        "session_result_bytes_max": 1 << 16,
        "map_bytes_initial": 1 << 20,
        "pending_requests_max": 64,
        "pending_bytes_max": 8 << 20,
        "scan_page_bytes": 1 << 16,
        "scan_page_items": 10,
        "request_timeout_s": 5.0,
        "session_wait_s": 0.5,
        "all_write_timeout_s": 1.0,
        "scan_snapshots_max": 4,
        "scan_snapshot_bytes_max": 1 << 16,
        "scan_snapshot_idle_s": 10.0,
    }
    return PartitionConfig(**(values | changes))


class HeldWriter:
    """A store's writer whose thread does nothing until it is told to, or waited for."""

    def __init__(self) -> None:
        self._works: list[Callable[[], None]] = []
        self.thens: list[Callable[[], None]] = []

    def start(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """See `Writer`."""
        self._works.append(work)
        self.thens.append(then)

    def wait(self) -> None:
        """See `Writer`."""
        works, self._works = self._works, []
        for work in works:
            work()

    def lose(self) -> None:
        """Forget what was not done, as a process that dies."""
        self._works = []

    def tell(self) -> None:
        """Have all of it done, and the loop told."""
        self.wait()
        thens, self.thens = self.thens, []
        for then in thens:
            then()


class Bench:
    """A replica on a real store, its group, and the answers to what was submitted."""

    def __init__(
        self,
        directory: Path,
        *,
        log: list[Entry] | None = None,
        map_bytes_max: int = MAP_BYTES_MAX,
        log_retain_entries: int = 5,
        owns: Callable[[bytes], bool] = lambda _: True,
        writer: Writer | None = None,
        **changes: float,
    ) -> None:
        config = partition_config(**changes)
        self.now_ms = 1000
        self.store = Store.open(
            directory,
            7,
            map_bytes_initial=config.map_bytes_initial,
            map_bytes_max=map_bytes_max,
            writer=writer,
        )
        self.replica = Replica(
            self.store,
            node="n1",
            config=config,
            log_retain_entries=log_retain_entries,
            log_retain_bytes=1 << 20,
            owns=owns,
            map_epoch=lambda: 9,
            wall_ms=lambda: self.now_ms,
        )
        self.group = FakeGroup(self.replica, log=log)

    def submit(self, raw: bytes) -> list[bytes | KVError]:
        """Submit and return the list that gets the answer."""
        answers: list[bytes | KVError] = []
        self.replica.submit(raw, answers.append)
        return answers

    def ask(self, raw: bytes) -> bytes | KVError:
        """Submit, run one turn, and return the answer."""
        answers = self.submit(raw)
        self.group.turn()
        (answer,) = answers
        return answer

    def open_session(self) -> int:
        """Open a session and return its id."""
        return results(self.ask(batch(open_session())))[0].open_session.session

    def crash(self) -> None:
        """Close without a checkpoint."""
        self.store.close()
