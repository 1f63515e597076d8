"""Network namespaces, where there are any: Linux, root, `ip`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kv_jepsen.cuts.netns import NetnsCuts
from kv_jepsen.records import Records
from kv_jepsen.unsupported import Unsupported

PROBE = """
import socket, sys
link = socket.socket()
link.settimeout(1.5)
try:
    link.connect((sys.argv[1], 9))
except TimeoutError:
    print("silence")
except ConnectionRefusedError:
    print("answer")
"""


def _possible() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True)
    return made.returncode == 0


def _reaches(cuts: NetnsCuts, source: str, end: str) -> str:
    command = [*cuts.prefix(source), sys.executable, "-c", PROBE, cuts.host(end)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _left(spaces: list[str]) -> list[str]:
    return [space for space in spaces if Path("/run/netns", space).exists()]


@pytest.mark.skipif(not _possible(), reason="no network namespaces here")
async def test_cuts_are_silent_one_way_losses(tmp_path: Path) -> None:
    """Over a cut link packets vanish either way of asking, the heal brings them back, and nothing stays behind."""
    records = Records(tmp_path / "run.jsonl")
    cuts = NetnsCuts(["n1", "n2", "n3"], records)
    spaces = [cuts.prefix(node)[-1] for node in cuts.nodes]
    try:
        await cuts.open()
        assert _reaches(cuts, "n1", "n2") == "answer"
        cuts.cut("n2", "n1")
        assert await asyncio.to_thread(_reaches, cuts, "n1", "n2") == "silence"
        assert _reaches(cuts, "n1", "n3") == "answer"
        cuts.heal()
        assert _reaches(cuts, "n1", "n2") == "answer"
        with pytest.raises(Unsupported, match="take --cut proxy"):
            cuts.slow("n1", "n2", 0.1)
    finally:
        await cuts.close()
        records.close()
    assert not _left(spaces)


@pytest.mark.skipif(os.geteuid() == 0, reason="for those who are not root")
def test_without_root_it_says_so(tmp_path: Path) -> None:
    """Who may not make namespaces is told of the other way."""
    with pytest.raises(Unsupported, match="--cut proxy"):
        NetnsCuts(["n1"], Records(tmp_path / "run.jsonl"))
