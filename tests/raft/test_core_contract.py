"""What is relied on of PySyncObj, so that another version fails here and not in production."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysyncobj.pickle
import pysyncobj.serializer
import pysyncobj.syncobj
import pytest
from pysyncobj.journal import Journal as CoreJournal
from pysyncobj.transport import Transport as CoreTransport

import kv
from kv.raft.core import CORE_VERSION, Core, Message
from kv.raft.journal import Journal
from kv.raft.wal import Wal
from kv.sim.disk import MemoryFiles

PACKAGE = Path(kv.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


class Rig:
    """One core of three members, and what it would send."""

    def __init__(self) -> None:
        wal = Wal.open(MemoryFiles(), segment_bytes=65_536)
        self.journal: Journal = wal.journal(1)
        self.journal.bootstrap()
        self.sent: list[tuple[str, Message]] = []
        self.now = 1.0
        self.core = Core(
            "a",
            ["b", "c"],
            self.journal,
            lambda peer, message: self.sent.append((peer, message)),
            heartbeat_s=0.1,
            leader_fallback_s=1.0,
            commit_index=self.journal.base,
            now=self.now,
        )
        for peer in ("b", "c"):
            self.core.connection(peer, True)

    def lead(self) -> Message:
        """Win an election; the vote request that it took."""
        self.core.elect(self.now)
        (_, request), _ = self.take("request_vote")
        self.core.vote("b", self.core.term, self.now)
        assert self.core.is_leader
        return request

    def take(self, kind: str) -> list[tuple[str, Message]]:
        """Take what was sent; all of it must be of this type."""
        sent, self.sent = self.sent, []
        assert {message["type"] for _, message in sent} <= {kind}, sent
        return sent


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A fresh core."""
    rig = Rig()
    yield rig
    rig.core.destroy()


def test_the_version_is_the_one_that_was_read() -> None:
    """The guard was written against one version, which is pinned."""
    assert importlib.metadata.version("pysyncobj") == CORE_VERSION == "0.3.17"


def test_one_file_imports_the_core() -> None:
    """Nothing but core.py knows PySyncObj, apart from the simulation of it as shipped."""
    importing = {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if re.search(r"^\s*(import|from) pysyncobj", path.read_text(), re.MULTILINE)
    }
    assert importing - {"sim/stock/shipped.py"} == {"raft/core.py"}


def test_no_name_mangled_attribute_is_touched() -> None:
    """Private attributes of the core's classes are left alone in all of kv/ but the simulator's mutations."""
    assert [
        path.name for path in SOURCES if re.search(r"_(SyncObj|Serializer|Transport)__", path.read_text())
    ] == ["mutations.py"]


@pytest.mark.parametrize("name", ["monotonicTime", "createJournal", "createPoller", "PIPE_NOTIFIER_ENABLED"])
def test_the_replaced_globals_are_used(name: str) -> None:
    """Each global that is replaced is one that the core looks up when it runs."""
    names: set[str] = set()
    pending = [
        member.__code__
        for _, member in inspect.getmembers(pysyncobj.syncobj.SyncObj, inspect.isfunction)
        if hasattr(member, "__code__")
    ]
    while pending:
        code = pending.pop()
        names.update(code.co_names)
        pending += [constant for constant in code.co_consts if inspect.iscode(constant)]
    assert name in names
    assert name in vars(pysyncobj.syncobj)


def test_the_journal_implements_what_the_core_calls() -> None:
    """Every method of the core's journal interface is ours, or a default that does nothing."""
    harmless = {"onOneSecondTimer", "set_term_and_vote", "get_term_and_vote"}
    wanted = (
        {name for name, _ in inspect.getmembers(CoreJournal, inspect.isfunction)} - {"__init__"} - harmless
    )
    from kv.raft.core import _Log

    assert wanted <= set(vars(_Log)), wanted - set(vars(_Log))
    assert {"add", "clear", "deleteEntriesFrom", "deleteEntriesTo", "__getitem__", "__len__"} <= wanted
    assert {"setRaftCommitIndex", "getRaftCommitIndex", "setCurrentTerm", "getCurrentTerm"} <= wanted


def test_the_transport_has_the_callbacks() -> None:
    """What the guard tells the core goes in through these."""
    for name in ("_onMessageReceived", "_onNodeConnected", "_onNodeDisconnected", "send", "destroy", "ready"):
        assert hasattr(CoreTransport, name)


