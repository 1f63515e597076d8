"""The rules by which a namespace loses packets, as text."""

from __future__ import annotations

import pytest

from kv_jepsen.cuts import firewall
from kv_jepsen.cuts.firewall import LOSS_STEPS, Firewall


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was given to `nft`, in order."""
    texts: list[str] = []
    monkeypatch.setattr(firewall, "must", lambda *_, text="": texts.append(text))
    return texts


def test_cuts_and_loss_are_rules_of_who_receives(loaded: list[str]) -> None:
    """Each source that is cut has its rule, loss has one for each source; a heal replaces all of them."""
    wall = Firewall("space")
    wall.cut("10.0.0.2")
    wall.lose(0.25, ["10.0.0.2", "10.0.0.3"])
    assert "ip saddr 10.0.0.2 drop\n" in loaded[-1]
    assert f"ip saddr 10.0.0.3 numgen random mod {LOSS_STEPS} < {LOSS_STEPS // 4} drop" in loaded[-1]
    wall.open()
    assert "drop" not in loaded[-1]
    assert all(text.startswith("table ip kvjepsen\ndelete table ip kvjepsen\n") for text in loaded)


def test_what_changes_nothing_loads_nothing(loaded: list[str]) -> None:
    """A heal of what is whole, and a weather that is as it was, do not touch the kernel."""
    wall = Firewall("space")
    wall.open()
    wall.lose(0.0, ())
    assert not loaded


def test_the_least_and_the_most_loss(loaded: list[str]) -> None:
    """A loss below one step is one step, not none; a loss of all needs no chance."""
    Firewall("space").lose(0.000001, ["10.0.0.2"])
    assert f"mod {LOSS_STEPS} < 1 drop" in loaded[-1]
    Firewall("space").lose(1.0, ["10.0.0.2"])
    assert "ip saddr 10.0.0.2 drop\n" in loaded[-1]
