"""The page: one file, well formed, with the figures of the run and nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from kv.bench.kinds import Kind
from kv.bench.page import cells, describe, page, percentiles
from kv.bench.plan import Plan, window_ns
from kv.bench.result import Result
from kv.bench.tally import Ending, Tally
from tests.bench.test_result import PLAN, result


class Checker(HTMLParser):
    """Fails unless each element that was opened is closed in its turn; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def read(document: str) -> Checker:
    """Return the checked document."""
    checker = Checker()
    checker.feed(document)
    checker.close()
    assert checker.open == []
    return checker


def test_the_page_is_whole_and_needs_nothing() -> None:
    """The page is well formed, has three plots, no script, and names no address to load from."""
    document = page(result())
    checker = read(document)
    assert checker.tags.count("svg") == 3
    assert not {"script", "link", "img", "iframe"} & set(checker.tags)
    assert not re.search(r"(src|href|url\()", document)


def test_the_page_has_the_figures() -> None:
    """Goodput, refusals apart, what was dropped, the settings and the warnings are there in words."""
    text = read(page(result())).text
    for words in ("5.0/s", "goodput", "OVERLOADED (not done)", "dropped by the generator", "end of the load"):
        assert words in text
    for note in result().notes:
        assert note in text
    assert "outstanding max" in text


def test_no_number_of_a_plot_is_broken() -> None:
    """Every coordinate is a finite number inside of its drawing."""
    for view in re.findall(r"<svg.*?</svg>", page(result()), re.DOTALL):
        assert "nan" not in view
        assert "inf" not in view
        for found in re.findall(r' d="([^"]*)"', view):
            for x, y in re.findall(r"[ML]([\d.e+-]+) ([\d.e+-]+)", found):
                assert 0 <= float(x) <= 720
                assert 0 <= float(y) <= 260


@pytest.mark.parametrize("kind", [Kind.PUT, Kind.GET])
def test_a_run_without_an_answer_has_a_page(kind: Kind) -> None:
    """Nothing succeeded: the page says so instead of plots."""
    plan = Plan(kind, PLAN.url)
    text = read(page(Result(plan, Tally(window_ns(plan)), started=""))).text
    assert "Nothing succeeded." in text
    assert "Nothing ended." in text


def test_a_single_answer_has_a_curve() -> None:
    """One operation is enough for every plot."""
    tally = Tally(window_ns(PLAN))
    tally.ended(0, Ending("put"), 1, 0)
    found = Result(PLAN, tally, started="")
    assert "<svg" in percentiles(found.rows)
    read(page(found))


def test_cells_and_headline() -> None:
    """A row has its latencies in milliseconds, or dashes if none counted; the headline says what the load was."""
    good = result().rows[0]
    assert cells(good)[:5] == ("put", "ok", "41", "5.0", "107.32")
    assert describe(PLAN) == "open loop of 10/s (poisson arrivals) in 1 process, 8 s after 1 s of warm-up"
    closed = Plan(Kind.GET, PLAN.url, count=9, processes=2, warmup_s=0.0)
    assert describe(closed) == "closed loop of 64 tasks in 2 processes, 9 operations after 0 s of warm-up"
