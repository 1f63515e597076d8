"""The real file layer: what the write-ahead log asks of a directory."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from kv.raft.files import IOV_BUFFERS_MAX, OsFiles


@pytest.fixture
def files(tmp_path: Path) -> OsFiles:
    """An empty directory."""
    return OsFiles(tmp_path)


def test_create_is_preallocated_and_exclusive(files: OsFiles, tmp_path: Path) -> None:
    """A new file has its whole size in zero bytes on disk, and is never made twice."""
    files.create("a", 10_000)
    assert files.size("a") == 10_000
    assert files.read("a", 0, 20_000) == bytes(10_000)
    assert (tmp_path / "a").stat().st_blocks * 512 >= 10_000
    with pytest.raises(FileExistsError):
        files.create("a", 1)


def test_create_that_fails_leaves_nothing(files: OsFiles) -> None:
    """A file that does not fit is not left behind, so that it takes no room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            files.create("big", 2 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files.names() == []
    files.create("big", 10)


def test_write_and_read_back(files: OsFiles) -> None:
    """More buffers than one system call takes are all written, in order, where they belong."""
    buffers = [b"%05d" % i for i in range(2 * IOV_BUFFERS_MAX + 3)]
    files.create("a", 20_000)
    files.write("a", 100, buffers)
    files.sync("a")
    joined = b"".join(buffers)
    assert files.read("a", 100, len(joined)) == joined
    assert files.read("a", 0, 100) == bytes(100)
    assert files.read("a", 100 + len(joined), 1) == b"\0"


def test_short_writes_are_continued(files: OsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system call that writes only a part is followed by others until all is written."""
    files.create("a", 100)
    vector, single = os.pwritev, os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, bufs, offset: vector(fd, [bufs[0][:2]], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: single(fd, data[:3], offset))
    files.write("a", 7, [b"abcdef", b"ghij", b"klm"])
    assert files.read("a", 7, 13) == b"abcdefghijklm"


def test_read_at_the_end_is_short(files: OsFiles) -> None:
    """Only the end of the file makes a read short."""
    files.create("a", 10)
    assert files.read("a", 4, 100) == bytes(6)
    assert files.read("a", 10, 1) == b""


def test_remove_and_rename(files: OsFiles) -> None:
    """Names follow removals and renames, and no descriptor of the old name is used after them."""
    files.create("a", 1)
    files.create("b", 2)
    files.rename("a", "b")
    assert files.names() == ["b"]
    assert files.size("b") == 1
    with pytest.raises(FileNotFoundError):
        files.size("a")
    files.remove("b")
    files.sync_directory()
    with pytest.raises(FileNotFoundError):
        files.read("b", 0, 1)
    with pytest.raises(FileNotFoundError):
        files.remove("b")
    files.create("b", 3)
    assert files.size("b") == 3


def test_close_releases_descriptors(tmp_path: Path) -> None:
    """Nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    files = OsFiles(tmp_path)
    files.create("a", 1)
    files.create("b", 1)
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before
