"""Proposals whose leader was deposed or whose place in the log was overwritten: which of them happened."""

from __future__ import annotations

from kv.errors import KVError, NotLeader
from kv.raft.api import Entry
from tests.partition.tools import Bench, batch, command, get, partition_config, put, results


def test_deposed_before_propose(bench: Bench) -> None:
    """What waits when leadership is lost did not happen: NOT_LEADER at once, and nothing is proposed."""
    write, read = bench.submit(batch(put(b"k", b"v"))), bench.submit(batch(get(b"k")))
    bench.group.depose()
    assert [type(answer) for answer in (*write, *read)] == [NotLeader, NotLeader]
    assert bench.group.log == []


def test_deposed_after_propose(bench: Bench) -> None:
    """A proposed write keeps waiting for its index: its own entry answers it, also after the leader changed."""
    answers = bench.submit(batch(put(b"k", b"v")))
    bench.replica.pump()
    bench.group.depose()
    assert answers == []
    bench.group.commit()
    assert results(answers[0])[0].put.revision == 3


def test_overwritten_proposal(bench: Bench) -> None:
    """An entry of another term at a proposal's index proves that the proposal never happens: NOT_LEADER."""
    answers = bench.submit(batch(put(b"k", b"v")))
    bench.replica.pump()
    bench.group.depose()
    bench.group.log[0] = (command(batch(put(b"other", b"x"))), 3, 2)
    bench.group.commit()
    assert isinstance(answers[0], NotLeader)
    assert bench.store.get(b"k") is None
    assert bench.store.get(b"other") is not None


def overwrite_own_proposal(bench: Bench) -> tuple[Entry, list[bytes | KVError], list[bytes | KVError]]:
    """Propose, lose leadership and the entry, lead again, and propose at the same index."""
    lost = bench.submit(batch(put(b"k", b"lost")))
    bench.replica.pump()
    (entry,) = bench.group.log
    bench.group.depose()
    bench.group.log.clear()
    bench.group.elect()
    won = bench.submit(batch(put(b"k", b"won")))
    bench.replica.pump()
    assert (lost, won) == ([], []), "neither is decided: the first may live on in other logs"
    return entry, lost, won


def test_overwritten_by_own_proposal(bench: Bench) -> None:
    """Of two proposals at one index the one that is committed is answered, the other never happened."""
    _, lost, won = overwrite_own_proposal(bench)
    bench.group.commit()
    assert isinstance(lost[0], NotLeader)
    assert results(won[0])[0].put.version == 1
    assert len(lost) == len(won) == 1


def test_overwritten_proposal_that_wins_after_all(bench: Bench) -> None:
    """A proposal that we overwrote may be committed by a leader that still has it: it happened."""
    entry, lost, won = overwrite_own_proposal(bench)
    bench.group.depose()
    bench.group.log[:] = [entry]
    bench.group.commit()
    assert results(lost[0])[0].put.version == 1
    assert isinstance(won[0], NotLeader)


def test_undecided_proposals_of_an_old_term_do_not_block(bench: Bench) -> None:
    """A replica that leads again proposes, however many proposals of its earlier term are undecided."""
    for number in range(partition_config().commands_in_flight_max):
        bench.submit(batch(put(b"k%d" % number, b"v")))
        bench.replica.pump()
    bench.group.depose()
    bench.group.log.clear()
    bench.group.elect()
    won = bench.submit(batch(put(b"k", b"v")))
    bench.group.turn()
    assert results(won[0])[0].put.version == 1
