"""The simulator notices missing rules: mutants that are quick to catch, and the same schedules without them."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import fields, replace

import pytest

from kv.cli import sim_mutants
from kv.client.session_token import Seen
from kv.errors import InvalidArgument
from kv.raft import wal_format
from kv.raft.guard import Rules
from kv.sim.hunt import CLOSING, Catch, Row, document, hunt, run
from kv.sim.mutants import MUTANTS, mutant
from kv.sim.mutation import Mutation
from kv.sim.properties import PROPERTIES
from kv.sim.wire import SimStream

QUICK = (
    "ack-before-sync",
    "count-unsynced-self",
    "forget-hard-state",
    "forget-vote",
    "truncate-on-match",
    "trust-stored-commit",
    "compact-above-checkpoint",
    "reply-when-proposed",
    "vote-for-any-log",
    "truncation-not-logged",
    "lease-too-long",
    "lease-unconfirmed",
    "session-forgets",
    "any-proof-is-young",
    "proof-dated-by-its-answer",
    "pages-of-now",
    "all-means-quorum",
)
SEEDS = range(1, 31)


SCENES = [one for one in MUTANTS if one.hunt.scene is not None]
SCHEDULES = [one for one in MUTANTS if one.hunt.schedule is not None]


def healthy(one: Mutation) -> Mutation:
    """The circumstances of a mutant, and nothing left out."""
    return Mutation(one.name, one.breaks, one.expected, one.kind, one.hunt)


def name_of(one: Mutation) -> str:
    """The parameter's name in the list of tests."""
    return one.name


@pytest.mark.parametrize("name", [*QUICK, *(one.name for one in SCENES)])
def test_a_mutant_is_caught_within_seconds(name: str) -> None:
    """Each mutant that has a scene, and each that is quick to find, violates a property that was expected of it."""
    one = mutant(name)
    caught = hunt(one, SEEDS, wall=time.monotonic, budget_s=60)
    assert caught.property in one.expected, caught


@pytest.mark.parametrize(
    "one", [*SCENES, *(pytest.param(one, marks=pytest.mark.slow) for one in SCHEDULES)], ids=name_of
)
def test_a_script_ends_well_with_all_rules_in_force(one: Mutation) -> None:
    """The schedules that catch mutants are safe for the code that ships, and it converges after them."""
    report = run(healthy(one), 1)
    assert report.violation is None, report.violation
    assert report.commits > 0


def test_a_returning_member_disturbs_nobody_unless_it_does_not_ask_first() -> None:
    """Without pre-vote a member that was cut off deposes the leader when it is back; with it, it does not."""
    one = mutant("no-pre-vote")
    violation = run(one, 1).violation
    assert violation is not None
    assert violation.name == "undisturbed-leader"
    assert run(healthy(one), 1).violation is None


def test_there_are_enough_mutants_and_each_is_described() -> None:
    """At least twenty, with unique names, a sentence, and properties that exist."""
    names = [one.name for one in MUTANTS]
    assert len(set(names)) == len(names) >= 20
    for one in MUTANTS:
        assert one.breaks
        assert one.expected
        assert set(one.expected) <= PROPERTIES.keys(), one.name


def test_each_rule_of_the_guard_has_a_mutant_or_a_reason() -> None:
    """A switch of `Rules` is either a mutant's or named, with the argument, on the page about them."""
    switched = {
        field.name for field in fields(Rules) for one in MUTANTS if not getattr(one.rules, field.name)
    }
    replaced = {"durable_before_sent", "commit_from_snapshot"}
    """Mutants of finer grain, or that the core's own assertion would hide, stand for these."""
    for field in fields(Rules):
        assert field.name in switched | replaced or f"`{field.name}`" in CLOSING, field.name


@pytest.mark.parametrize("one", [one for one in MUTANTS if one.around is not nullcontext], ids=name_of)
def test_what_a_mutant_changes_in_a_module_is_put_back(one: Mutation) -> None:
    """After the run of a mutant the modules are what they were."""

    def now() -> list[object]:
        return [wal_format.decode_frame, SimStream.send, SimStream.__dict__["_end"], Seen.__dict__["note"]]

    before = now()
    with one.around():
        assert now() != before
    assert now() == before


def test_a_run_of_a_mutant_is_the_same_each_time() -> None:
    """A seed of a scene gives the same events and the same violation, so that a catch can be replayed."""
    first, second = (run(mutant("stale-acks"), 3) for _ in range(2))
    assert first.digest == second.digest
    assert first.violation == second.violation


def test_a_hunt_ends_when_its_time_is_over() -> None:
    """What is healthy is not caught, and the budget ends the hunt, within a run too."""
    clock = iter(range(1000))
    caught = hunt(healthy(mutant("follower-reads")), SEEDS, wall=lambda: float(next(clock)), budget_s=8)
    assert (caught.property, caught.seeds) == (None, 1)


def test_an_unknown_mutant_is_refused() -> None:
    """The error says where the names are."""
    with pytest.raises(InvalidArgument, match="--list-mutants"):
        mutant("no-such-thing")


def test_the_list_has_one_mutant_a_line_name_first(capsys: pytest.CaptureFixture[str]) -> None:
    """`kv sim --list-mutants` can be cut at the first blank."""
    assert sim_mutants.list_mutants(as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [one.name for one in MUTANTS]


@pytest.mark.parametrize(("name", "status"), [("votes-twice", 0), ("healthy", 1)])
def test_the_status_says_whether_it_was_caught(
    name: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kv sim --mutant NAME` ends with 0 if the simulator noticed, with 1 if it did not."""
    known = replace(healthy(mutant("votes-twice")), name="healthy")
    monkeypatch.setattr(
        sim_mutants, "mutant", lambda wanted: known if wanted == "healthy" else mutant(wanted)
    )
    assert sim_mutants.run_mutant(name, seed=1, budget_s=60, as_json=False) == status
    assert capsys.readouterr().out.startswith(f"{name}: {'caught' if status == 0 else 'not caught'}")


def test_the_table_tells_medians_and_what_was_missed() -> None:
    """A row names every property that caught the mutant, how often it was caught, and the medians."""
    one = mutant("stale-acks")
    catches = [
        Catch(one.name, "durable-quorum", "", 1, 1, 2.0),
        Catch(one.name, "linearizable", "", 3, 3, 4.0),
        Catch(one.name, None, "", 9, 9, 6.0),
    ]
    text = "\n".join(document([Row(one, catches)], 3))
    cells = f"| `stale-acks` | scripted | {one.breaks} | durable-quorum, linearizable | 2 of 3 | 3 | 4.0 |"
    assert cells in text
