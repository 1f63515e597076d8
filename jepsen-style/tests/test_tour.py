"""Tours: which runs follow one another."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from kv_jepsen.draw import FAMILIES
from kv_jepsen.tour import DELAYING, FAMILIES_A_RUN, PARTS, Leg, tour
from kv_jepsen.workloads import WORKLOADS


def _legs(
    seed: int, count: int, cuts: tuple[str, ...] = ("proxy", "netns"), target: str = "ringkv"
) -> list[Leg]:
    return list(islice(tour(Random(seed), list(WORKLOADS), list(FAMILIES), cuts, target), count))


@pytest.mark.parametrize("seed", range(5))
def test_a_long_tour_meets_everything(seed: int) -> None:
    """In so many runs as there are workloads each one is there; some runs later each family, level and cut."""
    legs = _legs(seed, 40)
    assert {leg.workload for leg in legs[: len(WORKLOADS)]} == set(WORKLOADS)
    assert {family for leg in legs for family in leg.families} == set(FAMILIES) - PARTS
    assert {leg.cut for leg in legs} == {"proxy", "netns"}
    assert {leg.levels for leg in legs} == {("linearizable",), ("*",)}
    assert {"reads=own"} <= {option for leg in legs for option in leg.options}
    assert legs == _legs(seed, 40)


def test_a_tour_asks_for_what_can_be_done() -> None:
    """No run in namespaces has delays where they cannot be made there, and no run has leases, or bounds, while clocks are far apart."""
    for leg in _legs(1, 200):
        assert len(leg.families) <= FAMILIES_A_RUN
        assert leg.cut == "proxy" or not set(leg.families) & DELAYING
        assert ("lease-ms=0" in leg.options) == ("skew" in leg.families)
        assert leg.levels == ("linearizable",) or "skew" not in leg.families
    assert {(leg.cut, leg.levels) for leg in _legs(1, 40)} == {
        (cut, levels) for cut in ("proxy", "netns") for levels in (("*",), ("linearizable",))
    }


def test_namespaces_delay_where_they_can() -> None:
    """With TUN devices runs in namespaces meet every family, too."""
    legs = islice(
        tour(Random(1), list(WORKLOADS), list(FAMILIES), ("proxy", "netns"), "ringkv", late=True), 60
    )
    assert {one for leg in legs if leg.cut == "netns" for one in leg.families} == set(FAMILIES) - PARTS


def test_other_targets_get_no_options_of_ringkv() -> None:
    """Options are the target's own."""
    assert {leg.options for leg in _legs(1, 20, target="etcd")} == {()}


def test_a_tour_of_one_family() -> None:
    """With fewer families than a run takes, each is in it once."""
    legs = list(islice(tour(Random(1), ["register"], ["kill"], ["proxy"], "ringkv"), 3))
    assert [leg.families for leg in legs] == [("kill",)] * 3
