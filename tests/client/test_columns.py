"""What travels in columns, and that callers cannot tell."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client import AsyncClient, Delete, Get, Item, Put, PutReply
from kv.client.calls import BatchCall, PutCall
from kv.client.columns import LARGE_BYTES_MIN, items_of, large_puts, replies_of
from kv.client.rows import rows_of
from kv.client.types import Evidence, ReadLevel
from kv.errors import DiskFull, InvalidArgument, NotOnAllReplicas
from kv.v1 import kv_pb2
from tests.client.fakes import FakeCluster, FakeTransport
from tests.client.playing import play


def kinds_of(cluster: FakeCluster) -> list[list[str]]:
    """Return the kinds of operations of each request but the opening of sessions."""
    kinds = [
        [str(one.WhichOneof("operation")) for one in request.batch.operations]
        for _, request in cluster.requests
    ]
    return [one for one in kinds if one != ["open_session"]]


def test_what_is_joined_travels_in_columns() -> None:
    """Plain puts, and gets, that travel together are one operation; a lone one is itself."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        replies = await asyncio.gather(*(client.put(b"k%d" % i, b"%d" % i) for i in range(9)))
        assert [reply.version for reply in replies] == [1] * 9
        items = await asyncio.gather(*(client.get(b"k%d" % i) for i in range(10)))
        assert [item and item.value for item in items] == [b"%d" % i for i in range(9)] + [None]
        proofs = [(item.evidence, item.mod_revision) for item in items if item]
        assert all(proof and proof.revision == revision for proof, revision in proofs)
        assert kinds_of(cluster) == [["put"], ["put_many"], ["get_many"]]

    play(scenario)


def test_what_is_not_plain_travels_as_itself() -> None:
    """A condition, a previous value or another kind of operation among them: a message each, results in place."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await asyncio.gather(client.put(b"a", b"1"), client.put(b"b", b"1", if_absent=True))
        await asyncio.gather(client.put(b"a", b"2"), client.put(b"b", b"2", return_previous=True))
        await client.batch([Put(b"a", b"3"), Delete(b"b")])
        await client.batch([Get(b"a"), Put(b"c", b"1")])
        assert kinds_of(cluster) == [["put", "put"], ["put", "put"], ["put", "delete"], ["get", "put"]]

    play(scenario)


def test_batches_travel_in_columns() -> None:
    """An explicit batch of puts, or of gets, too; a repeated key is written once for each row."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        replies = await client.batch([Put(b"a", b"1"), Put(b"b", b"1"), Put(b"a", b"2")])
        assert [cast(PutReply, reply).version for reply in replies] == [1, 1, 2]
        items = await client.batch([Get(b"b"), Get(b"none"), Get(b"a")])
        assert [item and cast(Item, item).value for item in items] == [b"1", None, b"2"]
        assert kinds_of(cluster) == [["put_many"], ["get_many"]]

    play(scenario)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_large_values_arrive_as_they_were_sent(rows: int) -> None:
    """However many there are, alone or in a batch: one operation, whose answer is that of any put."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        values = [bytes([number + 1]) * (LARGE_BYTES_MIN + number) for number in range(rows)]
        first = await asyncio.gather(*(client.put(b"k%d" % n, value) for n, value in enumerate(values)))
        again = await client.batch([Put(b"k%d" % n, value[::-1] + b"x") for n, value in enumerate(values)])
        assert [reply.version for reply in first] == [1] * rows
        assert [cast(PutReply, reply).version for reply in again] == [2] * rows
        for number, value in enumerate(values):
            item = await client.get(b"k%d" % number)
            assert item is not None
            assert item.value == value[::-1] + b"x"
        assert {kind for kinds in kinds_of(cluster)[1:] for kind in kinds} == {"put_many", "get"}

    play(scenario)


@given(
    keys=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4),
    sizes=st.lists(st.sampled_from([0, 100, 70_000, 1 << 20]), min_size=4, max_size=4),
)
def test_large_puts_are_the_bytes_that_protobuf_would_write(keys: list[bytes], sizes: list[int]) -> None:
    """One operation with a column of keys and one of values."""
    values = [bytes(size) for size, _ in zip(sizes, keys, strict=False)]
    wanted = kv_pb2.BatchRequest()
    wanted.operations.add().put_many.MergeFrom(kv_pb2.PutManyOperation(keys=keys, values=values))
    loop = asyncio.new_event_loop()
    try:
        calls = [
            PutCall(key, value, 0.0, loop.create_future()) for key, value in zip(keys, values, strict=True)
        ]
        assert b"".join(large_puts(calls)) == wanted.SerializeToString()
    finally:
        loop.close()


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_full_answer_is_asked_for_again(rows: int, partitions: int) -> None:
    """Gets that had no room in the answer are sent again, whoever asked: nobody sees that values are large."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        keys = [b"k%d" % i for i in range(7)]
        await client.batch([Put(key, key) for key in keys])
        for partition in cluster.partitions.values():
            partition.get_rows_max = rows
        items = await client.batch([Get(key) for key in keys])
        assert [cast(Item, item).value for item in items] == keys
        singly = asyncio.gather(*map(client.get, keys[4:]))
        found = [*await client.batch([Get(key) for key in keys[:4]]), *await singly]
        assert [cast(Item, item).value for item in found] == keys

    play(scenario, partitions=partitions)


