"""What Linux says of a process: CPU time and resident memory, from /proc. And of this machine.

Memory counts as `Rss` of /proc/PID/smaps; the pages of the store's own data files, which are page cache, apart.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from benchmarks.processes import Failed

DATA_SUFFIX: Final = ".mdb"
MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs", "zram"})


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far, user and system, all threads."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Return the resident MiB of a process, all of it (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise Failed(f"process {pid} has no VmRSS: it has ended")


def rss_without_data_mib(pid: int) -> float:
    """Return the resident MiB of a process without what is mapped from the store's data files."""
    kib, counted = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        head = line.split(maxsplit=5)
        if not head[0].endswith(":"):  # the first line of a mapping: addresses, modes, ..., path
            counted = not (len(head) > 5 and head[5].endswith(DATA_SUFFIX))
        elif counted and head[0] == "Rss:":
            kib += int(head[1])
    return kib / 1024


def machine(folder: Path) -> dict[str, str]:
    """Return what a reader has to know of this machine, and of the disk under `folder`."""
    cpu = _first("/proc/cpuinfo", "model name") or platform.processor() or "unknown"
    memory = _first("/proc/meminfo", "MemTotal") or "unknown"
    return {
        "cpu": f"{os.cpu_count()} x {cpu}",
        "memory": memory,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "file system of the data": file_system(folder),
        "load average before": Path("/proc/loadavg").read_text(encoding="utf-8").split()[0],
    }


def file_system(folder: Path) -> str:
    """Return the kind of file system under `folder`."""
    target, found = folder.resolve(), ("", "unknown")
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, kind, *_ = line.split()
        if target.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]


def check_disk(folder: Path) -> None:
    """Raise `Failed` if a sync in `folder` would be no sync."""
    kind = file_system(folder)
    if kind in MEMORY_FILE_SYSTEMS:
        raise Failed(
            f"{folder} is in memory ({kind}), where a sync costs nothing: name a folder on a disk with --folder"
        )


def _first(path: str, name: str) -> str | None:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return None