def test_a_core_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating a core and leading with it starts no thread and opens no socket, pipe or file."""

    def forbidden(*args: object, **named: object) -> None:
        raise AssertionError(f"opened {args}")

    threads = threading.active_count()
    for owner, name in (
        (socket, "socket"),
        ("os", "pipe"),
        ("os", "open"),
        ("os", "fork"),
        ("builtins", "open"),
    ):
        target = f"{owner}.{name}" if isinstance(owner, str) else f"{owner.__name__}.{name}"
        monkeypatch.setattr(target, forbidden)
    rig = Rig()
    rig.lead()
    rig.core.propose(b"\x01x", rig.now)
    rig.core.tick(rig.now + 1)
    assert threading.active_count() == threads


def test_a_new_core_is_a_follower_at_its_snapshot(rig: Rig) -> None:
    """It stands on the journal's head, knows no leader, and says nothing by itself, however long it waits."""
    assert (rig.core.applied_index, rig.core.commit_index, rig.core.term) == (2, 2, 0)
    assert (rig.core.is_leader, rig.core.leader) == (False, None)
    rig.core.tick(1e8)
    assert rig.sent == []


def test_the_shape_of_a_vote_request(rig: Rig) -> None:
    """An election raises the term by one, votes for itself, and asks all."""
    assert rig.lead() == {"type": "request_vote", "term": 1, "last_log_index": 2, "last_log_term": 0}
    assert (rig.journal.term, rig.journal.voted_for) == (1, "a")


def test_the_shape_of_an_append(rig: Rig) -> None:
    """A new leader appends a no-op of one byte and sends it; a command travels as the bytes that it is."""
    rig.lead()
    shape = {"type", "term", "commit_index", "entries", "prevLogIdx", "prevLogTerm"}
    first = rig.take("append_entries")
    assert {peer for peer, _ in first} == {"b", "c"}
    assert first[0][1] == {
        "type": "append_entries",
        "term": 1,
        "commit_index": 2,
        "entries": [(b"\x01", 3, 1)],
        "prevLogIdx": 2,
        "prevLogTerm": 0,
    }
    data = b"\x01" + bytes(range(256))
    rig.core.propose(data, rig.now)
    (_, message), *_ = [sent for sent in rig.take("append_entries") if sent[1]["entries"]]
    assert set(message) == shape
    assert message["entries"] == [(data, 4, 1)]
    assert rig.journal.entry(4)[0] is data


def test_a_held_command_leaves_with_the_next(rig: Rig) -> None:
    """A command that is held is in the log at once, and nothing is sent before the next one, which both go with."""
    rig.lead()
    rig.take("append_entries")
    rig.core.hold(b"\x01a")
    rig.core.hold(b"\x01b")
    assert (rig.sent, rig.journal.last) == ([], 5)
    rig.core.propose(b"\x01c", rig.now)
    appends = [message for _, message in rig.take("append_entries")]
    assert [message["entries"] for message in appends] == [
        [(b"\x01a", 4, 1), (b"\x01b", 5, 1), (b"\x01c", 6, 1)]
    ] * 2


def test_the_shape_of_an_acknowledgement(rig: Rig) -> None:
    """A follower answers an append with the index it wants next, and stores what it was given."""
    rig.core.append("b", 5, 2, 0, [(b"\x01x", 3, 5)], 3, rig.now)
    assert rig.take("next_node_idx") == [
        ("b", {"type": "next_node_idx", "next_node_idx": 4, "reset": False, "success": True})
    ]
    assert (rig.core.term, rig.core.leader, rig.core.commit_index) == (5, "b", 3)
    rig.core.append("b", 5, 9, 5, [], 3, rig.now)
    assert rig.take("next_node_idx") == [
        ("b", {"type": "next_node_idx", "next_node_idx": 4, "reset": True, "success": False})
    ]


def test_the_shape_of_a_vote(rig: Rig) -> None:
    """A vote is given once in a term, to a log as good as ours, and recorded."""
    rig.core.vote_request("b", 4, 2, 0, rig.now)
    assert rig.take("response_vote") == [("b", {"type": "response_vote", "term": 4})]
    assert (rig.journal.term, rig.journal.voted_for) == (4, "b")
    rig.core.vote_request("c", 4, 9, 9, rig.now)
    assert rig.sent == []


