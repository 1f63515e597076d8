"""A client process's own parts; the process as a whole is in test_fleet.py and tests/cli/test_bench.py."""

from __future__ import annotations

from kv.bench.kinds import Kind
from kv.bench.plan import Plan
from kv.bench.worker import make_client
from kv.client.levels import Level, Preference
from kv.client.types import ReadLevel, WriteLevel

URL = "kv://127.0.0.1:7001/?timeout=3s&level=lease&prefer=nearest&write=all"


def test_a_client_has_the_options_of_its_url() -> None:
    """What the plan leaves open is as the URL says."""
    client = make_client(Plan(Kind.PUT, URL))
    assert client._timeout_s == 3.0
    assert (client._level, client._prefer) == (Level(ReadLevel.LEASE), Preference.parse("nearest"))
    assert client._lanes.write.write_level is WriteLevel.ALL


def test_the_plan_stands_above_the_url() -> None:
    """An option of the command is taken instead of that of the URL."""
    asked = Plan(Kind.PUT, URL, level="bounded:200ms", prefer="leader", write_level="quorum", timeout_s=0.5)
    client = make_client(asked)
    assert client._timeout_s == 0.5
    assert (client._level, client._prefer) == (Level(ReadLevel.BOUNDED, 200), Preference.parse("leader"))
    assert client._lanes.write.write_level is WriteLevel.QUORUM
