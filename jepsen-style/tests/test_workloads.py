"""Workloads against a store that is right, and one that is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from random import Random

import pytest

from kv_jepsen.history import History, Value
from kv_jepsen.judge import WORKLOADS as JUDGED
from kv_jepsen.judge import judge
from kv_jepsen.report import Run
from kv_jepsen.runner import Plan, Recorder, _call, campaign
from kv_jepsen.schedule import fault
from kv_jepsen.targets import Answer, Refused, Unknown
from kv_jepsen.targets.memory import MemoryClient, MemoryTarget, NotedCuts
from kv_jepsen.workloads import KEY_CALLS, WORKLOADS, Register, Step, Workload, level_of

CALLS = 2 * KEY_CALLS


async def _history(workload: Workload, client: MemoryClient, processes: int = 4) -> History:
    """Some hundred calls, one after the other, and what comes last."""
    recorder = Recorder(StringIO())
    rng = Random(3)
    await workload.prepare(client)
    for number in range(CALLS):
        process = number % processes
        await _call(process, client, workload, recorder, workload.next(process, rng))
    for step in workload.last():
        assert await _call(0, client, workload, recorder, step)
    return History(recorder.ops)


class Forgetting(MemoryClient):
    """Every so often an acknowledged write is not there."""

    writes = 0

    async def swap(self, expected: Mapping[str, str | None], new: Mapping[str, str]) -> Answer:
        self.writes += 1
        return await super().swap(expected, {} if self.writes % 20 == 0 else new)

    async def write(self, key: str, value: str) -> Answer:
        self.writes += 1
        before = self.held.get(key)
        answer = await super().write(key, value)
        if self.writes % 20 == 0:
            self.held.pop(key)
            if before is not None:
                self.held[key] = before
        return answer


@pytest.mark.parametrize("name", WORKLOADS)
async def test_a_right_store_is_valid(name: str) -> None:
    """The history of each workload against a right store is judged valid, by the checkers that it names."""
    workload = WORKLOADS[name](4)
    run = Run("r", "", await _history(workload, MemoryClient({})))
    assert judge(run, workload.judged_as).valid is True


@pytest.mark.parametrize("name", sorted(set(WORKLOADS) - {"bank"}))
async def test_a_wrong_store_is_invalid(name: str) -> None:
    """Each workload notices a store that forgets one acknowledged write of twenty."""
    workload = WORKLOADS[name](4)
    run = Run("r", "", await _history(workload, Forgetting({})))
    assert judge(run, workload.judged_as).valid is False


class Torn(MemoryClient):
    """Every so often only half of a swap is done."""

    swaps = 0

    async def swap(self, expected: Mapping[str, str | None], new: Mapping[str, str]) -> Answer:
        self.swaps += 1
        return await super().swap(expected, dict(list(new.items())[:1]) if self.swaps % 20 == 0 else new)


async def test_a_torn_transfer_is_invalid() -> None:
    """The bank notices half a transfer."""
    workload = WORKLOADS["bank"](4)
    run = Run("r", "", await _history(workload, Torn({})))
    assert judge(run, "bank").valid is False


def test_keys_are_replaced_and_used_through_every_node() -> None:
    """A key has a bounded number of calls, and its clients prefer different nodes (process modulo three)."""
    workload, rng = Register(9), Random(1)
    users: dict[Value, set[int]] = {}
    calls: dict[Value, int] = {}
    for number in range(9 * KEY_CALLS):
        step = workload.next(number % 9, rng)
        users.setdefault(step.key, set()).add(number % 9 % 3)
        calls[step.key] = calls.get(step.key, 0) + 1
    assert all(nodes == {0, 1, 2} for nodes in users.values())
    assert max(calls.values()) == KEY_CALLS
    assert len(calls) == 9


def test_levels_are_chosen_among_those_given() -> None:
    """Reads take the levels that were asked for, and a bound is in the evidence and in what the client is asked."""
    workload, rng = Register(3, ("stale", "bounded:500ms")), Random(1)
    reads = [step for step in (workload.next(0, rng) for _ in range(100)) if step.f == "read"]
    assert {level_of(step) for step in reads} == {"stale", "bounded:500ms"}
    assert {step.extra.get("bound_ms") for step in reads if step.extra["level"] == "bounded"} == {500}


class Failing(MemoryClient):
    """Fails as it is told."""

    def __init__(self, error: Exception) -> None:
        super().__init__({})
        self.error = error

    async def read(self, key: str, level: str) -> Answer:
        raise self.error


@pytest.mark.parametrize(
    ("error", "recorded"),
    [(Refused("no"), "fail"), (Unknown("?"), "info"), (OSError("gone"), "info"), (TimeoutError(), "info")],
)
async def test_outcomes_are_recorded(error: Exception, recorded: str) -> None:
    """A refusal is recorded as a failure, everything that a client may raise else as unknown."""
    recorder = Recorder(StringIO())
    workload = Register(1)
    assert not await _call(0, Failing(error), workload, recorder, Step("read", "k", None, {"level": "stale"}))
    assert [op.type.value for op in recorder.ops] == ["invoke", recorded]
    assert len(recorder.file.getvalue().splitlines()) == 2  # type: ignore[attr-defined]


async def test_a_campaign_undoes_what_it_did(tmp_path: Path) -> None:
    """A campaign starts, waits, does the faults, calms, waits again, reads every key, and stops; the file has it all."""
    target, cuts = MemoryTarget(), NotedCuts()
    plan = Plan(2, 0.3, 200.0, 1, [fault(0.05, "crash", "n2"), fault(0.1, "partition", "n1/*")])
    path = tmp_path / "history.jsonl"
    recorded = await campaign(plan, target, cuts, Register(2), path)
    history = recorded.history
    assert recorded.problems == ()
    names = [one[0] for one in target.done]
    assert names == ["start", "ready", "kill", "relieve", "resume", "start", "ready", "stop"]
    assert cuts.done[-2:] == [("heal",), ("close",)]
    assert len(path.read_text().splitlines()) == len(history) > 10
    assert [note.f for note in history.notes] == ["crash", "partition", "calm"]


class Lasting(MemoryTarget):
    """It never comes back, and a node of it ended."""

    async def ready(self) -> None:
        await super().ready()
        if len(self.done) > 3:
            raise TimeoutError

    def ended(self) -> list[str]:
        return ["n3 ended by itself with status 70"]


async def test_what_the_harness_sees_is_told(tmp_path: Path) -> None:
    """A node that ended by itself, and a cluster that does not come back, are problems of the run; its history stays."""
    plan = Plan(1, 0.1, 100.0, 1, ())
    recorded = await campaign(plan, Lasting(), NotedCuts(), Register(1), tmp_path / "h")
    assert [problem[:11] for problem in recorded.problems] == ["n3 ended by", "the cluster"]
    assert recorded.history.calls


class Broken(Register):
    """A workload with a mistake in it."""

    async def apply(self, client: object, step: Step) -> Answer:
        raise KeyError("a mistake")


async def test_a_mistake_ends_the_campaign_and_its_nodes(tmp_path: Path) -> None:
    """An exception that is no outcome ends the campaign as itself, and the cluster is stopped all the same."""
    target, cuts = MemoryTarget(), NotedCuts()
    with pytest.raises(KeyError, match="a mistake"):
        await campaign(Plan(2, 5.0, 200.0, 1, ()), target, cuts, Broken(2), tmp_path / "h")
    assert target.done[-1] == ("stop",)
    assert cuts.done[-1] == ("close",)


async def test_a_cancelled_campaign_stops_its_nodes(tmp_path: Path) -> None:
    """Ctrl-C, which cancels, leaves no node running and keeps the history so far."""
    target, cuts = MemoryTarget(), NotedCuts()
    path = tmp_path / "history.jsonl"
    running = asyncio.create_task(campaign(Plan(2, 60.0, 200.0, 1, ()), target, cuts, Register(2), path))
    async with asyncio.timeout(10):
        while not path.exists() or not path.read_text():  # noqa: ASYNC110 - a file's growth is no event
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert target.done[-1] == ("stop",)
    assert path.read_text()


def test_every_workload_is_judged_by_one_that_exists() -> None:
    """No workload records what nobody judges."""
    names: Sequence[str] = [one.judged_as for one in WORKLOADS.values()]
    assert set(names) <= set(JUDGED)
