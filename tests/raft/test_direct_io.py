"""Large writes that pass by the page cache: every byte is where it belongs, whatever the file system says to it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from kv.raft.direct_io import BLOCK_BYTES, DIRECT_BYTES_MIN, STAGE_BYTES
from kv.raft.files import OsFiles
from tests.raft.wal_tools import add, flush, group, open_wal, states

FILE_BYTES = 4 * STAGE_BYTES + 512
BIG = DIRECT_BYTES_MIN


@pytest.fixture
def files(tmp_path: Path) -> OsFiles:
    """A directory with one file, "a"."""
    files = OsFiles(tmp_path)
    files.create("a", FILE_BYTES)
    return files


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(offset, length) of what is written by a descriptor that passes by the cache."""
    seen = []
    pwrite = os.pwrite

    def watch(fd: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            seen.append((offset, len(data)))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", watch)
    return seen


def on_disk(path: Path) -> bytes:
    """What the disk holds, not asked through the cache; without what is behind the last whole block."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        stage = mmap.mmap(-1, path.stat().st_size // BLOCK_BYTES * BLOCK_BYTES)
        assert os.preadv(fd, [stage], 0) == len(stage)
        return stage[:]
    finally:
        os.close(fd)


def test_any_writes_in_any_order(files: OsFiles, tmp_path: Path, seed: int) -> None:
    """Large and small writes, over and beside one another, read back as from a plain array, and from the disk too."""
    random = Random(seed)
    model = bytearray(FILE_BYTES)
    for _ in range(60):
        length = random.choice(
            [
                random.randrange(1, 9000),
                BIG + random.randrange(-1, 9000),
                random.randrange(BIG, 3 * STAGE_BYTES),
            ]
        )
        offset = random.choice([0, 512, BLOCK_BYTES, random.randrange(FILE_BYTES - length)])
        data = random.randbytes(length)
        cut = random.randrange(length + 1)
        files.write("a", offset, [data[:cut], b"", data[cut:]])
        model[offset : offset + length] = data
        # A read brings pages into the cache, those behind a later write among them.
        start = random.randrange(FILE_BYTES)
        assert files.read("a", start, BIG) == model[start : start + BIG]
    files.sync("a")
    assert files.read("a", 0, FILE_BYTES + 1) == model
    found = on_disk(tmp_path / "a")
    assert found == model[: len(found)]


def test_only_whole_blocks_of_large_writes_pass_by(files: OsFiles, written: list[tuple[int, int]]) -> None:
    """The first and the last bytes share a block with others and go through the cache, as small writes do."""
    files.write("a", 512, [bytes(BIG - 1)])
    assert written == []
    files.write("a", 512, [bytes(STAGE_BYTES), bytes(BIG)])
    first = BLOCK_BYTES
    assert written == [(first, STAGE_BYTES), (first + STAGE_BYTES, BIG - BLOCK_BYTES)]
    assert all(offset % BLOCK_BYTES == length % BLOCK_BYTES == 0 for offset, length in written)


@pytest.mark.parametrize("where", ["open", "write"])
def test_a_file_system_without_it(
    files: OsFiles, monkeypatch: pytest.MonkeyPatch, written: list[tuple[int, int]], where: str
) -> None:
    """EINVAL, when the file is opened or when it is written, is an answer: the bytes go the other way, also later ones."""
    asked = []

    def refusing(real: Callable[..., int], direct: Callable[..., bool]) -> Callable[..., int]:
        def call(*arguments: object, **options: object) -> int:
            if direct(*arguments):
                asked.append(arguments)
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return real(*arguments, **options)

        return call

    if where == "open":
        monkeypatch.setattr(os, "open", refusing(os.open, lambda _, flags: bool(flags & os.O_DIRECT)))
    else:
        is_direct = lambda fd, *_: bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)  # noqa: E731
        monkeypatch.setattr(os, "pwrite", refusing(os.pwrite, is_direct))
    data = Random(1).randbytes(BIG + 5)
    files.write("a", 100, [data])
    files.write("a", 100 + len(data), [data])
    assert files.read("a", 100, 2 * len(data)) == 2 * data
    assert len(asked) == 1
    assert written == []


def test_a_real_file_system_in_memory() -> None:
    """Whatever this kernel's tmpfs says to it, the bytes are there."""
    with_room = Path("/dev/shm")
    name = f"direct-io-{os.getpid()}"
    files = OsFiles(with_room)
    files.create(name, FILE_BYTES)
    try:
        data = Random(2).randbytes(2 * BIG)
        files.write(name, 77, [data])
        files.sync(name)
        assert files.read(name, 77, len(data)) == data
    finally:
        files.remove(name)


def test_short_writes_go_on(files: OsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel leaves of a direct write, at any byte, is written the other way."""
    pwrite = os.pwrite

    def short(fd: int, data: memoryview, offset: int) -> int:
        direct = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
        return pwrite(fd, data[: BLOCK_BYTES if direct else 1000], offset)

    monkeypatch.setattr(os, "pwrite", short)
    data = Random(3).randbytes(BIG + 321)
    files.write("a", 4000, [data])
    assert files.read("a", 4000, len(data)) == data
    assert files.read("a", 4000 + len(data), 10) == bytes(10)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_errors_are_raised(files: OsFiles, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A full or broken disk is the caller's to know, and the next write is as direct as before."""
    pwrite = os.pwrite
    failures = [OSError(code, os.strerror(code))]

    def failing(fd: int, data: memoryview, offset: int) -> int:
        if failures and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise failures.pop()
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", failing)
    data = Random(4).randbytes(BIG)
    with pytest.raises(OSError, match=os.strerror(code)):
        files.write("a", 0, [data])
    files.write("a", 0, [data])
    assert files.read("a", 0, BIG) == data


def test_descriptors_follow_names(files: OsFiles, tmp_path: Path) -> None:
    """After a removal or a renaming no large write reaches the file that had the name before; closing leaves none open."""
    before = len(os.listdir("/proc/self/fd"))
    old, new = Random(5).randbytes(BIG), Random(6).randbytes(BIG)
    files.write("a", 0, [old])
    files.create("b", FILE_BYTES)
    files.write("b", 0, [new])
    files.rename("a", "b")
    files.write("b", BIG, [new])
    assert files.read("b", 0, 2 * BIG) == old + new
    files.remove("b")
    files.create("b", FILE_BYTES)
    files.write("b", BIG, [new])
    assert files.read("b", 0, 2 * BIG) == bytes(BIG) + new
    files.close()
    assert len(os.listdir("/proc/self/fd")) < before


def test_a_log_of_large_values(tmp_path: Path, written: list[tuple[int, int]]) -> None:
    """Batches of large and small entries in turn are found again, in segments of any length."""
    wal = open_wal(OsFiles(tmp_path), segment_bytes=3 << 20)
    group(wal)
    for size in (40, BIG, 3, STAGE_BYTES + 1, 5000, 4 * STAGE_BYTES, 40):
        add(wal.journal(1), 2, size=size)
        flush(wal)
    assert written
    expected = states(wal)
    wal.close()
    assert states(open_wal(OsFiles(tmp_path), segment_bytes=3 << 20)) == expected
