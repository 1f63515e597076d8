"""The synchronous client: generated, complete, safe among threads."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kv.client.aio import AsyncClient
from kv.client.portal import Portal
from kv.client.sync import Client
from kv.client.types import Get, OutcomeState, Put
from kv.errors import Conflict, InvalidArgument, Unavailable
from kv.outcome import OutcomeToken
from tests.client.server import GrpcCluster
from tools import gen_sync_client


@pytest.fixture
def cluster() -> Iterator[GrpcCluster]:
    """Run a cluster on an event loop of its own, in another thread."""
    portal = Portal("test-cluster")
    running = GrpcCluster()
    portal.call(running.start())
    try:
        yield running
    finally:
        portal.call(running.stop_all())
        portal.close()


def test_the_file_is_current() -> None:
    """kv/client/sync.py is what the generator makes of the asynchronous client."""
    assert gen_sync_client.TARGET.read_text() == gen_sync_client.generate(gen_sync_client.read_sources())


def test_both_clients_have_the_same_methods() -> None:
    """Each public method of one is in the other, with the same parameters and docstring."""

    def methods(cls: type) -> dict[str, object]:
        found = {name: one for base in cls.__mro__ for name, one in vars(base).items()}
        return {name: one for name, one in found.items() if not name.startswith("_")}

    assert methods(Client).keys() == methods(AsyncClient).keys()
    for name in methods(Client):
        one, other = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(one).parameters == inspect.signature(other).parameters
        assert one.__doc__ == other.__doc__


def test_every_method_works(cluster: GrpcCluster) -> None:
    """The calls block and return what the asynchronous ones return."""
    with Client(cluster.addresses) as client:
        assert client.put(b"{a}1", b"x").version == 1
        item = client.get(b"{a}1")
        assert item is not None
        assert item.value == b"x"
        with pytest.raises(Conflict):
            client.compare_and_set(b"{a}1", b"y", b"z")
        client.batch([Put(b"k%d" % i, b"v") for i in range(9)])
        assert [item.key for item in client.scan(b"k")] == [b"k%d" % i for i in range(9)]
        assert [len(page) for page in client.scan_pages(b"k", limit=3)] == [2, 1]
        assert next(iter(client.scan(b"k"))).key == b"k0"
        assert client.txn(then=[Get(b"{a}1")]).succeeded
        assert client.read(b"{a}1", level="all").answers
        assert client.increment(b"{a}n", 5).value == 5
        assert client.append(b"{a}1", b"y").length == 2
        previous = client.get_and_put(b"{a}1", b"z")
        assert previous is not None
        assert previous.value == b"xy"
        assert client.delete(b"{a}1").deleted
        client.observe(client.session_token())
        with pytest.raises(InvalidArgument):
            client.observe("nonsense")
        assert client.outcome(OutcomeToken(1, 2**40, 1)).state is OutcomeState.UNKNOWN
        assert client.cluster_map() == cluster.fake.map
        assert client.status("n2").id == "n2"


def test_threads_share_a_client(cluster: GrpcCluster) -> None:
    """Calls of many threads are all answered, each with its own answer."""
    with Client(cluster.addresses) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: client.put(b"k%d" % i, b"%d" % i), range(100)))
        items = list(pool.map(lambda i: client.get(b"k%d" % i), range(100)))
        assert [item.value for item in items if item is not None] == [b"%d" % i for i in range(100)]


def test_a_closed_client_says_so(cluster: GrpcCluster) -> None:
    """After close, calls are refused; closing again does nothing; no thread is left."""
    client = Client(cluster.addresses)
    client.get(b"a")
    client.close()
    client.close()
    with pytest.raises(Unavailable, match="closed"):
        client.get(b"a")
    assert "kv-client" not in [thread.name for thread in threading.enumerate()]


def test_a_bad_address_starts_no_thread() -> None:
    """A client that cannot be made leaves nothing behind."""
    with pytest.raises(InvalidArgument):
        Client.from_url("http://a:1")
    with pytest.raises(InvalidArgument):
        Client(["nowhere"])
    assert "kv-client" not in [thread.name for thread in threading.enumerate()]


def test_a_fork_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a forked child (another process id) a call is refused with what to do."""
    client = Client(["127.0.0.1:1"])
    pid = os.getpid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid + 1)
        with pytest.raises(RuntimeError, match="does not survive a fork"):
            client.get(b"a")
    client.close()


def test_a_portal_refuses_its_own_thread() -> None:
    """A call from the portal's own loop would wait for itself, so it is refused."""
    portal = Portal("test-portal")

    async def nothing() -> None:
        pass

    async def inside() -> None:
        portal.call(nothing())

    with pytest.raises(RuntimeError, match="use AsyncClient"):
        portal.call(inside())
    portal.close()
