"""Where time and bytes of a process went, read from what py-spy, perf, ss and /proc print.

Pure: text in, counts out; who runs these programs is `budget_probe`. A sample of py-spy belongs to the role of its
innermost frame that has one, so that a dictionary's or a codec's time counts for who called it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LOAD: Final = "the load itself"
CLIENT: Final = "client"
GRPC: Final = "gRPC (its Python)"
LOOP: Final = "event loop, and what C runs in it"
ROUTER: Final = "router"
DECODE: Final = "partition: decode"
PARTITION: Final = "partition: queue and rules"
APPLY: Final = "partition: apply, store, sessions"
ANSWER: Final = "partition: answer"
CONSENSUS: Final = "consensus"
ENGINE: Final = "engine"
LOG: Final = "log"
LINKS: Final = "links between nodes"
OTHER: Final = "other Python"

ROLES: Final = (
    LOAD, CLIENT, GRPC, LOOP, ROUTER, DECODE, PARTITION, APPLY, ANSWER, CONSENSUS, ENGINE, LOG, LINKS, OTHER,
)  # fmt: skip
"""In the order of the tables: the way of an operation."""

PLACES: Final = (
    ("benchmarks/", LOAD),
    ("kv/client/", CLIENT),
    ("grpc/", GRPC),
    ("kv/router/", ROUTER),
    ("kv/partition/batch.py", DECODE),
    ("kv/partition/machine.py", APPLY),
    ("kv/partition/store.py", APPLY),
    ("kv/partition/session.py", APPLY),
    ("kv/partition/record.py", APPLY),
    ("kv/partition/read.py", APPLY),
    ("kv/partition/answers.py", ANSWER),
    ("kv/partition/evidence.py", ANSWER),
    ("kv/partition/", PARTITION),
    ("kv/raft/wal", LOG),
    ("kv/raft/journal.py", LOG),
    ("kv/raft/files.py", LOG),
    ("kv/raft/transport.py", LINKS),
    ("kv/raft/frames.py", LINKS),
    ("kv/raft/engine.py", ENGINE),
    ("kv/raft/shell.py", ENGINE),
    ("kv/raft/", CONSENSUS),
    ("pysyncobj/", CONSENSUS),
    ("asyncio/", LOOP),
    ("uvloop/", LOOP),
    ("selectors.py", LOOP),
)
"""Beginnings of paths, as py-spy shortens them, and their roles; the first that fits counts."""

GRPC_POLLER: Final = "_poll_wrapper"
"""The thread in which grpc.aio waits; it is Cython, so its stack has no frame of gRPC."""

KERNEL: Final = "kernel"
LIBRARIES: Final = (
    ("[kernel", KERNEL),
    ("_message.", "protobuf"),
    ("cygrpc.", "gRPC core and its Cython"),
    ("/lmdb/", "LMDB"),
    ("/uvloop/", "uvloop"),
    ("_asyncio.", "asyncio's C"),
    ("/libc.so", "libc"),
    ("/libc-", "libc"),
)
"""Parts of the paths of shared objects, and how the table calls them; the first that fits counts."""
INTERPRETER: Final = "interpreter"
OTHER_LIBRARY: Final = "other libraries"

_RAW: Final = re.compile(r"(?P<stack>.+) (?P<count>\d+)")
_FRAME: Final = re.compile(r".* \((?P<path>[^()]+?)(?::\d+)?\)")
_PERF: Final = re.compile(r"\s*(?P<pid>\d+)\s+[0-9a-f]+ .*?\((?P<object>.*)\)\s*")
_INTERPRETER: Final = re.compile(r"(?:^|/)(?:libpython[\d.]+(?:so)?[\d.]*|python[\d.]*)$")
_SS: Final = re.compile(r"\S+\s+\d+\s+\d+\s+\S*:(?P<near>\d+)\s+\S*:(?P<far>\d+)\s")
_SS_PID: Final = re.compile(r"pid=(\d+)")


def read_raw(text: str) -> dict[tuple[str, ...], int]:
    """Return samples by stack, outermost frame first, of `py-spy record --format raw`.

    Raises `ValueError` with the line that is none.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        match = _RAW.fullmatch(line)
        if match is None:
            raise ValueError(f"this is no line of py-spy's raw format: {line[:200]!r}")
        found[tuple(match["stack"].split(";"))] += int(match["count"])
    return dict(found)


def role_of(stack: Sequence[str]) -> str:
    """Return the role of the innermost frame that has one; without any, what the thread is for."""
    for frame in reversed(stack):
        match = _FRAME.fullmatch(frame)
        role = _place(match["path"]) if match is not None else None
        if role is not None:
            return role
    return GRPC if stack and GRPC_POLLER in stack[0] else OTHER