def test_a_column_that_is_refused_fails_each_row() -> None:
    """A definite error of the whole operation is that of each call, an instance each."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        await client.put(b"a", b"1")
        error = DiskFull("no room").message

        def refuse(_: object) -> kv_pb2.PutManyResult:
            raise InvalidArgument(error)

        cluster.partitions[1]._put_many = refuse  # type: ignore[assignment, method-assign]
        outcomes = await asyncio.gather(
            *(client.put(b"k%d" % i, b"") for i in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [InvalidArgument] * 3
        assert len({id(outcome) for outcome in outcomes}) == 3

    play(scenario)


def test_level_all_fails_each_row() -> None:
    """Short of a replica each put that stands fails with `NotOnAllReplicas`, as one that travels alone does."""

    async def scenario(client: AsyncClient, cluster: FakeCluster, _: FakeTransport) -> None:
        cluster.partitions[1].lagging = {"n3"}
        outcomes = await asyncio.gather(
            *(client.put(b"k%d" % i, b"v", write_level="all") for i in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [NotOnAllReplicas] * 3
        assert len(cluster.partitions[1].data) == 3
        results = await client.batch([Put(b"a", b"1"), Put(b"b", b"1")], write_level="all")
        assert [type(result) for result in results] == [NotOnAllReplicas] * 2
        assert {kinds[0] for kinds in kinds_of(cluster)} == {"put_many"}

    play(scenario)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=8))
def test_each_row_becomes_its_own_answer(rows: list[tuple[int, int, bool]]) -> None:
    """What was found for a key has this key's revisions, version and evidence; revision 0 is nothing found."""
    keys = [b"k%d" % place for place in range(len(rows))]
    calls = [BatchCall(rows_of([Get(key) for key in keys]), range(len(keys)), [], 0.0, lambda *_: None)]
    many = kv_pb2.GetManyResult(
        values=[b"v%d" % revision for revision, _, _ in rows],
        create_revisions=[int(old) for _, _, old in rows],
        mod_revisions=[revision for revision, _, _ in rows],
        versions=[version for _, version, _ in rows],
    )
    shared = Evidence(1, 2, 3, 9, "n1", ReadLevel.LINEARIZABLE, revision=8, age_ms=7)
    for item, key, (revision, version, old) in zip(items_of(calls, many, shared), keys, rows, strict=True):
        if revision == 0:
            assert item is None
        else:
            proof = shared._replace(revision=revision)
            assert item == Item(key, b"v%d" % revision, int(old), revision, version, proof)
            assert (type(item), type(item.evidence)) == (Item, Evidence)
    replies = replies_of(5, [version for _, version, _ in rows], shared)
    assert replies == [PutReply(5, version, shared) for _, version, _ in rows]
