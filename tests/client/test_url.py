"""Properties of the cluster's address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client.duration import parse_duration_s
from kv.client.levels import Level, Preference, PreferenceKind
from kv.client.types import ReadLevel, WriteLevel
from kv.client.url import ENDPOINTS_MAX, ClientOptions, parse_endpoints, parse_url
from kv.errors import InvalidArgument


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("kv://a:1", ClientOptions(("a:1",))),
        ("kv://a:1/", ClientOptions(("a:1",))),
        ("kv://a:1,b.c:2,a:1/", ClientOptions(("a:1", "b.c:2"))),
        ("kv://[::1]:7001/?timeout=500ms", ClientOptions(("[::1]:7001",), timeout_s=0.5)),
        ("kv://a:1?level=stale&timeout=1.5m", ClientOptions(("a:1",), 90.0, Level(ReadLevel.STALE))),
        ("kv://a:1/?level=LINEARIZABLE&timeout=2s", ClientOptions(("a:1",), 2.0)),
        (
            "kv://a:1/?level=bounded:200ms&prefer=nearest&write=all",
            ClientOptions(
                ("a:1",),
                level=Level(ReadLevel.BOUNDED, max_age_ms=200),
                prefer=Preference(PreferenceKind.NEAREST),
                write=WriteLevel.ALL,
            ),
        ),
    ],
)
def test_good_addresses(url: str, options: ClientOptions) -> None:
    """Each part of the address is read, and what is not given has its default."""
    assert parse_url(url) == options


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("", "must begin with kv://"),
        ("http://a:1", "must begin with kv://"),
        ("kv://", "'' is not host:port"),
        ("kv://a", "'a' is not host:port"),
        ("kv://a:1,", "'' is not host:port"),
        ("kv://a:1,:2", "':2' is not host:port"),
        ("kv://a:0", "the port of 'a:0'"),
        ("kv://a:65536", "the port of 'a:65536'"),
        ("kv://a:1/db", "the path 'db'"),
        ("kv://a:1/?retries=3", "no parameter 'retries': the known ones are timeout, level, prefer, write"),
        ("kv://a:1/?timeout", "'timeout' has no value"),
        ("kv://a:1/?timeout=", "'timeout' has no value"),
        ("kv://a:1/?timeout=1s&timeout=2s", "'timeout' is given twice"),
        ("kv://a:1/?timeout=2", "the duration '2'"),
        ("kv://a:1/?timeout=0s", "must be above zero"),
        ("kv://a:1/?timeout=-1s", "the duration '-1s'"),
        ("kv://a:1/?timeout=61m", "the timeout 3660.0 is not"),
        ("kv://a:1/?timeout=2h", "the duration '2h'"),
        ("kv://a:1/?level=eventual", "no read level 'eventual': give one of linearizable, lease"),
        ("kv://a:1/?level=bounded", "lacks its age"),
        ("kv://a:1/?prefer=any one", "no preference 'any one': give one of leader, nearest"),
        ("kv://a:1/?write=one", "no write level 'one': give one of quorum, all"),
    ],
)
def test_bad_addresses_name_the_part(url: str, part: str) -> None:
    """A bad address is refused with a definite error that names the part."""
    with pytest.raises(InvalidArgument) as caught:
        parse_url(url)
    assert part in caught.value.message
    assert caught.value.definite


def test_number_of_addresses_is_bounded() -> None:
    """ENDPOINTS_MAX addresses are taken, none or one more is refused."""
    addresses = [f"a:{port}" for port in range(1, ENDPOINTS_MAX + 1)]
    assert len(parse_endpoints(addresses)) == ENDPOINTS_MAX
    for bad in ([], [*addresses, "b:1"]):
        with pytest.raises(InvalidArgument, match="give 1 to 64 addresses"):
            parse_endpoints(bad)


@given(st.integers(1, 10**6), st.sampled_from([("ms", 0.001), ("s", 1.0), ("m", 60.0)]))
def test_durations(number: int, unit: tuple[str, float]) -> None:
    """A duration is its number times its unit."""
    assert parse_duration_s(f"{number}{unit[0]}") == number * unit[1]
