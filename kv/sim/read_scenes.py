"""Scenes about reads and outcomes, for the stage of `kv.sim.scripted`: who may answer, and what was told before.

Here live scenes and nothing else. Each ends well with all rules in force.
"""

from __future__ import annotations

from typing import Any, Final

from kv.client.types import ReadLevel
from kv.sim.scripted import BEAT_S, KEY, QUIET_S, SETUP, Stage
from kv.v1 import kv_pb2

LEASES: Final = SETUP.but(sober_clocks=True)
"""Nobody's clock drifts, and leaders have leases."""
SHORT_S: Final = 0.01
"""A message and its turn take less where nothing is written."""
LATE: Final = b"late"
"""The value of the request whose outcome was asked for before it came."""
EVERYONE: Final = ("n1", "n2", "n3")


async def lease_and_candidate(stage: Stage) -> None:
    """A candidate was promised a vote just before the voter gave the old leader a lease."""
    await stage.elect("n1", "n2", "n3")
    await stage.commit("n1", "a")
    await _promised_a_vote_before_a_lease(stage)


async def lease_by_probes_only(stage: Stage) -> None:
    """The same, and all that the voter ever got from the leader are probes: it does not know who leads."""
    await stage.elect("n1", "n3")
    await stage.exchange("n1", "n3")
    await _promised_a_vote_before_a_lease(stage)


async def _promised_a_vote_before_a_lease(stage: Stage) -> None:
    await stage.step(QUIET_S)
    stage.drop()
    stage.stand("n3")
    await stage.step()
    await stage.deliver("n3", "n2")  # nobody was heard for long: n2 would vote for n3
    stage.read("n1", ReadLevel.LEASE)
    await stage.step()
    stage.receive("n1", "n2", [one for one in stage.take("n1", "n2") if one.HasField("probe")])
    await stage.step()
    await stage.deliver("n2", "n1")
    assert stage.reads == 1, "the leader was confirmed"
    await stage.deliver("n2", "n3")
    await stage.deliver("n3", "n2")
    await stage.deliver("n2", "n3")
    stage.put("n3", "b")
    for _ in range(18):  # a log that lacks entries is repaired with the next heartbeat
        stage.receive("n3", "n2", stage.take("n3", "n2"))
        await stage.step(SHORT_S)
        stage.receive("n2", "n3", stage.take("n2", "n3"))
    stage.read("n1", ReadLevel.LEASE)
    await stage.step()


async def late_answer(stage: Stage) -> None:
    """A leader's answer to a follower waits on a slow link until the follower has given up, and asks something else."""
    await stage.elect("n1", "n2", "n3")
    await stage.commit("n1", "a")
    stage.read("n2", ReadLevel.LINEARIZABLE, local=True)
    await stage.step()
    await stage.deliver("n2", "n1")
    await stage.exchange("n1", "n3", rounds=2)
    slow = [one for one in stage.take("n1", "n2") if one.HasField("read_index_reply")]
    assert slow, "the leader has answered"
    for _ in range(6):  # an election timeout
        await stage.step(BEAT_S)
        stage.receive("n1", "n2", [one for one in stage.take("n1", "n2") if one.HasField("append")])
    stage.take("n2", "n1")
    stage.put("n1", "b")
    await stage.step()
    await stage.exchange("n1", "n3", rounds=2)
    stage.read("n2", ReadLevel.LINEARIZABLE, local=True)
    await stage.step()
    stage.receive("n1", "n2", slow)
    await stage.step()


async def answer_before_its_entries(stage: Stage) -> None:
    """A follower is told up to where it must read, and has not got the entries up to there."""
    await stage.elect("n1", "n2", "n3")
    await stage.commit("n1", "a")
    stage.put("n1", "b")
    await stage.step()
    await stage.exchange("n1", "n3", rounds=2)
    stage.drop()
    stage.read("n2", ReadLevel.LINEARIZABLE, local=True)
    await stage.step()
    await stage.deliver("n2", "n1")
    await stage.exchange("n1", "n3", rounds=2)
    stage.receive("n1", "n2", [one for one in stage.take("n1", "n2") if one.HasField("read_index_reply")])
    await stage.step()


async def session_behind(stage: Stage) -> None:
    """A client reads by SESSION at a follower that has not got what the client wrote."""
    await stage.elect("n1", "n2", "n3")
    await stage.commit("n1", "a")
    stage.put("n1", "b")
    await stage.step()
    await stage.exchange("n1", "n3", rounds=2)
    stage.read("n2", ReadLevel.SESSION, after=stage.group("n1").machine.applied_index)
    await stage.step()


# ------------------------------------------------------------ outcomes


async def _asked_too_early(stage: Stage) -> int:
    """Open a session, ask what became of its first request, and be told that it never was applied."""
    session = 0

    def opened(response: kv_pb2.BatchResponse) -> None:
        nonlocal session
        session = response.results[0].open_session.session

    def told(response: kv_pb2.BatchResponse) -> None:
        asked = response.results[0].outcome.outcome
        assert asked == kv_pb2.WRITE_OUTCOME_NOT_APPLIED
        stage.world.promises.decided(begun, [LATE], applied=False)

    stage.ask("n1", _one(open_session=kv_pb2.OpenSessionOperation()), opened)
    await stage.settle(*EVERYONE)
    begun = stage.world.promises.begin("script")
    outcome = kv_pb2.OutcomeOperation(session=session, sequence=1)
    stage.ask("n1", _one(outcome=outcome), told)
    return session


def _arrives(stage: Stage, name: str, session: int) -> None:
    """The request that was asked about comes to a leader after all."""
    batch = _one(put=kv_pb2.PutOperation(key=KEY, value=LATE))
    batch.request_id.session, batch.request_id.sequence = session, 1
    stage.ask(name, batch, lambda _: None)


def _one(**operation: Any) -> kv_pb2.BatchRequest:  # noqa: ANN401 - passed on
    return kv_pb2.BatchRequest(operations=[kv_pb2.Operation(**operation)])


async def late_request(stage: Stage) -> None:
    """A request comes after an outcome query was told that it was not applied."""
    await stage.elect("n1", "n2", "n3")
    session = await _asked_too_early(stage)
    await stage.settle(*EVERYONE)
    _arrives(stage, "n1", session)
    await stage.settle(*EVERYONE)
    stage.checkpoint(*EVERYONE)


async def late_request_after_a_crash(stage: Stage) -> None:
    """The same, and between them all replicas make a checkpoint, and die."""
    await stage.elect("n1", "n2", "n3")
    session = await _asked_too_early(stage)
    await stage.settle(*EVERYONE)
    stage.checkpoint(*EVERYONE)
    for name in EVERYONE:
        await stage.crash(name)
    await stage.step(QUIET_S)
    await stage.elect("n2", "n1", "n3")
    await stage.settle(*EVERYONE)
    _arrives(stage, "n2", session)
    await stage.settle(*EVERYONE)
    stage.checkpoint(*EVERYONE)


async def late_request_after_a_snapshot(stage: Stage) -> None:
    """The same, and it comes to a leader that got its state as a snapshot."""
    await stage.elect("n1", "n2")
    session = await _asked_too_early(stage)
    await stage.settle("n1", "n2")
    stage.compact("n1", stage.group("n1").machine.applied_index)
    stage.drop()
    for _ in range(8):
        await stage.settle("n1", "n3")
    assert stage.group("n3").install.snapshots_installed
    await stage.elect("n3", "n2")
    await stage.settle("n2", "n3")
    _arrives(stage, "n3", session)
    await stage.settle("n2", "n3")
    stage.checkpoint("n2", "n3")
