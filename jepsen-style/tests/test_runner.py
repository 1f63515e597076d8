"""What is done after the load: replicas are looked at until they stand together, or for so long."""

from __future__ import annotations

import pytest

from kv_jepsen import runner
from kv_jepsen.checkers import ReplicaState, replicas_equal
from kv_jepsen.targets.memory import MemoryTarget


class Catching(MemoryTarget):
    """A cluster of which n2 is some looks behind, and then has this content."""

    def __init__(self, behind: int, content: str = "a") -> None:
        super().__init__()
        self.behind, self.content = behind, content
        self.looks = 0

    async def contents(self) -> list[ReplicaState]:
        """See `Target`."""
        self.looks += 1
        index = 7 if self.looks > self.behind else 6
        return [ReplicaState("n1", 1, 7, "a"), ReplicaState("n2", 1, index, self.content)]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SETTLED_POLL_S", 0.0)


async def test_replicas_are_awaited() -> None:
    """Looks are taken until all replicas of a partition stand at one index; these are judged."""
    target = Catching(behind=3)
    looks = await runner._settled(target)
    assert target.looks == 4
    assert replicas_equal(looks).valid is True


async def test_a_replica_that_differs() -> None:
    """The same index with another content is a violation."""
    (finding,) = replicas_equal(await runner._settled(Catching(behind=0, content="b"))).findings
    assert finding.kind == "content-differs"


async def test_a_replica_that_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting ends, and who is behind then is a violation."""
    monkeypatch.setattr(runner, "SETTLED_TIMEOUT_S", 0.05)
    (finding,) = replicas_equal(await runner._settled(Catching(behind=1 << 60))).findings
    assert finding.kind == "behind"


async def test_a_system_that_does_not_tell() -> None:
    """Without looks there is nothing to wait for."""
    assert await runner._settled(MemoryTarget()) == []
