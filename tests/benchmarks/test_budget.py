"""Where time and bytes went: what py-spy, perf, ss and /proc print, read and folded, and the tables of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import budget_fold as fold
from benchmarks.budget_fold import Cpu, Socket, Thread
from benchmarks.budget_table import Process, Slice, ceilings_text, slice_text

BOTTOM = "thread (7): MainThread;run (uvloop/__init__.py:92);Runner.run (asyncio/runners.py:118)"
RAW = f"""\
{BOTTOM} 5
{BOTTOM};Wal.write (kv/raft/wal_writer.py:40) 3
{BOTTOM};Replica.apply (kv/partition/partition.py:276);<listcomp> (kv/partition/batch.py:146) 2
{BOTTOM};GrpcStream._read (kv/client/connection.py:175);FromString (google/protobuf/message.py:9) 1
"""

SS = (
    'ESTAB 0      0      127.0.0.1:20001   127.0.0.1:40000 users:(("python",pid=11,fd=3)) cubic '
    "bytes_sent:700 bytes_retrans:3 bytes_acked:700 bytes_received:50 segs_out:5\n"
    'ESTAB 0      0      127.0.0.1:40000   127.0.0.1:20001 users:(("python",pid=12,fd=9)) cubic '
    "bytes_sent:50 bytes_acked:50 bytes_received:700\n"
    'ESTAB 0 0 [::ffff:127.0.0.1]:20002 [::ffff:127.0.0.1]:40001 users:(("python",pid=11,fd=4)) cubic rto:204\n'
    "ESTAB 0 0 127.0.0.1:20001 127.0.0.1:9 cubic bytes_sent:1 bytes_received:1\n"
)


def test_samples_count_for_the_innermost_frame_that_has_a_role() -> None:
    """Protobuf's frames count for who called them; the loop has only what nobody else is in."""
    assert fold.fold(fold.read_raw(RAW)) == {fold.CLIENT: 1, fold.LOOP: 5, fold.DECODE: 2, fold.LOG: 3}


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("kv/raft/wal.py", fold.LOG),
        ("kv/raft/wal_replay.py", fold.LOG),
        ("kv/raft/guard.py", fold.CONSENSUS),
        ("pysyncobj/syncobj.py", fold.CONSENSUS),
        ("kv/raft/transport.py", fold.LINKS),
        ("kv/raft/engine.py", fold.ENGINE),
        ("kv/client/transport.py", fold.CLIENT),
        ("kv/partition/machine.py", fold.APPLY),
        ("kv/partition/queue.py", fold.PARTITION),
        ("kv/node.py", fold.OTHER),
        ("threading.py", fold.OTHER),
    ],
)
def test_each_place_has_its_role(path: str, role: str) -> None:
    """A file's own entry goes before that of its folder, and what has none is other Python."""
    assert fold.role_of(["thread (7): kv-log", f"Some.name ({path}:12)"]) == role


def test_the_poller_of_grpc_is_known_by_its_thread() -> None:
    """It runs Cython, whose frames py-spy does not see."""
    frames = ["thread (9): Thread-1 (_poll_wrapper)", "Thread.run (threading.py:982)"]
    assert fold.role_of(frames) == fold.GRPC
    assert fold.role_of(()) == fold.OTHER


@given(st.dictionaries(st.sampled_from(RAW.splitlines()), st.integers(1, 9)))
def test_folding_loses_no_sample(counts: dict[str, int]) -> None:
    """Every sample belongs to exactly one role, also when a stack comes twice."""
    text = "".join(f"{line.rpartition(' ')[0]} {count}\n" * 2 for line, count in counts.items())
    assert sum(fold.fold(fold.read_raw(text)).values()) == 2 * sum(counts.values())


def test_what_is_no_profile_is_an_error_with_the_line() -> None:
    """A change of format must not pass for a process that did nothing."""
    with pytest.raises(ValueError, match="no samples here"):
        fold.read_raw("no samples here")
    with pytest.raises(ValueError, match="what is this"):
        fold.read_perf("what is this")


def test_perf_samples_are_counted_by_process_and_library() -> None:
    """The interpreter is told from the libraries that lie in a folder with its name."""
    site = "/v/lib/python3.11/site-packages"
    text = f"""
     11  ffffffff813a4413 ([kernel.kallsyms])
     11      7fabe7fc70cd (/py/lib/libpython3.11.so.1.0)
     11      55d0e7fc70cd (/usr/bin/python3.11)
     12      7f9d137b4512 ({site}/grpc/_cython/cygrpc.cpython-311-x86_64-linux-gnu.so)
     12      7f9d137b4512 ({site}/google/_upb/_message.abi3.so)
     12      7f9d137b4512 ({site}/lmdb/cpython.cpython-311-x86_64-linux-gnu.so)
     12      7f9d137b4512 ({site}/xxhash/_xxhash.so)
    """
    assert fold.read_perf(text) == {
        11: {fold.KERNEL: 1, fold.INTERPRETER: 2},
        12: {"gRPC core and its Cython": 1, "protobuf": 1, "LMDB": 1, fold.OTHER_LIBRARY: 1},
    }


