"""The clients that put load on: what counts as done, as refused, and as unknown."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from benchmarks import clients
from benchmarks.clients import KEY_BYTES, Data, Etcd, RingKV, key_of
from benchmarks.load import Counted
from kv.errors import Overloaded, UnknownOutcome

ADDRESSES = ["127.0.0.1:1"]
DATA = Data(1024, 100)


def test_keys_have_sixteen_bytes_and_a_batch_has_none_twice() -> None:
    """Whether they are made beforehand or not."""
    for data in (DATA, Data(1024, 100, listed=False)):
        chosen = data.some(1000)
        assert len(set(chosen)) == 1000
        assert {len(key) for key in chosen} == {KEY_BYTES}
        assert set(chosen) <= {key_of(number) for number in range(1024)}
    assert len(DATA.value()) == 100


def test_more_keys_than_its_bound_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a key is made when it is drawn."""
    monkeypatch.setattr(clients, "KEYS_LISTED_MAX", 10)
    assert Data(10, 1)._listed is not None
    assert Data(11, 1)._listed is None
    assert len(Data(11, 1).key()) == KEY_BYTES


async def test_each_operation_of_a_ringkv_batch_counts_for_itself() -> None:
    """A batch returns the errors of its operations; only what is neither definite nor done is unknown."""
    async with RingKV(ADDRESSES, DATA) as client:
        fine: list[object] = [object()] * 3
        assert client.answered(fine, 3) is None
        mixed = [*fine, Overloaded("full"), UnknownOutcome("silence")]
        assert client.answered(mixed, 5) == Counted(3, 1, 1, "OVERLOADED")
        assert client.refused(Overloaded("full"), 128) == Counted(0, 128, 0, "OVERLOADED")
        assert client.refused(UnknownOutcome("silence"), 1) == Counted(0, 0, 1, "UNKNOWN_OUTCOME")
        assert client.answered(None, 1) == Counted(0, 1, 0, "the key is not there")
        with pytest.raises(KeyError):
            client.refused(KeyError("a bug"), 1)


async def test_etcd_that_is_not_there_is_unknown_and_not_done() -> None:
    """A put without a connection fails, and counts as no success."""
    async with Etcd(ADDRESSES, DATA) as client:
        with pytest.raises(grpc.aio.AioRpcError) as found:
            async with asyncio.timeout(30):
                await client.put()
        counted = client.refused(found.value, 1)
        assert (counted.done, counted.definite, counted.indefinite) == (0, 0, 1)
        with pytest.raises(KeyError):
            client.refused(KeyError("a bug"), 1)
