"""The command run in this process, against a cluster in memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from kv.cli import main
from kv.client.portal import Portal
from tests.client.server import GrpcCluster


@dataclass
class Done:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@contextmanager
def memory_cluster() -> Iterator[GrpcCluster]:
    """Run a cluster in memory on an event loop in another thread."""
    portal = Portal("test-cluster")
    cluster = GrpcCluster()
    portal.call(cluster.start())
    try:
        yield cluster
    finally:
        portal.call(cluster.stop_all())
        portal.close()


def runner(cluster: GrpcCluster, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `kv` with that cluster."""

    def run(*arguments: str) -> Done:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("KV_")]:
                patch.delenv(name)
            patch.setenv("KV_ENDPOINTS", ",".join(cluster.addresses))
            patch.setattr(sys, "argv", ["kv", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        output = capfd.readouterr()
        return Done(int(ended.value.code or 0), output.out, output.err)

    return run