def _place(path: str) -> str | None:
    return next((role for begin, role in PLACES if path.startswith(begin)), None)


def fold(samples: Mapping[tuple[str, ...], int]) -> dict[str, int]:
    """Return samples by role, in the order of `ROLES`; roles without samples are left out."""
    found: Counter[str] = Counter()
    for stack, count in samples.items():
        found[role_of(stack)] += count
    return {role: found[role] for role in ROLES if found[role]}


def library_of(shared_object: str) -> str:
    """Return how the table calls a shared object."""
    if _INTERPRETER.search(shared_object):
        return INTERPRETER
    return next((name for part, name in LIBRARIES if part in shared_object), OTHER_LIBRARY)


def read_perf(text: str) -> dict[int, dict[str, int]]:
    """Return samples by process and library of `perf script -F pid,ip,dso`. Raises `ValueError` as `read_raw`."""
    found: dict[int, Counter[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _PERF.fullmatch(line)
        if match is None:
            raise ValueError(f"this is no line of perf script -F pid,ip,dso: {line[:200]!r}")
        found.setdefault(int(match["pid"]), Counter())[library_of(match["object"])] += 1
    return {pid: dict(counts) for pid, counts in found.items()}


@dataclass(frozen=True, slots=True)
class Thread:
    """CPU of one thread so far, in clock ticks."""

    name: str
    user: int
    system: int


def read_stat(text: str) -> Thread:
    """Return what a /proc/PID/task/TID/stat says."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Thread(head.partition("(")[2], int(fields[11]), int(fields[12]))


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds of one process."""

    python_s: float = 0.0
    """User time of the threads that run Python."""
    native_s: float = 0.0
    """User time of the threads that do not: gRPC's core, libuv's workers."""
    system_s: float = 0.0
    """In the kernel, of all threads."""

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.python_s + self.native_s + self.system_s


def cpu_between(
    before: Mapping[int, Thread], after: Mapping[int, Thread], *, pid: int, ticks_per_s: int
) -> Cpu:
    """Return what a process used between two looks at its threads, by thread id.

    A thread of Python keeps the name of the main one, a thread of gRPC or libuv names itself. A thread that ended
    between the looks is not seen; those of a node do not.
    """
    python = native = system = 0
    for thread_id, thread in after.items():
        first = before.get(thread_id, Thread(thread.name, 0, 0))
        system += thread.system - first.system
        if thread.name == after[pid].name:
            python += thread.user - first.user
        else:
            native += thread.user - first.user
    return Cpu(python / ticks_per_s, native / ticks_per_s, system / ticks_per_s)


@dataclass(frozen=True, slots=True)
class Socket:
    """One end of a TCP connection, and the bytes of its payload so far."""

    pid: int
    near: int
    far: int
    sent: int
    received: int


def read_ss(text: str) -> list[Socket]:
    """Return the sockets in `ss -tinpHO` that belong to a process; one that carried nothing yet has no counters."""
    found = []
    for line in text.splitlines():
        ends, pid = _SS.match(line), _SS_PID.search(line)
        if ends is not None and pid is not None:
            sent, received = _field(line, "bytes_sent"), _field(line, "bytes_received")
            found.append(Socket(int(pid[1]), int(ends["near"]), int(ends["far"]), sent, received))
    return found


def _field(line: str, name: str) -> int:
    match = re.search(rf"\b{name}:(\d+)", line)
    return int(match[1]) if match else 0


def carried(sockets: Iterable[Socket], pid: int, ports: frozenset[int]) -> tuple[int, int]:
    """Return the bytes that a process sent and received on connections from or to one of `ports`."""
    mine = [socket for socket in sockets if socket.pid == pid and {socket.near, socket.far} & ports]
    return sum(socket.sent for socket in mine), sum(socket.received for socket in mine)


def reached_by(sockets: Iterable[Socket], pid: int) -> frozenset[int]:
    """Return the ports to which a process is connected."""
    return frozenset(socket.far for socket in sockets if socket.pid == pid)


def read_metrics(text: str) -> dict[str, float]:
    """Return the samples of Prometheus' text format, by name with labels. Raises `ValueError` for a line that is none."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def split(roles: Mapping[str, int], cpu_us: float) -> dict[str, float]:
    """Return `cpu_us` divided among the roles by their samples; without samples all of it is `OTHER`."""
    samples = sum(roles.values())
    if not samples:
        return {OTHER: cpu_us}
    return {role: cpu_us * count / samples for role, count in roles.items()}
