"""Network namespaces, where there are any: Linux, root, `ip`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kv_jepsen.cuts import delays, firewall
from kv_jepsen.cuts.commands import ip
from kv_jepsen.cuts.netns import NetnsCuts, possible
from kv_jepsen.records import Records, start_ticks
from kv_jepsen.unsupported import Unsupported

PROBE = """
import socket, sys
link = socket.socket()
link.settimeout(1.5)
try:
    link.connect((sys.argv[1], int(sys.argv[2])))
except TimeoutError:
    print("silence")
except ConnectionRefusedError:
    print("answer")
"""

SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 7))
print("listens")
link, _ = server.accept()
print("accepted")
try:
    link.recv(1)
except ConnectionError:
    print("reset")
"""

CLIENT = """
import socket, sys
link = socket.create_connection((sys.argv[1], 7))
print("connected")
try:
    link.recv(1)
except ConnectionError:
    print("reset")
"""

TIMED = """
import socket, sys, time
link = socket.socket()
began = time.monotonic()
try:
    link.connect((sys.argv[1], 9))
except ConnectionRefusedError:
    print(time.monotonic() - began)
"""

needs_nft = pytest.mark.skipif(not firewall.offered(), reason="needs nft and ss")


def _reaches(cuts: NetnsCuts, source: str, end: str, port: int = 9) -> str:
    command = [*cuts.prefix(source), sys.executable, "-c", PROBE, cuts.host(end), str(port)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _left(spaces: list[str]) -> list[str]:
    return [space for space in spaces if Path("/run/netns", space).exists()]


@pytest.mark.skipif(not possible(), reason="no network namespaces here")
@pytest.mark.parametrize("filtered", [False, pytest.param(True, marks=needs_nft)])
async def test_cuts_are_silent_one_way_losses(tmp_path: Path, filtered: bool) -> None:
    """Over a cut link packets vanish either way of asking, the heal brings them back, and nothing stays behind."""
    records = Records(tmp_path / "run.jsonl")
    cuts = NetnsCuts(["n1", "n2", "n3"], records, filtered=filtered)
    spaces = [cuts.prefix(node)[-1] for node in cuts.nodes]
    try:
        await cuts.open()
        assert _reaches(cuts, "n1", "n2") == "answer"
        cuts.cut("n2", "n1")
        assert await asyncio.to_thread(_reaches, cuts, "n1", "n2") == "silence"
        assert _reaches(cuts, "n1", "n3") == "answer"
        cuts.heal()
        assert _reaches(cuts, "n1", "n2") == "answer"
        await cuts.exposed("n2", 9, "router")
        for way in (("router:n1", "n2"), ("n2", "router:n1")) if filtered else ():
            cuts.cut(*way)
            assert await asyncio.to_thread(_reaches, cuts, "n1", "n2") == "silence"
            assert _reaches(cuts, "n2", "n1") == "answer"
            assert _reaches(cuts, "n1", "n2", 10) == "answer"
            cuts.heal()
        assert _reaches(cuts, "n1", "n2") == "answer"
        if not cuts.offers("slow"):
            with pytest.raises(Unsupported, match="take --cut proxy"):
                cuts.slow("n1", "n2", 0.1)
    finally:
        await cuts.close()
        records.close()
    assert not _left(spaces)


@pytest.mark.skipif(not possible(), reason="no network namespaces here")
@needs_nft
async def test_packets_are_lost_and_connections_reset(tmp_path: Path) -> None:
    """Loss of all is silence and ends with the weather; a reset ends an open connection at both ends, and none that comes later."""
    records = Records(tmp_path / "run.jsonl")
    cuts = NetnsCuts(["n1", "n2"], records, filtered=True)
    talk = None
    try:
        await cuts.open()
        cuts.weather(1.0, 0.0, 0.3)
        assert await asyncio.to_thread(_reaches, cuts, "n1", "n2") == "silence"
        cuts.weather(0.0, 0.0, 0.3)
        assert _reaches(cuts, "n1", "n2") == "answer"
        if not cuts.offers("long_delay"):
            with pytest.raises(Unsupported, match="take --cut proxy"):
                cuts.weather(0.0, 0.5, 0.3)
        server = [*cuts.prefix("n2"), sys.executable, "-u", "-c", SERVER, cuts.host("n2")]
        talk = _started(server)
        assert talk.stdout is not None
        assert talk.stdout.readline() == "listens\n"
        client = [*cuts.prefix("n1"), sys.executable, "-u", "-c", CLIENT, cuts.host("n2")]
        caller = _started(client)
        assert caller.stdout is not None
        assert caller.stdout.readline() == "connected\n"
        assert talk.stdout.readline() == "accepted\n"
        cuts.reset("n1", "n2")
        assert caller.communicate(timeout=10)[0] == "reset\n"
        assert talk.communicate(timeout=10)[0] == "reset\n"
        assert _reaches(cuts, "n1", "n2") == "answer"
    finally:
        if talk is not None:
            talk.kill()
        await cuts.close()
        records.close()


def _answered_s(cuts: NetnsCuts, source: str, end: str) -> float:
    """Seconds until a node has the answer of another one that nobody listens there."""
    command = [*cuts.prefix(source), sys.executable, "-c", TIMED, cuts.host(end)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout)


def _way(cuts: NetnsCuts, source: str, end: str) -> str:
    """The device by which packets from one node to another leave."""
    shown = ip("-n", cuts.prefix(source)[-1], "route", "get", cuts.host(end))
    return shown.partition(" dev ")[2].split()[0]


@pytest.mark.skipif(not possible() or not delays.offered(), reason="no network namespaces, or no TUN devices")
@needs_nft
async def test_packets_of_a_slow_link_are_late(tmp_path: Path) -> None:
    """A slow link is late in the one direction, also with a weather; the others go as before; with the heal all do."""
    path = tmp_path / "run.jsonl"
    records = Records(path)
    cuts = NetnsCuts(["n1", "n2", "n3"], records)
    assert cuts.offers("slow")
    assert cuts.offers("long_delay")
    try:
        await cuts.open()
        cuts.slow("n1", "n2", 0.3)
        assert await asyncio.to_thread(_answered_s, cuts, "n1", "n2") >= 0.3
        assert await asyncio.to_thread(_answered_s, cuts, "n2", "n1") >= 0.3  # the answer is late
        assert [_way(cuts, *way) for way in (("n2", "n1"), ("n1", "n3"))] == ["eth0", "eth0"]
        cuts.weather(0.0, 1.0, 0.2)
        assert await asyncio.to_thread(_answered_s, cuts, "n1", "n2") >= 0.7
        assert await asyncio.to_thread(_answered_s, cuts, "n3", "n2") >= 0.4
        cuts.cut("n1", "n2")
        assert await asyncio.to_thread(_reaches, cuts, "n1", "n2") == "silence"
        cuts.heal()
        ways = [(a, b) for a in cuts.nodes for b in cuts.nodes if a != b]
        assert [_way(cuts, *way) for way in ways] == ["eth0"] * 6
        assert _reaches(cuts, "n1", "n2") == "answer"
        programs = [json.loads(line) for line in path.read_text().splitlines()]
        pids = [one["pid"] for one in programs if one["kind"] == "process"]
        assert len(pids) == 3
        cuts.slow("n1", "n2", 9.0)
        os.kill(pids[0], signal.SIGKILL)  # the first one was started in n1
    finally:
        await cuts.close()
        records.close()
    assert all(start_ticks(pid) is None for pid in pids)
    assert not _left([cuts.prefix(node)[-1] for node in cuts.nodes])


@pytest.mark.skipif(os.geteuid() == 0, reason="for those who are not root")
def test_without_root_it_says_so(tmp_path: Path) -> None:
    """Who may not make namespaces is told of the other way."""
    with pytest.raises(Unsupported, match="--cut proxy"):
        NetnsCuts(["n1"], Records(tmp_path / "run.jsonl"))
