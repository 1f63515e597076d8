"""Histories as text: each format is recognized, read, written and read again; what is wrong is named with its line."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_jepsen.formats import UnreadableHistory, dump_edn, dump_jsonl, jsonl_line, parse, recognized
from kv_jepsen.generate import Plan, correct
from kv_jepsen.history import FrozenMap, History, Op, OpType, Outcome
from kv_jepsen.models import MODELS

DATA = Path(__file__).parent / "data"
FILES = sorted([*DATA.glob("jepsen-etcd/*.log"), *DATA.glob("kv/*.txt")])

ETCD = """INFO  jepsen.core - Worker 1 starting
INFO  jepsen.util - 0\t:invoke\t:cas\t[3 0]
INFO  jepsen.util - 1   :invoke :read   nil
java.lang.Exception: whatever
INFO  jepsen.util - :nemesis\t:info\t:start\t"Cut off everything"
INFO  jepsen.util - 0\t:fail\t:cas\t[3 0]
INFO  jepsen.util - 1   :fail   :read   :timed-out
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_recorded_histories_survive_both_our_formats(file: Path) -> None:
    """Reading a recorded history, writing it as jsonl or EDN and reading that gives the same operations."""
    history = parse(file.read_text(encoding="utf-8"))
    assert parse(dump_jsonl(history)).ops == history.ops
    assert parse(dump_edn(history)).ops == history.ops


@pytest.mark.parametrize("model", sorted(MODELS))
@given(seed=st.integers(0, 10**6))
def test_generated_histories_survive_both_our_formats(model: str, seed: int) -> None:
    """Values of every model, keys and times survive a round trip."""
    history = correct(model, Plan(calls=12, keys=2), Random(seed))
    assert parse(dump_jsonl(history)).ops == history.ops
    assert parse(dump_edn(history)).ops == history.ops


def test_maps_sets_and_evidence_survive() -> None:
    """What JSON has no sign for, and the evidence of replies, is kept."""
    value = (FrozenMap({1: "a"}), FrozenMap({"$map": 2}), FrozenMap({"x": (1,)}), frozenset([1, 2]))
    ops = [
        Op(0, "nemesis", OpType.INFO, "cut", value="a,b/c"),
        Op(1, 0, OpType.INVOKE, "read", "k", None, 10),
        Op(2, 0, OpType.OK, "read", "k", value, 20, extra={"index": 7, "node": "n1"}),
    ]
    assert parse(dump_jsonl(History(ops))).ops == tuple(ops)
    assert parse(dump_edn(History(ops))).ops == tuple(ops)


def test_an_etcd_log_skips_lines_of_other_shapes() -> None:
    """Columns are separated by tabs or spaces; lines of another shape are no operations."""
    first, second = parse(ETCD).calls
    assert (first.f, first.input, first.outcome, first.error) == ("cas", (3, 0), Outcome.FAILED, None)
    assert (second.f, second.outcome, second.error) == ("read", Outcome.FAILED, "timed-out")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (ETCD, "etcd"),
        ('\n{"process":0,"type":"invoke","f":"read"}', "jsonl"),
        ('{ "process": 0}', "jsonl"),
        ("{:process 0}", "edn"),
        ("; comment\n[{:process 0}]", "edn"),
        ("#jepsen.history.Op{:process 0}", "edn"),
    ],
)
def test_the_format_is_recognized(text: str, form: str) -> None:
    """By the first thing in the text, or by any line of an etcd log."""
    assert recognized(text) == form