def test_a_threads_name_may_have_spaces_and_parentheses() -> None:
    """The fields of /proc/PID/stat are counted from the last parenthesis."""
    text = "12 (a (b) c) S 1 1 1 0 -1 4194304 1 0 0 0 250 31 0 0 20 0 9 0 1 2 3"
    assert fold.read_stat(text) == Thread("a (b) c", 250, 31)


def test_cpu_is_told_apart_by_who_runs_python() -> None:
    """Threads that keep the main one's name run Python; a thread that began meanwhile counts from nothing."""
    before = {7: Thread("python", 100, 10), 8: Thread("event_engine", 5, 5)}
    after = {
        7: Thread("python", 160, 30),
        8: Thread("event_engine", 15, 6),
        9: Thread("python", 2, 1),
    }
    found = fold.cpu_between(before, after, pid=7, ticks_per_s=100)
    assert found == Cpu(python_s=0.62, native_s=0.1, system_s=0.22)
    assert found.total_s == pytest.approx(0.94)


def test_bytes_are_those_of_a_processs_own_sockets_on_the_named_ports() -> None:
    """Each end of a connection counts for its owner; a socket without an owner or of another port for nobody."""
    sockets = fold.read_ss(SS)
    assert sockets[:2] == [Socket(11, 20001, 40000, 700, 50), Socket(12, 40000, 20001, 50, 700)]
    assert sockets[2:] == [Socket(11, 20002, 40001, 0, 0)]
    assert fold.carried(sockets, 11, frozenset({20001})) == (700, 50)
    assert fold.carried(sockets, 12, frozenset({20001})) == (50, 700)
    assert fold.carried(sockets, 11, frozenset({9})) == (0, 0)
    assert fold.reached_by(sockets, 11) == {40000, 40001}


def test_metrics_are_read_with_their_labels() -> None:
    """Comments are none."""
    text = '# HELP kv_x X.\nkv_x_total 5.0\nkv_raft_messages_total{direction="in"} 1e3\n'
    assert fold.read_metrics(text) == {"kv_x_total": 5.0, 'kv_raft_messages_total{direction="in"}': 1000.0}


@given(st.dictionaries(st.sampled_from(fold.ROLES), st.integers(1, 1000)), st.floats(0, 1e6))
def test_a_split_adds_up_to_the_whole(roles: dict[str, int], cpu_us: float) -> None:
    """Also without samples: then nobody knows, and the table says so."""
    found = fold.split(roles, cpu_us)
    assert sum(found.values()) == pytest.approx(cpu_us)
    assert set(found) == (set(roles) or {fold.OTHER})


def _slice() -> Slice:
    client = Process("client", Cpu(0.2, 0.05, 0.05), {fold.CLIENT: 3, fold.LOOP: 1}, {"protobuf": 1}, {})
    leader = Process(
        "leader n1", Cpu(0.5, 0.0, 0.2), {fold.ROUTER: 1}, {"protobuf": 1}, {"bytes into the log": 2400.0}
    )
    return Slice("put", 1, 1000, 1200, 0, 2.0, 1.5, 400.0, (client, leader))


def test_the_table_shares_out_the_cpu_of_each_process_and_adds_up() -> None:
    """Interpreter time by the samples, the rest as /proc has it, bytes for each operation that was counted."""
    lines = slice_text(_slice()).splitlines()
    assert lines[2].startswith("500 operations/s, p50 1.50 ms; 1,000 µs of CPU")
    assert "| client | 150 |  | 150 | 15.0 % |" in lines
    assert "| router |  | 500 | 500 | 50.0 % |" in lines
    assert "| threads without Python | 50.0 |  | 50.0 | 5.0 % |" in lines
    assert "| kernel | 50.0 | 200 | 250 | 25.0 % |" in lines
    assert lines.count("| **sum** | 300 | 700 | 1,000 | 100.0 % |") == 2
    assert "| bytes into the log |  | 2 |" in lines


def test_failed_calls_are_told_and_a_table_without_perf_is_left_out() -> None:
    """What could not be measured is absent, not zero."""
    found = _slice()
    without = tuple(replace(process, libraries={}) for process in found.processes)
    text = slice_text(replace(found, failed=7, processes=without))
    assert "7 calls failed" in text
    assert "library" not in text


def test_a_slice_without_operations_is_refused() -> None:
    """Nothing can be divided by it."""
    with pytest.raises(ValueError, match="without operations"):
        replace(_slice(), operations=0)


def test_ceilings_are_shown_as_rates_and_as_microseconds() -> None:
    """The echo has no latencies, and its cells are empty."""
    text = ceilings_text({"sync": {"per_s": 500.0, "p50_ms": 1.9, "p99_ms": 4.0}, "echo": {"per_s": 1e6}})
    assert "| sync | 500 | 2,000 | 1.900 | 4.000 |" in text
    assert "| echo | 1,000,000 | 1.0 |  |  |" in text
