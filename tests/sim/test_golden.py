"""Known seeds give known digests: the same run on another machine, and after a change that changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.golden import CASES, TABLE, line

ROOT = Path(__file__).parents[2]
RENEW = "if the change of behaviour is meant: python -m tests.sim.golden --write"


@pytest.mark.parametrize("seed", CASES)
def test_a_known_seed_gives_its_known_digest(seed: int) -> None:
    """The run of each seed of the table is, event by event, the one that was checked in."""
    known = {int(row.split()[0]): row for row in TABLE.read_text().splitlines()}
    assert line(seed) == known[seed], RENEW


def test_the_digest_does_not_depend_on_what_a_machine_brings() -> None:
    """Other hashes, another folder for the stores and protobuf without its C code give the same table."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "4711",
        "PYTHONPATH": str(ROOT),
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
        "TZ": "Asia/Kathmandu",
    }
    program = (
        "from pathlib import Path; from kv.sim import world; world.MEMORY_FOLDER = Path('/nowhere');"
        " from tests.sim.golden import table; print(table(), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == TABLE.read_text(), RENEW
