"""What a run has started and made, on disk, so that `clean` can end it after the harness was killed.

A run has one record file, which is written before the thing that it names exists or right after. A process is known by
its id together with its start time: an id that was given to somebody else meanwhile is left alone. Linux only,
as the start time is read from `/proc`. What else can be recorded is a network namespace or a bridge, by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

NAME_PREFIX: Final = "kvj"
"""Of every namespace and interface that the harness makes; others are never touched."""

FOLDER_SUFFIX: Final = ".data"

COMMAND_TIMEOUT_S: Final = 10.0


def state_folder() -> Path:
    """Where the record files are: one folder for each user, made if it is missing."""
    base = os.environ.get("KV_JEPSEN_STATE") or Path(tempfile.gettempdir()) / f"kv-jepsen-{os.getuid()}"
    folder = Path(base)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user: set KV_JEPSEN_STATE to a folder of yours")
    return folder


def start_ticks(pid: int) -> int | None:
    """Return when a process began, in ticks since boot; None if there is none (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


@dataclass(slots=True)
class Records:
    """The record file of one run; the first line names the harness itself."""

    path: Path
    _file: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o600)
        self._note({"kind": "owner", "pid": os.getpid(), "start": start_ticks(os.getpid())})

    @classmethod
    def fresh(cls, name: str) -> Records:
        """Begin a record file named after the run and this process."""
        return cls(state_folder() / f"{name}-{os.getpid()}.jsonl")

    def process(self, pid: int) -> None:
        """Note a process that was just started."""
        self._note({"kind": "process", "pid": pid, "start": start_ticks(pid)})

    def folder(self) -> Path:
        """Make a folder for data that goes with the run."""
        made = self.path.with_suffix(FOLDER_SUFFIX)
        made.mkdir(mode=0o700)
        return made

    def namespace(self, name: str) -> None:
        """Note a network namespace that is about to be made."""
        assert name.startswith(NAME_PREFIX), "only names of our own are ever removed"
        self._note({"kind": "namespace", "name": name})

    def interface(self, name: str) -> None:
        """Note a network interface that is about to be made."""
        assert name.startswith(NAME_PREFIX), "only names of our own are ever removed"
        self._note({"kind": "interface", "name": name})

    def close(self) -> None:
        """End whatever of the run is still there (nothing, if it ended as it should), and forget it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            _end(_entries(self.path))
            _remove(self.path)

    def _note(self, what: dict[str, object]) -> None:
        os.write(self._file, (json.dumps(what) + "\n").encode())


def clean(folder: Path | None = None) -> Iterator[str]:
    """End what runs that are over have left behind, and say what; a run whose harness lives is left alone."""
    for path in sorted((folder or state_folder()).glob("*.jsonl")):
        entries = _entries(path)
        owner = entries[0] if entries and entries[0].get("kind") == "owner" else {}
        if _lives(owner):
            yield f"{path.stem}: its harness, process {owner['pid']}, still runs; left alone"
            continue
        yield from (f"{path.stem}: {done}" for done in _end(entries))
        _remove(path)


def _end(entries: Sequence[dict[str, object]]) -> list[str]:
    """Undo what is recorded, and say what there was to do."""
    # Processes first: a namespace whose processes live does not end.
    in_order = sorted(entries, key=lambda one: one.get("kind") != "process")
    return [done for entry in in_order if (done := _undo(entry))]


def _remove(path: Path) -> None:
    """Remove a record file, and before it the data of its run."""
    shutil.rmtree(path.with_suffix(FOLDER_SUFFIX), ignore_errors=True)
    path.unlink(missing_ok=True)


def _entries(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the last line of a harness that was killed may be torn
            entry = json.loads(line)
            if isinstance(entry, dict):
                found.append(entry)
    return found


def _lives(entry: dict[str, object]) -> bool:
    pid = entry.get("pid")
    return isinstance(pid, int) and entry.get("start") is not None and start_ticks(pid) == entry["start"]


def _undo(entry: dict[str, object]) -> str:
    name = str(entry.get("name", ""))
    match entry.get("kind"):
        case "process" if _lives(entry):
            pid = entry["pid"]
            assert isinstance(pid, int), "a process that lives has an id"
            with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(pid, signal.SIGKILL)
            return f"ended process {pid}"
        case "namespace" if name.startswith(NAME_PREFIX) and _ip("netns", "delete", name):
            return f"removed the network namespace {name}"
        case "interface" if name.startswith(NAME_PREFIX) and _ip("link", "delete", name):
            return f"removed the interface {name}"
    return ""


def _ip(*arguments: str) -> bool:
    """Run `ip`; whether it did something."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, names of our own
            ["ip", *arguments],  # noqa: S607 - found by PATH, as a person would call it
            capture_output=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0
