"""What each kind of load asks of the store."""

from __future__ import annotations

import pytest

from kv.bench.keys import PREFIX_END
from kv.bench.kinds import Kind
from kv.bench.plan import Plan, Share
from kv.bench.tally import Ending
from kv.bench.workload import prefill_of
from kv.client.types import Put
from kv.errors import Overloaded
from tests.bench.targets import URL, Scripted, play

SIZES = {"key_bytes": 20, "value_bytes": 7, "keys": 50}


def test_puts_write_keys_and_values_of_the_wanted_size() -> None:
    """A put writes one of the keys, with a value of the size that was asked for."""
    target = Scripted()
    play(target, Kind.PUT, count=200, **SIZES)
    assert all((name, len(key), len(value)) == ("put", 20, 7) for name, key, value in target.asked)
    assert 40 < len({key for _, key, _ in target.asked}) <= 50


def test_gets_count_what_they_find() -> None:
    """A get that finds no key succeeded, and counts no key."""
    target = Scripted(found=lambda key: key[-1] % 2 == 0)
    _, tally = play(target, Kind.GET, count=200, **SIZES)
    found = sum(key[-1] % 2 == 0 for _, key in target.asked)
    counts = tally.counts()[Ending("get")]
    assert (counts.ended, counts.items) == (200, found)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_a_mixed_load_has_its_share_of_gets(ratio: float) -> None:
    """The share of gets is the ratio, within five standard deviations."""
    target = Scripted()
    play(target, Kind.MIXED, count=2000, read_ratio=ratio, **SIZES)
    gets = sum(asked[0] == "get" for asked in target.asked)
    assert abs(gets - 2000 * ratio) <= 5 * (2000 * ratio * (1 - ratio)) ** 0.5


def test_scans_read_as_many_keys_as_wanted() -> None:
    """A scan begins early enough to find its number of keys, and ends with the generator's own keys."""
    target = Scripted()
    _, tally = play(target, Kind.SCAN, count=100, scan_length=9, **SIZES)
    assert all((end, limit) == (PREFIX_END, 9) for _, _, end, limit in target.asked)
    assert max(int(start[-14:]) for _, start, _, _ in target.asked) <= 41
    assert tally.counts()[Ending("scan")].items == 900


def test_batches_put_their_number_of_keys() -> None:
    """A batch is so many puts, and counts that many keys."""
    target = Scripted()
    _, tally = play(target, Kind.BATCH, count=10, batch_ops=25, **SIZES)
    assert all(len(ops) == 25 and isinstance(ops[0], Put) for _, ops in target.asked)
    counts = tally.counts()[Ending("batch")]
    assert (counts.ended, counts.items) == (10, 250)


def test_a_batch_of_which_a_part_failed_has_failed() -> None:
    """One refused operation makes the batch an error of that reason, whose keys do not count."""

    async def serve() -> None:
        raise Overloaded

    _, tally = play(Scripted(serve), Kind.BATCH, count=3, **SIZES)
    (ending,) = tally.counts()
    assert ending == ("batch", "OVERLOADED", "not done")
    assert tally.counts()[ending].items == 0


def test_the_prefill_writes_every_key_once() -> None:
    """The keys that are written before are those that the load draws from."""
    plan = Plan(Kind.GET, URL, prefill=True, processes=3, key_bytes=20, value_bytes=7, keys=50)
    written = [key for index in range(3) for key, _ in prefill_of(Share(plan, index))]
    assert len(set(written)) == len(written) == 50
    target = Scripted()
    play(target, Kind.GET, count=500, **SIZES)
    assert {key for _, key in target.asked} <= set(written)
