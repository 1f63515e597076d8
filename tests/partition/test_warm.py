"""Reading stores at a start: everything, or up to each bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from kv.partition.warm import CHUNK_BYTES, Warmed, memory_for_pages, warm_up

MIB = 1 << 20


def files(folder: Path, *sizes: int) -> list[Path]:
    """Files of these sizes."""
    made = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.mdb"
        path.write_bytes(bytes(size))
        made.append(path)
    return made


class Clock:
    """A second goes by at each look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def read(
    paths: list[Path], *, seconds: float = 1e9, bytes_max: int = 1 << 40, looks_max: int = 1 << 30
) -> Warmed:
    """Read them under these bounds; it is stopped after so many looks."""
    looks = iter(range(looks_max))
    return warm_up(
        paths, seconds=seconds, bytes_max=bytes_max, stopped=lambda: next(looks, None) is None, clock=Clock()
    )


def test_everything_is_read(tmp_path: Path) -> None:
    """Empty files and those that are no multiple of a chunk too."""
    assert read(files(tmp_path, 3 * MIB, 0, MIB + 7, 1)) == Warmed(4 * MIB + 8)
    assert read([]) == Warmed(0)


def test_time_memory_and_a_stop_end_it(tmp_path: Path) -> None:
    """It says what it has read, and which bound it met."""
    paths = files(tmp_path, 4 * MIB, 4 * MIB)
    assert read(paths, seconds=4.0) == Warmed(3 * CHUNK_BYTES, "time")
    assert read(paths, seconds=0.0) == Warmed(0, "time")
    assert read(paths, bytes_max=6 * MIB) == Warmed(6 * MIB, "memory")
    assert read(paths, bytes_max=0) == Warmed(0, "memory")
    assert read(paths, looks_max=5) == Warmed(4 * CHUNK_BYTES, "stopped")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """The start goes on without it, and says so."""
    with pytest.raises(FileNotFoundError):
        read([tmp_path / "none"])


def test_memory_for_pages(tmp_path: Path) -> None:
    """Half of what is available, as the system says."""
    said = tmp_path / "meminfo"
    said.write_text("MemTotal:       24684084 kB\nMemAvailable:    2048 kB\n")
    assert memory_for_pages(said) == MIB
    assert memory_for_pages() > 0
    said.write_text("MemTotal:       24684084 kB\n")
    with pytest.raises(OSError, match="does not tell"):
        memory_for_pages(said)
