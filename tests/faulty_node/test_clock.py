"""Clocks of the test build that run at another rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faulty_node.clock import LOOK_S, SkewedClock


def test_the_rate_changes_and_the_time_does_not_jump(tmp_path: Path) -> None:
    """Time goes on from where it was, at the new rate, as soon as the panel was looked at."""
    real = [100.0]
    clock = SkewedClock(tmp_path / "rate", lambda: real[0])
    assert clock.now() == 100.0
    (tmp_path / "rate").write_text("2.0")
    real[0] += LOOK_S
    assert clock.now() == pytest.approx(100.0 + LOOK_S)
    real[0] += 10
    assert clock.now() == pytest.approx(120.0 + LOOK_S)
    assert clock.ahead() == pytest.approx(10.0)
    (tmp_path / "rate").unlink()
    assert clock.now() == pytest.approx(120.0 + LOOK_S)
    real[0] += LOOK_S
    seen = clock.now()
    real[0] += 10
    assert clock.now() == pytest.approx(seen + 10.0)


def test_the_steady_clock_never_goes_back(tmp_path: Path) -> None:
    """Whatever the rates are, each look is at or above the one before."""
    real = [0.0]
    clock = SkewedClock(tmp_path / "rate", lambda: real[0])
    seen = [clock.now()]
    for rate in (0.1, 5.0, 0.5, 1.0, 0.01):
        (tmp_path / "rate").write_text(str(rate))
        for _ in range(20):
            real[0] += LOOK_S / 3
            seen.append(clock.now())
    assert seen == sorted(seen)
