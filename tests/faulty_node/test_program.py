"""The test build as a program: real nodes with a mutant, a damaged log, a disk that fails; and production, which knows nothing of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from kv.cli.serve import load
from kv.errors import InvalidArgument
from kv.raft.files import OsFiles
from kv.raft.wal import Wal, WalCorruption
from kv.sim.mutants import MUTANTS
from tests.faulty_node.build import IN_OTHER_PROCESSES, mutant_of_node, mutants_of_nodes
from tests.faulty_node.damage import flip_bit

ROOT = Path(__file__).parents[2]


def _program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faulty_node", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_mutant_is_a_node_or_says_why_not() -> None:
    """Each of the simulator's mutants can be a node, or breaks something that is not in a node."""
    names = [one.name for one in MUTANTS]
    assert sorted([*mutants_of_nodes(), *IN_OTHER_PROCESSES]) == sorted(names)
    with pytest.raises(InvalidArgument, match="it breaks the client"):
        mutant_of_node("session-forgets")


def test_an_unknown_mutant_is_refused() -> None:
    """A name that is none is exit status 2, with where to find the names, and no node starts."""
    done = _program("--panel", "nowhere", "--mutant", "perfect")
    assert done.returncode == 2
    assert "no mutant 'perfect'" in done.stderr
    assert not (ROOT / "nowhere").exists()


def test_production_has_no_way_in() -> None:
    """No setting of `kv serve` names a mutant, a panel or the test build, and the wheel does not ship it."""
    with pytest.raises(InvalidArgument):
        load(None, {"node_id": "n1", "mutant": "ack-before-sync"})
    shipped = [path.read_text() for path in sorted((ROOT / "kv").rglob("*.py"))]
    assert not [text for text in shipped if "faulty_node" in text]
    assert 'packages = ["kv", "jepsen-style/kv_jepsen"]' in (ROOT / "pyproject.toml").read_text()


def _written(folder: Path, batches: int) -> None:
    """A log of so many batches."""
    wal = Wal.open(OsFiles(folder), salt=7, segment_bytes=1 << 16)
    journal = wal.journal(1)
    journal.bootstrap()
    for number in range(batches):
        if number:
            journal.set_hard_state(number, None)
        flush = wal.begin_flush()
        assert flush is not None
        flush.run()
        wal.end_flush(flush)
    wal.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_is_one_that_must_be_refused(tmp_path: Path, seed: int) -> None:
    """A log in which a bit was flipped is never opened, wherever the bit is."""
    _written(tmp_path, 5)
    assert flip_bit(tmp_path, Random(seed)) is not None
    with pytest.raises(WalCorruption):
        Wal.open(OsFiles(tmp_path), salt=8)


def test_a_bit_of_the_last_batch_is_left_alone(tmp_path: Path) -> None:
    """With one batch there is nothing to flip that would be told from a torn write."""
    _written(tmp_path, 1)
    assert flip_bit(tmp_path, Random(1)) is None
