"""Processes and what Linux says of them."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from benchmarks import h2load
from benchmarks.proc import cpu_s, file_system, rss_mib, rss_without_data_mib
from benchmarks.processes import Children, Failed, Unavailable, clean_environment, free_ports, output_of

MIB = 1 << 20


async def test_a_command_that_fails_is_an_error_with_its_words() -> None:
    """Status and what it wrote to its standard error."""
    assert await output_of([sys.executable, "-c", "print(5)"], 30) == "5\n"
    with pytest.raises(Failed, match=r"status 3:\nthe reason"):
        await output_of(
            [sys.executable, "-c", "import sys; print('the reason', file=sys.stderr); sys.exit(3)"], 30
        )


async def test_a_command_that_hangs_is_ended() -> None:
    """At its limit, with an error that says so."""
    with pytest.raises(Failed, match="longer than"):
        await output_of(["sleep", "60"], 0.1)


def test_children_are_ended_by_their_own_handle(tmp_path: Path) -> None:
    """Killed, closed twice, and a dead one is noticed with the end of its log."""
    children = Children(tmp_path)
    children.start("a", ["sleep", "60"])
    children.start("b", ["sleep", "60"])
    pids = children.pids()
    children.kill("a")
    assert children.pids() == {"b": pids["b"]}
    children.close()
    children.close()
    assert not children.pids()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())


def test_settings_of_the_systems_do_not_leak_in() -> None:
    """A variable of this shell must not change what is measured."""
    given = {"KV_PARTITIONS": "1", "ETCD_NAME": "x", "NATS_URL": "y", "HOME": "/h", "PYTHONPATH": "/p"}
    kept = clean_environment(given)
    assert {"HOME", "PYTHONPATH"} == kept.keys()
    assert kept["PYTHONPATH"].endswith(f"{os.pathsep}/p")


def test_free_ports_differ() -> None:
    """As many as asked for, each once."""
    assert len(set(free_ports(6))) == 6


def test_pages_of_data_files_are_counted_apart(tmp_path: Path) -> None:
    """What is mapped from a data file is resident, and is not the process's own."""
    path = tmp_path / "data.mdb"
    path.write_bytes(b"x" * (16 * MIB))
    before = rss_without_data_mib(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped.find(b"y") == -1  # every page is touched
        assert rss_mib(os.getpid()) - rss_without_data_mib(os.getpid()) > 12
        assert rss_without_data_mib(os.getpid()) - before < 8


def test_cpu_and_disk_of_this_process_are_known(tmp_path: Path) -> None:
    """CPU time has passed, and the folder is on some file system."""
    assert cpu_s(os.getpid()) > 0
    assert file_system(tmp_path) != "unknown"


def test_h2load_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are skipped with this word."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="nghttp2-client"):
        h2load.program()
