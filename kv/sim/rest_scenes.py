"""Scenes about groups at rest and the beats that stand for their heartbeats, for the stage of `kv.sim.scripted`.

Here live scenes and nothing else. Each ends well with all rules in force.
"""

from __future__ import annotations

from typing import Final

from kv.client.types import ReadLevel
from kv.sim.read_scenes import LEASES
from kv.sim.scripted import QUIET_S, Stage

RESTS: Final = LEASES
"""Nobody's clock drifts, and leaders have leases."""
SHORT_S: Final = 0.01
"""A message and its turn take less where nothing is written."""
WHILE_S: Final = 0.8
"""Longer than a leader that is not heard is taken for alive."""
SOON_S: Final = 3.0
"""By then an idle group rests."""
EVERYONE: Final = ("n1", "n2", "n3")


async def candidate_at_rest(stage: Stage) -> None:
    """A candidate stands though its group rests; it was once promised a vote by a member that rests too."""
    await stage.elect("n1", *EVERYONE[1:])
    await stage.commit("n1", "a")
    await stage.step(QUIET_S)
    stage.drop()
    stage.stand("n3")
    await stage.step()
    await stage.deliver("n3", "n2")
    promised = stage.take("n2", "n3")
    stage.drop()
    await _rest(stage, *EVERYONE)
    await _beats(stage, WHILE_S)
    stage.stand("n3")
    await stage.step(SHORT_S)
    stage.drop()
    stage.receive("n2", "n3", promised)
    await stage.step()
    await _takes_over(stage, "n3", "n2")
    stage.read("n1", ReadLevel.LEASE)
    await stage.step()


async def candidate_among_sleepers(stage: Stage) -> None:
    """A member stands while all that its group gets of its leader are beats."""
    await stage.elect("n1", *EVERYONE[1:])
    await stage.commit("n1", "a")
    await _rest(stage, "n1")
    await _beats(stage, WHILE_S)
    stage.stand("n3")
    await stage.step(SHORT_S)
    await _takes_over(stage, "n3", "n2")
    stage.read("n1", ReadLevel.LEASE)
    await stage.step()


async def deposed_goes_to_rest(stage: Stage) -> None:
    """A leader that does not know yet of its successor puts its group to rest, and is asked before anyone answers."""
    await _deposed(stage)
    await _until_at_rest(stage, "n1")
    stage.read("n1", ReadLevel.LEASE)
    await stage.step()


async def deposed_and_a_sleeper(stage: Stage) -> None:
    """The same, and a member that follows the successor gets a beat of the one before, with its line."""
    await _deposed(stage)
    stage.hold_beats()
    await _until_at_rest(stage, "n1")
    stage.drop()
    for _ in range(15):
        stage.receive("n1", "n2", stage.take("n1", "n2", beats=True))
        await stage.step(SHORT_S)
        stage.receive("n2", "n1", stage.take("n2", "n1", beats=True))
    stage.read("n1", ReadLevel.LEASE)
    await stage.step()


async def _deposed(stage: Stage) -> None:
    """n3 leads, and has committed more with n2's help; n1 led before, all that it wrote is everywhere, and hears nothing."""
    await stage.elect("n1", *EVERYONE[1:])
    await stage.commit("n1", "a")
    await stage.elect("n3", "n2")
    assert stage.group("n3").is_leader
    await _commits(stage, "n3", "n2")
    stage.drop()
    stage.allow_rest("n1", "n2", "n3")


async def _takes_over(stage: Stage, candidate: str, voter: str) -> None:
    """Whatever these two tell each other arrives; if the one is elected it commits something."""
    for _ in range(4):
        stage.receive(candidate, voter, stage.take(candidate, voter))
        await stage.step(SHORT_S)
        stage.receive(voter, candidate, stage.take(voter, candidate))
        await stage.step(SHORT_S)
    if stage.group(candidate).is_leader:
        await _commits(stage, candidate, voter)


async def _commits(stage: Stage, leader: str, member: str) -> None:
    stage.put(leader, "b")
    for _ in range(14):  # a log that lacks entries is repaired with the next heartbeat
        stage.receive(leader, member, stage.take(leader, member))
        await stage.step(SHORT_S)
        stage.receive(member, leader, stage.take(member, leader))


async def _rest(stage: Stage, *names: str) -> None:
    """Let the group go to rest at these nodes."""
    stage.allow_rest(*EVERYONE)
    stage.hold_beats()
    for _ in range(round(SOON_S / SHORT_S)):
        await stage.exchange(*EVERYONE, rounds=1)
        if all(stage.group(name).rest.resting for name in names):
            return
    raise AssertionError(f"the group does not rest at {', '.join(names)}")


async def _beats(stage: Stage, seconds: float) -> None:
    """Let time pass in which beats, and nothing else, arrive."""
    for _ in range(round(seconds / SHORT_S)):
        for source in EVERYONE:
            for target in EVERYONE:
                stage.receive(source, target, stage.take(source, target, beats=True))
        await stage.step(SHORT_S)


async def _until_at_rest(stage: Stage, name: str) -> None:
    """Let time pass until a leader puts its group to rest; what is said of the group does not arrive."""
    for _ in range(round(SOON_S / SHORT_S)):
        if stage.group(name).rest.resting:
            return
        for source in EVERYONE:
            for target in EVERYONE:
                stage.receive(source, target, stage.take(source, target, beats=True))
        await stage.step(SHORT_S)
    raise AssertionError(f"{name} does not put its group to rest")