def test_jepsens_own_edn_is_read() -> None:
    """A vector of tagged maps with times, indexes, errors that are vectors, and members of its own."""
    text = """[#jepsen.history.Op{:index 0, :time 31, :type :invoke, :process 2, :f :write, :value 4}
      {:index 1 :time 40 :type :info :process 2 :f :write :value 4 :error [:timeout "n1"] :node "n1"}
      {:index 2 :time 41 :type :info :process :nemesis :f :start :value nil}]"""
    history = parse(text)
    (call,) = history.calls
    assert (call.outcome, call.start_ns, call.end_ns) == (Outcome.UNKNOWN, 31, 40)
    assert call.error == '[:timeout "n1"]'
    assert call.extra == {"node": "n1"}
    assert history.notes[0].process == "nemesis"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("hello", "no known format"),
        (";only a comment", "no operation"),
        ('{"process":0,"type":"invoke","f":"read"}\n{"process":0', "line 2: not JSON"),
        ('{"process":0,"type":"invoke","f":"read"}\n[1]', "line 2: an operation is a JSON object"),
        ('{"process":0,"type":"invoke"}', "line 1: the operation has no 'f'"),
        ('{"process":0,"type":"begin","f":"read"}', "line 1: the type 'begin'"),
        ('{"process":1.5,"type":"ok","f":"read"}', "line 1: the process 1.5"),
        ('{"process":true,"type":"ok","f":"read"}', "line 1: the process True"),
        ('{"process":1,"type":"ok","f":"read","time_ns":"now"}', "line 1: the time 'now'"),
        ('{"process":1,"type":"ok","f":"read","extra":3}', "line 1: extra is a map"),
        ('\n\n{"process":1,"type":"ok","f":"read"}', "line 3: process 1 completes read"),
        ('{"process":1,"type":"ok","f":"read","value":{"$map":3}}', "line 1: .map takes pairs"),
        (
            '{"process":1,"type":"ok","f":"read","value":{"$set":[1,{"$map":[1]}]}}',
            "line 1: .map takes pairs",
        ),
        ('{"process":1,"value":' + "9" * 5000 + "}", "line 1: not JSON"),
        ("{:process " + "9" * 5000 + "}", "line 1: a number of more than"),
        ("{:process 0 :type :invoke :f :read}\n{:process 0", "line 2: the text ends"),
        ("{:process 0 :type :invoke :f :read}\n17", "line 2: an operation is a map"),
        ("{:process 0 :type :ok :f :read}", "line 1: process 0 completes read"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, words: str) -> None:
    """Text that is no history is refused; the error says where and why."""
    with pytest.raises(UnreadableHistory, match=words):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but `UnreadableHistory` comes out of bad text."""
    with contextlib.suppress(UnreadableHistory):
        assert len(parse(text)) > 0


def test_what_no_history_holds_is_not_written() -> None:
    """An object or a number without a JSON form is an error when it is recorded, not a file that nobody reads."""
    for value in (object(), float("nan")):
        with pytest.raises(ValueError, match=r"cannot be written|JSON compliant"):
            jsonl_line(Op(0, 0, OpType.INVOKE, "write", value=value))


INDEPENDENT = """{:type :invoke, :f :write, :value [7 1], :process 0, :time 1, :index 0}
{:type :info, :f :start-partition, :value :majority, :process :nemesis, :time 2, :index 1}
{:type :ok, :f :write, :value [7 1], :process 0, :time 3, :index 2}
{:type :invoke, :f :read, :value [8 nil], :process 1, :time 4, :index 3}
{:type :ok, :f :read, :value #jepsen.independent.Tuple [8 nil], :process 1, :time 5, :index 4}
{:type :invoke, :f :cas, :value [7 [1 2]], :process 2, :time 6, :index 5}
{:type :info, :f :cas, :value [7 [1 2]], :process 2, :time 7, :index 6, :error :timeout}
"""


def test_keys_of_independent_histories_are_taken_out_of_the_values() -> None:
    """Jepsen's `independent` writes a key and a value as one: they are judged key by key, and notes stay as they are."""
    history = parse(INDEPENDENT)
    assert [(call.f, call.key, call.input, call.output) for call in history.calls] == [
        ("write", 7, 1, 1),
        ("read", 8, None, None),
        ("cas", 7, (1, 2), None),
    ]
    assert [note.value for note in history.notes] == ["majority"]


def test_pairs_that_are_values_stay_values() -> None:
    """A register with versions answers pairs too, but asks with nothing; and without a read nothing tells."""
    versioned = INDEPENDENT.replace("[8 nil], :process 1, :time 4", "nil, :process 1, :time 4")
    assert {call.key for call in parse(versioned).calls} == {None}
    unread = "".join(line for line in INDEPENDENT.splitlines(keepends=True) if ":read" not in line)
    assert {call.key for call in parse(unread).calls} == {None}
