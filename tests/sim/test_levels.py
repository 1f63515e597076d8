"""The read levels differ, and visibly so: each weaker one returns what LINEARIZABLE would not, and keeps its own promise."""

from __future__ import annotations

import time
from itertools import count

from kv.sim import levels

FIRST_SEED = 12
"""From here on seven seeds show every level; from 1 on it takes eighteen."""
SECONDS_MAX = 240.0
"""Of processor time; the seeds are fixed, so this bounds a slow machine only."""


def test_each_weaker_level_shows_itself_and_no_promise_is_broken() -> None:
    """Under all faults with sober clocks LINEARIZABLE and LEASE stay linearizable, and every other level returns something that is not."""
    found = levels.compare(count(FIRST_SEED), wall=time.process_time, seconds=SECONDS_MAX)
    assert found.broken is None, found.broken
    assert found.complete, f"in {found.seeds} seeds only {sorted(found.examples)}"
    for level in levels.STRONG:
        assert found.reads[level.name] > 100
        assert not found.weaker[level.name]


def test_a_clock_that_runs_away_breaks_a_lease() -> None:
    """Outside of the assumption that LEASE states the simulator finds a read that is not linearizable, by that name."""
    runaway = levels.run_away(count(1), wall=time.process_time, seconds=SECONDS_MAX)
    assert runaway is not None
    assert runaway.property == "linearizable"


def test_the_page_tells_of_each_level() -> None:
    """The page names every level, with an example where there is one."""
    found = levels.compare(count(FIRST_SEED), wall=time.process_time, seconds=0.0)
    text = levels.page(found, None, 1)
    for level in (*levels.STRONG, *levels.WEAKER):
        assert f"| {level.name} |" in text
    assert "No violation was met" in text
