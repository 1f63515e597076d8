"""The ledger of the tour: that the check at its end can fail, and when."""

from __future__ import annotations

import asyncio

import pytest

from kv.cli.tour import Ledger, Tour, TourFailed, _writers, figures
from kv.client import AsyncClient
from kv.errors import KVError


def acknowledged(ledger: Ledger, key: bytes, partition: int, now: float) -> None:
    """Send and acknowledge one write."""
    ledger.acknowledge(key, ledger.send(key), partition, now)


def test_a_lost_acknowledged_write_is_found() -> None:
    """A key must hold at least its last acknowledged number and at most the last sent one."""
    ledger = Ledger()
    for _ in range(3):
        acknowledged(ledger, b"a", 1, 0.0)
    ledger.send(b"a")
    ledger.send(b"b")
    assert ledger.wrong({b"a": 3}) == []
    assert ledger.wrong({b"a": 4, b"b": 1}) == []
    assert ledger.wrong({b"a": 2}) == ["a: holds 2, acknowledged 3, sent 4"]
    assert ledger.wrong({}) == ["a: holds 0, acknowledged 3, sent 4"]
    assert ledger.wrong({b"a": 5}) == ["a: holds 5, acknowledged 3, sent 4"]


def test_pauses_are_counted_for_each_partition() -> None:
    """The failover pause is the longest time without an acknowledgement in one partition, from before the kill."""
    ledger = Ledger()
    acknowledged(ledger, b"a", 1, 10.0)
    acknowledged(ledger, b"b", 2, 10.5)
    ledger.begin_pauses()
    acknowledged(ledger, b"b", 2, 10.6)
    acknowledged(ledger, b"a", 1, 11.5)
    assert max(ledger.pauses.values()) == 1.5
    ledger.begin_again()
    acknowledged(ledger, b"a", 1, 99.0)
    assert ledger.pauses == {1: 0.0}


def test_figures_are_one_line() -> None:
    """The verdict is one line of names and numbers."""
    tour = Tour(cluster=None, failover_pause_s=0.8123, steps={"start": 1.25})  # type: ignore[arg-type]
    line = figures(tour, 12.34)
    assert line == "tour: writes_acknowledged=0 lost=0 failover_pause_ms=812 start_s=1.2 total_s=12.3"


async def test_a_writer_that_fails_ends_the_tour_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A definite failure of one writer abandons the step at once, and is the error that is reported."""
    monkeypatch.setattr("kv.cli.tour.CALL_TIMEOUT_S", 0.2)
    ledger = Ledger()
    async with AsyncClient.from_url("kv://127.0.0.1:1") as client:
        with pytest.raises(KVError) as failed:
            async with _writers(ledger, client, "one"):
                await asyncio.Event().wait()
    assert failed.value.definite
    assert ledger.acknowledged == {}


async def test_a_failure_of_a_step_stops_the_writers_and_is_reported() -> None:
    """What a step raises while writers run comes out as it is, not wrapped in a group."""
    async with AsyncClient.from_url("kv://127.0.0.1:1") as client:
        with pytest.raises(TourFailed, match="seen"):
            async with _writers(Ledger(), client, "one"):
                raise TourFailed("seen")
