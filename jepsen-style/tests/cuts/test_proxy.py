"""The proxy in front of a node, with real sockets and a real process that dials."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from random import Random

import pytest

from kv_jepsen.cuts import proxy as module
from kv_jepsen.cuts import sockets
from kv_jepsen.cuts.links import CLIENTS, ROUTER, Links
from kv_jepsen.cuts.proxy import ProxyCuts

pytestmark = pytest.mark.skipif(not sockets.offered(), reason="proxy cuts need Linux")

TIMEOUT_S = 10.0
DIALLER = """
import socket, sys
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while line := sys.stdin.buffer.readline():
    try:
        link.sendall(line)
        print(link.recv(100).decode().strip() or "ended", flush=True)
    except (ConnectionResetError, BrokenPipeError):
        print("reset", flush=True)
"""


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionResetError):  # it is what these tests do
        while line := await reader.readline():
            writer.write(line)
    writer.close()


@pytest.fixture
async def cuts() -> AsyncIterator[tuple[ProxyCuts, int]]:
    """A proxy in front of node b, which echoes; node a dials."""
    node = await asyncio.start_server(_echo, "127.0.0.1", 0)
    made = ProxyCuts(["a", "b"], Random(1))
    await made.open()
    address = await made.exposed("b", node.sockets[0].getsockname()[1])
    yield made, int(address.rpartition(":")[2])
    await made.close()
    node.close()


@pytest.fixture
async def dialler(cuts: tuple[ProxyCuts, int]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Node a: a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DIALLER,
        str(cuts[1]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    cuts[0].pid_of = {"a": process.pid}.get
    yield process
    if process.returncode is None:
        process.kill()
    await process.communicate()


def _say(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())


async def _hear(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        return (await process.stdout.readline()).decode().strip()


async def test_a_cut_holds_and_the_heal_delivers(
    cuts: tuple[ProxyCuts, int], dialler: asyncio.subprocess.Process
) -> None:
    """What a node sends over a cut link stays away until the heal, either way of the link; a client is not cut."""
    _say(dialler, "one")
    assert await _hear(dialler) == "one"
    for way in (("a", "b"), ("b", "a")):
        cuts[0].cut(*way)
        _say(dialler, "two")
        heard = asyncio.create_task(_hear(dialler))
        reader, writer = await asyncio.open_connection("127.0.0.1", cuts[1])
        writer.write(b"client\n")
        async with asyncio.timeout(TIMEOUT_S):
            assert await reader.readline() == b"client\n"
        writer.close()
        assert not heard.done()
        cuts[0].heal()
        assert await heard == "two"


@pytest.mark.parametrize("way", [("router:a", "b"), ("b", "router:a")])
async def test_a_router_is_cut_by_itself(
    cuts: tuple[ProxyCuts, int],
    dialler: asyncio.subprocess.Process,
    way: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cut of a node's router leaves its other connections, and holds those to a port that is exposed for requests."""
    asked: list[list[tuple[str, str]]] = []
    passable = module._passable

    async def noted(links: Links, one: list[tuple[str, str]]) -> None:
        asked.append(list(one))
        await passable(links, one)

    monkeypatch.setattr(module, "_passable", noted)
    cuts[0].cut(*way)
    _say(dialler, "not for a router")
    assert await _hear(dialler) == "not for a router"
    assert [("a", "b")] in asked
    there, back = cuts[0]._ways("a", "b", ROUTER)
    assert [list(one) for one in (there, back)] == [
        [("a", "b"), ("router:a", "b")],
        [("b", "a"), ("b", "router:a")],
    ]
    blocked = asyncio.create_task(module._passable(cuts[0]._links, there if way[1] == "b" else back))
    await asyncio.sleep(0)
    assert not blocked.done()
    cuts[0].heal()
    await blocked
    assert [list(one) for one in cuts[0]._ways(CLIENTS, "b", ROUTER)] == [[(CLIENTS, "b")], [("b", CLIENTS)]]


async def test_a_cut_that_lasts_resets(
    cuts: tuple[ProxyCuts, int], dialler: asyncio.subprocess.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is held too long is reset at both ends."""
    _say(dialler, "one")
    assert await _hear(dialler) == "one"
    monkeypatch.setattr(module, "HOLD_S", 0.1)
    cuts[0].cut("a", "b")
    _say(dialler, "two")
    assert await _hear(dialler) == "reset"


async def test_reset_and_slow(cuts: tuple[ProxyCuts, int], dialler: asyncio.subprocess.Process) -> None:
    """A slow link takes at least its seconds longer; a reset ends the connection of these two nodes."""
    _say(dialler, "one")
    assert await _hear(dialler) == "one"
    cuts[0].slow("a", "b", 0.3)
    began = asyncio.get_running_loop().time()
    _say(dialler, "two")
    assert await _hear(dialler) == "two"
    assert asyncio.get_running_loop().time() - began >= 0.3
    cuts[0].reset(CLIENTS, "b")
    _say(dialler, "three")
    assert await _hear(dialler) == "three"
    cuts[0].reset("b", "a")
    _say(dialler, "four")
    assert await _hear(dialler) in {"reset", "ended"}


async def test_a_node_that_is_down_is_a_reset() -> None:
    """Who dials a proxy behind which nobody listens is reset, not left waiting."""
    made = ProxyCuts(["b"], Random(1))
    probe = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    address = await made.exposed("b", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    ended = b""
    async with asyncio.timeout(TIMEOUT_S):
        with contextlib.suppress(ConnectionResetError):
            ended = await reader.read(1)
    assert ended == b""
    writer.close()
    await made.close()
