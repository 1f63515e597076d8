"""Session tokens: what was seen survives the text form, and nothing else is taken for a token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.client.session_token import (
    INDEX_MAX,
    NO_CLUSTER,
    PARTITION_MAX,
    TOKEN_CHARS_MAX,
    TOKEN_PARTITIONS_MAX,
    Seen,
    cluster_mark,
    parse_token,
    write_token,
)
from kv.errors import InvalidArgument

SEEN = st.dictionaries(st.integers(1, PARTITION_MAX), st.integers(1, INDEX_MAX), max_size=20)


@given(st.text(max_size=63), SEEN)
def test_a_token_reads_back(cluster: str, seen: dict[int, int]) -> None:
    """The mark and every index come back; another order makes no other token."""
    mark = cluster_mark(cluster)
    text = write_token(mark, seen)
    assert parse_token(text) == (mark, seen)
    assert write_token(mark, dict(reversed(seen.items()))) == text
    assert mark != NO_CLUSTER


@given(SEEN, SEEN)
def test_indexes_only_grow(one: dict[int, int], other: dict[int, int]) -> None:
    """Observing a token never makes a session forget what it has seen."""
    seen = Seen()
    seen.bind("c")
    for indexes in (one, other):
        seen.observe(write_token(cluster_mark("c"), indexes))
    assert seen.indexes == {part: max(one.get(part, 0), other.get(part, 0)) for part in {*one, *other}}
    assert parse_token(seen.token()) == (cluster_mark("c"), seen.indexes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s1",
        "s2-00000001",
        "s1-0000001",
        "s1-0000000G",
        "s1-00000001-",
        "s1-00000001-1",
        "s1-00000001-1.",
        "s1-00000001-1.G",
        "s1-00000001-0.1",
        "s1-00000001-1.0",
        "s1-00000001-4294967296.1",
        "s1-00000001-1.8000000000000000",
        "s1-00000001-1.1-1.2",
        "s1-00000000-1.1",
        "s1-00000001-\u0661.1",
        "s1-00000001-1.1\n",
        "s1-00000001" + "-1.1" * TOKEN_CHARS_MAX,
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    """Anything else is refused with a definite error, whatever its length."""
    with pytest.raises(InvalidArgument):
        Seen().observe(text)


def test_the_number_of_partitions_is_bounded() -> None:
    """TOKEN_PARTITIONS_MAX partitions are taken, one more is refused."""
    full = dict.fromkeys(range(1, TOKEN_PARTITIONS_MAX + 1), 1)
    assert parse_token(write_token("00000001", full))[1] == full
    full[TOKEN_PARTITIONS_MAX + 1] = 1
    with pytest.raises(InvalidArgument, match="names 4097 partitions"):
        parse_token(write_token("00000001", full))


def test_a_token_of_another_cluster_is_refused() -> None:
    """Known to be another's at once, or as soon as the cluster is known; then nothing of it is kept."""
    seen = Seen()
    seen.bind("one")
    foreign = write_token(cluster_mark("two"), {1: 5})
    with pytest.raises(InvalidArgument, match="of another cluster"):
        seen.observe(foreign)
    assert seen.indexes == {}
    early = Seen()
    early.observe(foreign)
    with pytest.raises(InvalidArgument, match="not of cluster 'one'"):
        early.bind("one")
    assert early.indexes == {}
    early.bind("one")


def test_who_has_seen_nothing_has_a_token_too() -> None:
    """A token before the first answer is valid everywhere and changes nothing."""
    token = Seen().token()
    seen = Seen()
    seen.bind("c")
    seen.note(1, 5)
    seen.observe(token)
    assert seen.indexes == {1: 5}
