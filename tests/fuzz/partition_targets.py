"""Targets for requests and log entries: what a client sends to a partition, what the log hands to it.

An input is a list of byte strings: the fields 1 of a message without a schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import DecodeError

from kv.errors import KVError
from kv.internal.v1 import log_pb2
from kv.partition.batch import Batch
from kv.partition.command import decode_command
from kv.partition.machine import Outcome, apply_command
from kv.partition.partition import Replica
from kv.partition.session import SessionLimits, SessionTable
from kv.partition.store import Store
from kv.raft.api import BOOTSTRAP_INDEX, ENTRY_PREFIX
from kv.v1 import kv_pb2
from tests.fuzz.engine import Check, Target, plain
from tests.fuzz.mutate import Field, mutate_message, parse, serialize
from tests.partition.tools import (
    DictState,
    FakeGroup,
    append,
    ask_outcome,
    batch,
    delete,
    get,
    increment,
    open_session,
    page,
    partition_config,
    put,
    scan,
    txn,
)

GROUP_ID = 7
COMMANDS_MAX = 30
"""Commands or requests of one input that are run."""
PATIENCE_S = 10.0
"""No read waits longer at its replica; too short for a checkpoint by time, since a side goes back to the bootstrap."""
LIMITS = SessionLimits(sessions_max=3, session_results_max=3, session_result_bytes_max=200, ttl_ms=1000)
FIRST_SESSION = (BOOTSTRAP_INDEX + 1) << 16
"""The session that the first command of an input opens, if it opens one."""


def strings_in(data: bytes, number: int = 1) -> list[bytes]:
    """The byte strings that an input holds in its fields `number`."""
    fields = [field.value for field in parse(data) or [] if field.number == number]
    return [
        serialize(value) if isinstance(value, list) else value
        for value in fields
        if not isinstance(value, int)
    ]


def input_of(*strings: bytes, number: int = 1) -> bytes:
    """The input that holds these byte strings."""
    return serialize([Field(number, 2, string) for string in strings])


def batches() -> list[list[bytes]]:
    """Runs of valid batches; the first of each opens the session that the others use."""
    compare = kv_pb2.Compare(key=b"a", comparator=kv_pb2.COMPARATOR_GREATER, version=1)
    return [
        [
            batch(open_session()),
            batch(put(b"a", b"1"), get(b"a"), request=(FIRST_SESSION, 1, 0)),
            batch(put(b"a", b"1"), get(b"a"), request=(FIRST_SESSION, 1, 0)),
            batch(put(b"a", b"2", revision=4), delete(b"b", present=True), request=(FIRST_SESSION, 2, 1)),
            batch(
                txn([compare], [put(b"{a}", b"3"), get(b"a")], [delete(b"a")]), request=(FIRST_SESSION, 3, 1)
            ),
        ],
        [batch(put(b"k", bytes(60), absent=True)), batch(get(b"k"), stale=True), batch(scan(b"a", b"z", 2))],
        [
            batch(open_session()),
            batch(increment(b"n", 2), append(b"l", b"x"), request=(FIRST_SESSION, 1, 0)),
            batch(
                txn((), [increment(b"n"), txn([compare], [append(b"l", b"y")])]),
                request=(FIRST_SESSION, 3, 0),
            ),
            batch(ask_outcome(FIRST_SESSION, 1)),
            batch(ask_outcome(FIRST_SESSION, 2)),
            batch(put(b"n", b"late", previous=True), request=(FIRST_SESSION, 2, 0)),
            batch(delete(b"l", previous=True), write_level=2, all_timeout_ms=5),
        ],
        [
            batch(put(b"a", b"1"), put(b"b", b"1")),
            batch(page(limit=1), level=5, read=kv_pb2.ReadOptions(max_age_ms=9)),
            batch(put(b"a", b"2")),
            batch(page(b"a\0", snapshot=(BOOTSTRAP_INDEX + 1) << 16 | 1), trace=True),
            batch(get(b"a"), level=3),
            batch(
                get(b"a"),
                level=4,
                read=kv_pb2.ReadOptions(after=[kv_pb2.PartitionIndex(partition=GROUP_ID, index=99)]),
            ),
        ],
        [batch(delete(b"k", value=b"v"), put(b"k", b"v", value=b"v")), batch(get(b"k"), get(b"missing"))],
        [
            batch(put(b"", b"x"), put(b"y" * 481, b"x"), put(b"ok", b"x")),
            batch(),
            batch(scan(keys_only=True)),
        ],
    ]


# --- commands of the log --------------------------------------------------------------------------------


class Machine:
    """The state machine without a disk; `reload` is what a checkpoint and a restart do to its sessions."""

    def __init__(self) -> None:
        self.state = DictState()
        self.sessions = SessionTable(LIMITS)
        self.stored: dict[int, bytes] = {}
        self.index = BOOTSTRAP_INDEX
        self.time_ms = 0

    def apply(self, command: bytes) -> list[Outcome] | str:
        """The outcomes of a command, or why a replica stops at it."""
        self.index += 1
        try:
            time_ms, decoded = decode_command(ENTRY_PREFIX + command)
            if any(not one.writes for one in decoded):
                return "a batch that only reads"  # never proposed, see Replica._pump
            self.time_ms = max(self.time_ms, time_ms)
            outcomes = apply_command(self.state, self.sessions, self.index, self.time_ms, decoded)
        except (DecodeError, KVError) as error:
            return repr(error)
        _check_outcomes(decoded, outcomes)
        return outcomes

    def reload(self) -> None:
        """Write the changed sessions as a checkpoint does, and read all of them back."""
        for session_id, encoded in self.sessions.take_changes():
            if encoded is None:
                self.stored.pop(session_id, None)
            else:
                self.stored[session_id] = encoded
        self.sessions.load(self.stored.items())


def _check_outcomes(decoded: list[Batch], outcomes: list[Outcome]) -> None:
    for one, outcome in zip(decoded, outcomes, strict=True):
        if isinstance(outcome, bytes):
            response = kv_pb2.BatchResponse.FromString(outcome)
            assert len(response.results) == len(one.operations) or one.session
        else:
            assert one.session, "only a session can refuse a batch that is in the log"


def _told(outcomes: list[Outcome] | str) -> list[str] | str:
    return outcomes if isinstance(outcomes, str) else [repr(outcome) for outcome in outcomes]


def _check_commands(data: bytes) -> str:
    left, right = Machine(), Machine()
    results = errors = 0
    for number, command in enumerate(strings_in(data)[:COMMANDS_MAX]):
        one, other = left.apply(command), right.apply(command)
        assert _told(one) == _told(other), "two replicas answer one entry differently"
        if isinstance(one, str):
            break
        results += sum(isinstance(outcome, bytes) for outcome in one)
        errors += sum(not isinstance(outcome, bytes) for outcome in one)
        if number % 2:
            right.reload()
    assert left.state.records == right.state.records, "two replicas hold different keys"
    left.reload()
    right.reload()
    assert left.stored == right.stored, "two replicas hold different sessions"
    return f"results {min(results, 3)}, errors {min(errors, 2)}, keys {min(len(left.state.records), 3)}"


def _command_seeds() -> list[bytes]:
    def commands(run: list[bytes]) -> bytes:
        return input_of(
            *(log_pb2.Command(time_ms=10 * i, batches=[raw]).SerializeToString() for i, raw in enumerate(run))
        )

    joined = log_pb2.Command(time_ms=7, batches=[raw for run in batches() for raw in run[1:2]])
    return [*map(commands, batches()), input_of(joined.SerializeToString(), b"")]


# --- requests of a client -----------------------------------------------------------------------------------


class Side:
    """A replica on a real store that is back at the bootstrap whenever `fresh` is called."""

    def __init__(self, directory: Path) -> None:
        self._config = partition_config(checkpoint_ops_max=1 << 30, checkpoint_bytes_max=1 << 40)
        self.store = Store.open(directory, GROUP_ID, map_bytes_initial=64 << 20)

    def fresh(self) -> tuple[Replica, FakeGroup]:
        """A replica that has applied nothing, with its group."""
        self.store.rollback()
        replica = Replica(
            self.store,
            node="n1",
            config=self._config,
            log_retain_entries=5,
            log_retain_bytes=1 << 20,
            owns=lambda key: key[:1] != b"~",
            map_epoch=lambda: 9,
            wall_ms=lambda: 1000,
        )
        return replica, FakeGroup(replica)

    def content(self) -> list[tuple[bytes, bytes]]:
        """All keys with their records."""
        return list(self.store.range(b"", b""))


@contextmanager
def _make_requests(directory: Path) -> Iterator[Check]:
    leader_side, follower_side = Side(directory / "leader"), Side(directory / "follower")

    def check(data: bytes) -> str:
        leader, group = leader_side.fresh()
        outcomes: list[str] = []
        for raw in strings_in(data)[:COMMANDS_MAX]:
            outcomes.append(_ask(leader, group, raw))
            assert leader.failure is None, f"a request stopped the replica: {leader.failure}"
        follower, _ = follower_side.fresh()
        follower.apply(group.log)
        assert follower.failure is None, f"an entry of the leader stopped the follower: {follower.failure}"
        assert follower_side.content() == leader_side.content(), "leader and follower hold different keys"
        return " ".join(sorted(set(outcomes)))

    try:
        yield check
    finally:
        leader_side.store.close()
        follower_side.store.close()


def _ask(replica: Replica, group: FakeGroup, raw: bytes) -> str:
    """Send one request, let it come to its end, and check its answer."""
    answers: list[bytes | KVError] = []
    replica.submit(raw, answers.append)
    group.turn()
    if not answers:  # it waits for the disks of other replicas, or for an index that never comes
        group.all_durable()
        replica.maybe_checkpoint(group.now + PATIENCE_S)
    assert len(answers) == 1, f"{len(answers)} answers to one request"
    (answer,) = answers
    if isinstance(answer, KVError):
        return answer.reason
    response = kv_pb2.BatchResponse.FromString(answer)
    asked = kv_pb2.BatchRequest.FromString(raw)
    if not asked.request_id.session:  # a repetition answers what was asked the first time
        assert len(response.results) == len(asked.operations), "each operation has one result"
    assert len(response.evidence) == 1
    return "OK"


def _request_seeds() -> list[bytes]:
    return [input_of(*run) for run in batches()]


TARGETS = (
    Target("commands", "replicas that apply the same entries answer the same and hold the same",
           _command_seeds, plain(_check_commands), mutate_message),
    Target("requests", "any request has one answer, and none stops a replica or parts it from its follower",
           _request_seeds, _make_requests, mutate_message),
)  # fmt: skip
