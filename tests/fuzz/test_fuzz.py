"""The fuzz targets for a moment, the inputs that once broke something, and the fuzzer itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.engine import INPUT_BYTES_MAX, Finding, Hang, Target, explore, plain, run_one, shrink
from tests.fuzz.mutate import mutate_bytes, mutate_message, mutate_text, parse, serialize, without_one_field
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import watched

SMOKE_S = 3.0
"""Of all targets together. `make fuzz` takes its time."""


REGRESSIONS = [
    line.split(" | ")
    for line in Path(__file__).with_name("regressions.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Refusing thousands of inputs is no news."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    yield
    structlog.configure(**before)


def _drop(*_: object) -> structlog.typing.EventDict:
    raise structlog.DropEvent


@pytest.mark.parametrize("name", TARGETS)
def test_smoke(name: str, tmp_path: Path, seed: int) -> None:
    """Every target survives its valid inputs and some mutations of them."""
    target = TARGETS[name]
    with target.make(tmp_path) as check:
        end = time.monotonic() + SMOKE_S / len(TARGETS)
        report = explore(target, watched(check), Random(seed), lambda n: n == 0 or time.monotonic() < end)
    assert not report.findings, "\n".join(finding.told() for finding in report.findings.values())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_valid(name: str, tmp_path: Path) -> None:
    """A target's seeds reach what it is there for: at least one is not refused."""
    target = TARGETS[name]
    with target.make(tmp_path) as check:
        outcomes = [run_one(name, check, data) for data in target.seeds()[:10]]
    assert not any(isinstance(outcome, Finding) for outcome in outcomes), outcomes
    assert not all(str(outcome).startswith("refused") for outcome in outcomes), outcomes


@pytest.mark.parametrize(("name", "what", "data"), REGRESSIONS, ids=[what for _, what, _ in REGRESSIONS])
def test_regressions(name: str, what: str, data: str, tmp_path: Path) -> None:
    """An input that once broke something does not any more."""
    with TARGETS[name].make(tmp_path) as check:
        result = run_one(name, watched(check), bytes.fromhex(data))
    assert not isinstance(result, Finding), f"{what}\n{result.told()}"


# --- the fuzzer itself -------------------------------------------------------------------------------------


def fake(check: Callable[[bytes], str]) -> Target:
    """A target of one seed."""
    return Target("fake", "", lambda: [b"seed of some length"], plain(check), mutate_bytes)


def run_fake(check: Callable[[bytes], str], executions: int, seed: int = 1) -> list[bytes]:
    """The inputs that the check got."""
    seen: list[bytes] = []

    def noted(data: bytes) -> str:
        seen.append(data)
        return check(data)

    explore(fake(noted), noted, Random(seed), lambda n: n < executions)
    return seen


def test_a_seed_gives_the_same_run() -> None:
    """The same seed gives the same inputs, another gives others; the valid inputs come first."""
    first = run_fake(lambda data: str(len(data)), 300)
    assert first == run_fake(lambda data: str(len(data)), 300)
    assert first != run_fake(lambda data: str(len(data)), 300, seed=2)
    assert first[0] == b"seed of some length"


def test_a_failure_is_found_once_with_its_input() -> None:
    """A defect that shows for some inputs is one finding, and its input fails again."""

    def check(data: bytes) -> str:
        assert b"\0" not in data, "no zero was expected"
        return "fine"

    report = explore(fake(check), check, Random(3), lambda n: n < 500)
    (finding,) = report.findings.values()
    assert b"\0" in finding.data
    assert isinstance(run_one("fake", check, finding.data), Finding)
    assert finding.data.hex() in finding.told()


def test_a_finding_is_made_short() -> None:
    """What does not matter to a finding is left out of its input, fields of a message too."""

    def check(data: bytes) -> str:
        assert b"\x7f" not in data, "no such byte was expected"
        return "fine"

    long = Finding("fake", b"much before \x7f and after", "AssertionError at x", "")
    found = run_one("fake", check, long.data)
    assert isinstance(found, Finding)
    assert shrink(found, check).data == b"\x7f"

    def no_deep_seven(data: bytes) -> str:
        fields = parse(data)
        assert fields != parse(bytes.fromhex("0a020807")), "no seven was expected"
        return "fine"

    fields = bytes.fromhex("0a02080712020801")
    whole = run_one("fake", no_deep_seven, fields[:4])
    assert isinstance(whole, Finding)
    assert shrink(whole, no_deep_seven).data == fields[:4]
    assert fields[:4] in list(without_one_field(fields))


def test_new_outcomes_lead_deeper() -> None:
    """An input with a new outcome is mutated further: a prefix is found byte by byte."""

    def check(data: bytes) -> str:
        wanted = b"\x80\x7f\xff"
        return str(next((i for i, byte in enumerate(wanted) if data[i : i + 1] != bytes([byte])), 3))

    report = explore(fake(check), check, Random(4), lambda n: n < 20_000)
    assert set(report.outcomes) == {"0", "1", "2", "3"}


def test_outcomes_and_corpus_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many outcomes there are, only so many are told apart."""
    monkeypatch.setattr("tests.fuzz.engine.OUTCOMES_MAX", 10)
    report = explore(fake(repr), repr, Random(5), lambda n: n < 500)
    assert len(report.outcomes) == 11
    assert sum(report.outcomes.values()) == 500


def test_what_never_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that takes too long is a finding."""
    monkeypatch.setattr("tests.fuzz.watch.HANG_S", 0.05)

    def check(_: bytes) -> str:
        while True:
            pass

    result = run_one("fake", watched(check), b"")
    assert isinstance(result, Finding)
    assert Hang.__name__ in result.where


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 1 << 32))
def test_mutations_take_anything(data: bytes, other: bytes, seed: int) -> None:
    """Each mutation takes any bytes, also none, and grows them by a bounded amount."""
    for mutate in (mutate_bytes, mutate_message, mutate_text):
        assert len(mutate(data, other, Random(seed))) < INPUT_BYTES_MAX
        assert mutate(data, other, Random(seed)) == mutate(data, other, Random(seed))


@pytest.mark.parametrize("name", ["raft", "commands", "pipeline", "cluster-map"])
def test_fields_of_messages(name: str) -> None:
    """What parses as fields is the same bytes when it is serialized again."""
    for data in TARGETS[name].seeds():
        fields = parse(data)
        assert fields is not None
        assert serialize(fields) == data
