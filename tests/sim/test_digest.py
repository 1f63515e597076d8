"""A seed is one run: the same events in another process, whatever its hashes and addresses are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
from kv.sim.setup import Setup
from kv.sim.world import World
report = World(11, setup=Setup(duration_s=30.0, scale=1)).run()
assert report.violation is None, report.violation
print(report.events, report.commits, report.digest)
"""


def _run(hash_seed: str, padding: int) -> str:
    """The digest in a process whose hashes and addresses differ."""
    code = f"ballast = [bytearray(1000) for _ in range({padding})]\n{PROGRAM}"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_seed_gives_the_same_digest_in_every_process() -> None:
    """Two processes with different hash seeds and memory layouts see the same events."""
    assert _run("1", 0) == _run("2", 977)
