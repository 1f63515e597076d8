"""Levels and preferences: their text forms, and what is refused."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client.levels import (
    AGE_MS_MAX,
    REPLICAS_MAX,
    Level,
    Preference,
    PreferenceKind,
    level_of,
    preference_of,
    read_options,
    write_level_of,
)
from kv.client.types import ReadLevel, WriteLevel
from kv.errors import InvalidArgument
from kv.v1 import kv_pb2

PLAIN = [level for level in ReadLevel if level is not ReadLevel.BOUNDED]

LEVELS = st.one_of(
    st.sampled_from(PLAIN).map(Level),
    st.integers(1, AGE_MS_MAX).map(lambda age: Level(ReadLevel.BOUNDED, max_age_ms=age)),
    st.integers(1, REPLICAS_MAX).map(lambda count: Level(ReadLevel.QUORUM, replicas=count)),
)
PREFERENCES = st.one_of(
    st.sampled_from([kind for kind in PreferenceKind if kind is not PreferenceKind.NODE]).map(Preference),
    st.from_regex(r"[a-zA-Z0-9_.-]{1,63}", fullmatch=True).map(
        lambda node: Preference(PreferenceKind.NODE, node)
    ),
    st.sampled_from(["leader", "local", "nearest"]).map(lambda node: Preference(PreferenceKind.NODE, node)),
)


@given(LEVELS)
def test_a_level_is_its_text(level: Level) -> None:
    """What a level is written as is read as that level, in any case."""
    assert Level.parse(str(level)) == level
    assert Level.parse(str(level).upper()) == level
    assert level_of(level) is level


@given(PREFERENCES)
def test_a_preference_is_its_text(preference: Preference) -> None:
    """What a preference is written as is read as that preference, whatever the node is called."""
    assert Preference.parse(str(preference)) == preference
    assert preference_of(preference) is preference


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("linearizable", Level(ReadLevel.LINEARIZABLE)),
        ("Lease", Level(ReadLevel.LEASE)),
        ("bounded:200ms", Level(ReadLevel.BOUNDED, max_age_ms=200)),
        ("bounded:1.5s", Level(ReadLevel.BOUNDED, max_age_ms=1500)),
        ("bounded:0.001s", Level(ReadLevel.BOUNDED, max_age_ms=1)),
        ("bounded:60m", Level(ReadLevel.BOUNDED, max_age_ms=AGE_MS_MAX)),
        ("quorum", Level(ReadLevel.QUORUM)),
        ("quorum:2", Level(ReadLevel.QUORUM, replicas=2)),
        ("quorum:9", Level(ReadLevel.QUORUM, replicas=REPLICAS_MAX)),
        ("all", Level(ReadLevel.ALL)),
    ],
)
def test_levels_are_read(text: str, level: Level) -> None:
    """Each form of the documentation is understood."""
    assert level_of(text) == level


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no read level '': give one of linearizable, lease, session, bounded:200ms"),
        ("eventual", "no read level 'eventual'"),
        ("bounded", "lacks its age: give it as in bounded:200ms"),
        ("bounded:", "lacks its age"),
        ("bounded:200", "the duration '200'"),
        ("bounded:0ms", "above zero"),
        ("bounded:-1ms", "the duration '-1ms'"),
        ("bounded:0.5ms", "whole number of milliseconds"),
        ("bounded:1.0005s", "whole number of milliseconds"),
        ("bounded:61m", "an age of 1 to 3600000 ms, not 3660000"),
        ("quorum:", "is not 1 to 9"),
        ("quorum:0", "is not 1 to 9"),
        ("quorum:10", "is not 1 to 9"),
        ("quorum:two", "is not 1 to 9"),
        ("quorum:\u0662", "is not 1 to 9"),
        ("quorum:" + "1" * 5000, "is not 1 to 9"),
        ("lease:5s", "lease takes no '5s'"),
        ("all:3", "all takes no '3'"),
        ("linearizable:", "takes no ''"),
    ],
)
def test_bad_levels_say_what_is_right(text: str, part: str) -> None:
    """What is no level is refused with a definite error that names it and what is allowed."""
    with pytest.raises(InvalidArgument) as caught:
        level_of(text)
    assert part in caught.value.message
    assert caught.value.definite


@pytest.mark.parametrize(
    "arguments",
    [
        (ReadLevel.BOUNDED,),
        (ReadLevel.BOUNDED, -1),
        (ReadLevel.BOUNDED, AGE_MS_MAX + 1),
        (ReadLevel.STALE, 5),
        (ReadLevel.ALL, 0, 2),
        (ReadLevel.QUORUM, 0, REPLICAS_MAX + 1),
        (ReadLevel.QUORUM, 0, -1),
    ],
)
def test_a_level_cannot_contradict_itself(arguments: tuple[ReadLevel, int, int]) -> None:
    """A bound stands only with the level that it belongs to, and within its limits."""
    with pytest.raises(InvalidArgument):
        Level(*arguments)


def test_the_bare_kind_is_enough_where_no_bound_is_needed() -> None:
    """`ReadLevel.LEASE` means the level; `ReadLevel.BOUNDED` alone is refused."""
    assert level_of(ReadLevel.LEASE) == Level(ReadLevel.LEASE)
    with pytest.raises(InvalidArgument, match="needs an age"):
        level_of(ReadLevel.BOUNDED)


@pytest.mark.parametrize("text", ["", "two words", "node:", "n" * 64, "least loaded"])
def test_bad_preferences_say_what_is_right(text: str) -> None:
    """What is neither a word nor a node's id is refused with the words."""
    with pytest.raises(InvalidArgument, match="give one of leader, nearest, least-loaded, local"):
        preference_of(text)
    with pytest.raises(InvalidArgument, match="goes with a preference for a node"):
        Preference(PreferenceKind.LEADER, "n1")


def test_write_levels() -> None:
    """Both write levels are read in any case; anything else is refused."""
    assert write_level_of("ALL") is write_level_of(WriteLevel.ALL) is WriteLevel.ALL
    assert write_level_of("quorum") is WriteLevel.QUORUM
    with pytest.raises(InvalidArgument, match="no write level 'one': give one of quorum, all"):
        write_level_of("one")


def test_what_is_no_text_is_a_type_error() -> None:
    """Numbers are refused as a defect of the caller, with the argument's name."""
    with pytest.raises(TypeError, match="level must be"):
        level_of(cast(str, 7))
    with pytest.raises(TypeError, match="prefer must be"):
        preference_of(cast(str, 7))
    with pytest.raises(TypeError, match="write_level must be"):
        write_level_of(cast(str, None))


@pytest.mark.parametrize(
    ("prefer", "options"),
    [
        (None, kv_pb2.ReadOptions()),
        ("leader", kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LEADER)),
        ("nearest", kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LOCAL)),
        ("least-loaded", kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LOCAL)),
        ("local", kv_pb2.ReadOptions(preference=kv_pb2.REPLICA_PREFERENCE_LOCAL)),
        ("n3", kv_pb2.ReadOptions(node="n3")),
    ],
)
def test_what_travels_beside_the_level(prefer: str | None, options: kv_pb2.ReadOptions) -> None:
    """Each preference has its form on the wire; bounds travel with any of them."""
    preference = None if prefer is None else preference_of(prefer)
    assert read_options(Level(ReadLevel.STALE), preference) == options
    options.max_age_ms = 5
    assert read_options(Level(ReadLevel.BOUNDED, max_age_ms=5), preference) == options
