"""The settings of a run: limits, what contradicts, shares of processes."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.bench.kinds import Distribution, Kind
from kv.bench.plan import (
    BATCH_OPS_MAX,
    CONCURRENCY_MAX,
    CONNECTIONS_MAX,
    COUNT_MAX,
    DURATION_S_MAX,
    KEYS_MAX,
    OUTSTANDING_MAX,
    PROCESSES_MAX,
    RATE_PER_S_MAX,
    SCAN_LENGTH_MAX,
    WINDOW_NS_MIN,
    WINDOWS_WANTED,
    Plan,
    Share,
    window_ns,
)
from kv.errors import InvalidArgument, Unimplemented
from kv.ids import KEY_BYTES_MAX, VALUE_BYTES_MAX

URL = "kv://127.0.0.1:7001"


def plan(kind: Kind = Kind.PUT, **settings: Any) -> Plan:  # noqa: ANN401 - whatever the plan takes
    """Return a plan with these settings."""
    return Plan(kind, URL, **settings)


@pytest.mark.parametrize(
    ("setting", "most"),
    [
        ("concurrency", CONCURRENCY_MAX),
        ("connections", CONNECTIONS_MAX),
        ("outstanding_max", OUTSTANDING_MAX),
        ("scan_length", SCAN_LENGTH_MAX),
        ("batch_ops", BATCH_OPS_MAX),
        ("count", COUNT_MAX),
        ("keys", KEYS_MAX),
        ("rate_per_s", RATE_PER_S_MAX),
        ("duration_s", DURATION_S_MAX),
        ("value_bytes", VALUE_BYTES_MAX),
        ("key_bytes", KEY_BYTES_MAX),
    ],
)
def test_limits_are_inclusive(setting: str, most: float) -> None:
    """The highest value of a setting is taken, one more is refused, and so is a negative one."""
    fits: dict[str, Any] = {setting: most}
    assert getattr(plan(**fits), setting) == most
    for bad in (most + 1, -1):
        too_much: dict[str, Any] = {setting: bad}
        with pytest.raises(InvalidArgument):
            plan(**too_much)


def test_processes_are_limited() -> None:
    """There are 1 to 64 processes."""
    assert plan(processes=PROCESSES_MAX).processes == PROCESSES_MAX
    for bad in (0, PROCESSES_MAX + 1):
        with pytest.raises(InvalidArgument, match="--processes"):
            plan(processes=bad)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"processes": 3, "concurrency": 2}, "--concurrency 2 is below --processes 3"),
        ({"processes": 3, "outstanding_max": 2}, "--outstanding-max 2 is below --processes 3"),
        ({"keys": 10**9, "key_bytes": 14}, "--key-size 14 is not 15"),
        ({"kind": Kind.SCAN, "keys": 10}, "--scan-length 100 is above --keys 10"),
        ({"kind": Kind.BATCH, "batch_ops": 10_000, "value_bytes": 10_000}, "--batch-size"),
        ({"warmup_s": -1.0}, "--warmup"),
        ({"duration_s": 0.0}, "--duration"),
        ({"rate_per_s": 0.0}, "--rate"),
        ({"rate_per_s": float("nan")}, "--rate"),
        ({"read_ratio": 1.5}, "--read-ratio"),
        ({"distribution": Distribution.ZIPFIAN, "theta": 0.0}, "theta"),
        ({"seed": -1}, "--seed"),
        ({"level": "sometimes"}, "there is no read level"),
        ({"prefer": "a b"}, "there is no preference"),
        ({"write_level": "most"}, "there is no write level"),
        ({"timeout_s": 0.0}, "timeout"),
        ({"url": "http://127.0.0.1"}, "cannot be used"),
    ],
)
def test_what_cannot_be_run_is_refused_before(settings: dict[str, Any], said: str) -> None:
    """A setting that makes no sense, alone or with another, is named in the error."""
    with pytest.raises(InvalidArgument, match=said):
        Plan(**{"kind": Kind.PUT, "url": URL, **settings})


def test_watches_are_refused_for_what_they_are() -> None:
    """The store has no watches; the error says so, and not that the option is wrong."""
    with pytest.raises(Unimplemented, match="no watches"):
        plan(Kind.WATCH)


def test_a_share_travels_as_json() -> None:
    """A process gets exactly the plan that was checked, and its number."""
    share = Share(plan(Kind.MIXED, rate_per_s=10.0, level="lease", processes=2), 1)
    assert Share.parse(json.loads(json.dumps(share.fields()))) == share


@given(
    processes=st.integers(1, 9),
    concurrency=st.integers(9, 500),
    count=st.integers(1, 500),
    keys=st.integers(1, 500),
)
def test_shares_are_the_plan(processes: int, concurrency: int, count: int, keys: int) -> None:
    """The shares of all processes add up to the plan: tasks, operations, rate, bounds, and each key once."""
    whole = plan(
        processes=processes, concurrency=concurrency, count=count, keys=keys, prefill=True, rate_per_s=30.0
    )
    shares = [Share(whole, index) for index in range(processes)]
    assert sum(share.tasks for share in shares) == concurrency
    assert min(share.tasks for share in shares) >= 1
    assert sum(share.count or 0 for share in shares) == count
    assert sum(share.outstanding_max for share in shares) == whole.outstanding_max
    assert sum(share.rate_per_s for share in shares) == pytest.approx(30.0)
    assert list(itertools.chain(*(share.prefill for share in shares))) == list(range(keys))
    assert len({share.seed for share in shares}) == processes


def test_without_prefill_no_key_is_written_before() -> None:
    """A share writes keys before only if the plan says so."""
    assert len(Share(plan(prefill=False), 0).prefill) == 0


@given(st.floats(0.01, DURATION_S_MAX))
def test_windows_end_with_the_measured_time(duration_s: float) -> None:
    """A power of two of windows is the duration, none is below the narrowest, and there are not too many."""
    width = window_ns(plan(duration_s=duration_s))
    parts = round(duration_s * 1e9 / width)
    assert 1 <= parts <= WINDOWS_WANTED
    assert parts & (parts - 1) == 0
    assert width * parts == pytest.approx(duration_s * 1e9, abs=parts)
    assert width >= WINDOW_NS_MIN or parts == 1