def test_a_term_is_raised_without_a_vote(rig: Rig) -> None:
    """A vote request that no log can satisfy raises the term, leaves the vote free, and deposes a leader."""
    rig.lead()
    rig.sent.clear()
    rig.core.raise_term("c", 9, rig.now)
    assert (rig.core.term, rig.core.is_leader, rig.core.leader) == (9, False, None)
    assert (rig.journal.term, rig.journal.voted_for) == (9, None)
    assert rig.sent == []


def test_a_core_commits_by_quorum_in_its_own_term_only(rig: Rig) -> None:
    """An acknowledged entry commits; one of an earlier term waits for one of this term."""
    rig.core.append("b", 1, 2, 0, [(b"\x01old", 3, 1)], 2, rig.now)
    rig.sent.clear()
    rig.lead()
    rig.core.acknowledged("b", 4, rig.now)
    rig.core.tick(rig.now)
    assert rig.core.commit_index == 2
    rig.core.acknowledged("b", 5, rig.now)
    rig.core.tick(rig.now)
    assert rig.core.commit_index == rig.core.applied_index == 4


def test_nothing_that_was_replicated_is_unpickled(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is of the no-op type, so the core neither looks into it nor applies it: pickle is never called."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for module in (pysyncobj.pickle, pysyncobj.syncobj.pickle, pysyncobj.serializer.pickle):
        for name in ("loads", "load", "dumps", "dump"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, forbidden)
    evil = b"\x01cos\nsystem\n(S'true'\ntR."
    rig.lead()
    rig.core.propose(evil, rig.now)
    rig.core.acknowledged("b", rig.journal.last + 1, rig.now)
    rig.core.tick(rig.now)
    assert rig.core.applied_index == rig.journal.last == 4
    rig.core.append("c", 7, 4, 1, [(evil, 5, 7)], 5, rig.now)
    rig.core.tick(rig.now)
    assert rig.core.applied_index == 5


def test_a_command_of_another_type_is_never_proposed(rig: Rig) -> None:
    """The first byte decides whether the core would look inside."""
    rig.lead()
    with pytest.raises(AssertionError, match="unpickled"):
        rig.core.propose(b"\x00x", rig.now)


def test_a_leader_falls_back_when_no_quorum_answers(rig: Rig) -> None:
    """Check-quorum: a leader that nobody answered for the fallback time follows again, in the same term."""
    rig.lead()
    rig.core.tick(rig.now + 0.9)
    assert rig.core.is_leader
    rig.core.tick(rig.now + 1.1)
    assert (rig.core.is_leader, rig.core.leader, rig.core.term) == (False, None, 1)


def test_what_a_core_would_send_as_a_snapshot_is_empty(rig: Rig) -> None:
    """A follower whose entries are gone makes the core say `serialized`, with nothing read from any file."""
    for _ in range(6):
        rig.core.propose(b"\x01x", rig.now) if rig.core.is_leader else rig.lead()
    rig.core.acknowledged("b", rig.journal.last + 1, rig.now)
    rig.core.tick(rig.now)
    rig.journal.compact_to(rig.journal.last - 1)
    rig.sent.clear()
    rig.core.send_from("c", 3, rig.now)
    rig.core.tick(rig.now + 0.2)
    messages: list[dict[str, Any]] = [message for peer, message in rig.sent if peer == "c"]
    assert messages[0]["type"] == "append_entries"
    assert messages[0]["serialized"] == (b"", True, True)
    assert messages[-1]["prevLogIdx"] == rig.journal.base


def test_a_look_at_the_log_is_bounded(rig: Rig) -> None:
    """One slice of the log that the core takes is bounded, and it goes on until everything is applied."""
    entries = [(b"\x01x", 3 + i, 1) for i in range(3000)]
    rig.core.append("b", 1, 2, 0, entries, 3002, rig.now)
    rig.core.tick(rig.now)
    assert rig.core.applied_index == 3002


def test_members_are_visited_in_the_same_order_in_every_process(rig: Rig) -> None:
    """The core's sets of nodes do not depend on the hashes of names: a schedule can be replayed."""
    rig.lead()
    assert [peer for peer, _ in rig.take("append_entries")][:2] == ["b", "c"]
