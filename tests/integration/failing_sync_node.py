"""A node whose log meets a failing disk: a program that `test_failed_sync` starts with its settings as JSON.

After `failures_after` calls of the chosen operation the disk fails once, as Linux does it: the bytes that were
not synced are gone, and the next call would succeed. It is the real node otherwise.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from kv.config import NodeConfig
from kv.node import Node, _die
from kv.raft.files import OsFiles
from kv.telemetry import configure_logging


class FailingFiles(OsFiles):
    """The disk of the log."""

    def __init__(self, directory: str, *, operation: str, failures_after: int) -> None:
        super().__init__(directory)
        self._operation = operation
        self._left = failures_after
        self._unsynced: list[tuple[str, int, int]] = []

    def write(self, name: str, offset: int, buffers: Sequence[bytes]) -> None:
        """See `OsFiles.write`."""
        self._unsynced.append((name, offset, sum(map(len, buffers))))
        super().write(name, offset, buffers)
        self._count("write")

    def sync(self, name: str) -> None:
        """See `OsFiles.sync`."""
        self._count("sync")
        super().sync(name)
        self._unsynced.clear()

    def _count(self, operation: str) -> None:
        if operation != self._operation:
            return
        self._left -= 1
        if self._left == 0:
            for name, offset, length in self._unsynced:
                super().write(name, offset, [bytes(length)])
            print("the disk failed", file=sys.stderr, flush=True)  # noqa: T201 - for the log of the node
            raise OSError(errno.EIO, os.strerror(errno.EIO))


async def main(settings: dict[str, Any]) -> None:
    """Serve until the disk fails."""
    make_files = partial(
        FailingFiles, operation=settings.pop("operation"), failures_after=settings.pop("failures_after")
    )
    config = NodeConfig(**settings)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    configure_logging(config.log_level, config.log_format, sys.stderr)
    node = Node(config, fatal=_die, files=make_files)
    await node.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
