"""Network namespaces, where there are any: Linux, root, `ip`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kv_jepsen.cuts import firewall
from kv_jepsen.cuts.netns import NetnsCuts, possible
from kv_jepsen.records import Records
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


@pytest.mark.skipif(os.geteuid() == 0, reason="for those who are not root")
def test_without_root_it_says_so(tmp_path: Path) -> None:
    """Who may not make namespaces is told of the other way."""
    with pytest.raises(Unsupported, match="--cut proxy"):
        NetnsCuts(["n1"], Records(tmp_path / "run.jsonl"))
