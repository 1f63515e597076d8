"""`kv bench` with real client processes, against a cluster in memory: what it does, prints, writes, and how it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kv.bench.kinds import Kind
from kv.cli.app import build
from kv.errors import Overloaded
from kv.ids import NodeId
from kv.v1 import kv_pb2
from tests.cli.running import Done, Run, memory_cluster, runner
from tests.client.memory import rows_of
from tests.client.server import GrpcCluster

SHORT = ("--warmup", "0", "--keys", "50", "-c", "8")


@pytest.fixture
def cluster() -> Iterator[GrpcCluster]:
    """Give a cluster in memory."""
    with memory_cluster() as made:
        yield made


@pytest.fixture
def kv(cluster: GrpcCluster, capfd: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs `kv` with that cluster."""
    return runner(cluster, capfd)


def document(done: Done) -> dict[str, Any]:
    """Return what a run printed as JSON, after a check that it went well."""
    assert done.status == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_puts_are_done_and_shown(kv: Run, cluster: GrpcCluster) -> None:
    """A run writes its keys, prints a headline, the figures and a row for each ending, and ends with 0."""
    done = kv("bench", "put", "-n", "200", *SHORT)
    assert done.status == 0, done.stderr
    assert done.stdout.startswith("put: closed loop of 8 tasks in 1 process, 200 operations")
    assert "succeeded 200, failed 0" in done.stdout
    header, row = (line.split() for line in done.stdout.splitlines()[3:5])
    assert header[:3] == ["operation", "ended", "count"]
    assert header[-5:] == ["p50", "p90", "p99", "p99.9", "max"]
    assert row[:3] == ["put", "ok", "200"]
    sent = {  # by sequence: a request whose answer is late is sent again as it is
        (
            request.partition,
            request.batch.request_id.session,
            request.batch.request_id.sequence,
        ): request.batch
        for _, request in cluster.fake.requests
    }
    puts = [op.put for batch in sent.values() for op in rows_of(batch) if op.HasField("put")]
    assert len(puts) == 200
    assert all(put.key.startswith(b"bench-") and len(put.key) == 16 and len(put.value) == 100 for put in puts)


@pytest.mark.parametrize("asked", [("bench", "--json", "-"), ("-o", "json", "bench")])
def test_json_is_all_that_is_printed(kv: Run, asked: tuple[str, ...]) -> None:
    """With --json - or -o json standard output is one JSON document."""
    found = document(kv(*asked, "mixed", "-n", "100", "--read-ratio", "0.5", *SHORT))
    assert found["succeeded"] == 100
    assert {row["operation"] for row in found["endings"]} == {"get", "put"}
    assert found["plan"]["prefill"] is True


def test_files_are_written(kv: Run, tmp_path: Path) -> None:
    """The page and the document go to the files that are named, beside the table."""
    page, data = tmp_path / "run.html", tmp_path / "run.json"
    done = kv("bench", "get", "-n", "50", "--html", str(page), "--json", str(data), *SHORT)
    assert done.status == 0, done.stderr
    assert "succeeded 50" in done.stdout
    assert json.loads(data.read_text())["succeeded"] == 50
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert page.read_text().count("<svg") == 3


def test_gets_find_what_was_written_before(kv: Run) -> None:
    """What reads gets its keys written before; without them each miss is told."""
    empty = kv("bench", "get", "-n", "50", "--no-prefill", *SHORT)
    assert (empty.status, "50 gets found no key" in empty.stderr) == (0, True)
    full = kv("bench", "get", "-n", "50", *SHORT)
    assert (full.status, "found no key" in full.stderr) == (0, False)


def test_scans_and_batches_count_their_keys(kv: Run) -> None:
    """The rate of keys is that of operations times their size."""
    for kind, size in (("scan", "--scan-length"), ("batch", "--batch-size")):
        found = document(kv("bench", kind, "-n", "10", size, "20", "--json", "-", *SHORT))
        assert found["succeeded"] == 10
        assert found["items_per_s"] == pytest.approx(20 * found["goodput_per_s"], rel=1e-3)


def test_an_open_loop_in_two_processes(kv: Run) -> None:
    """Two processes share the rate and the number of operations, and what they counted is one result."""
    found = document(
        kv(
            "bench",
            "put",
            "-n",
            "60",
            "--rate",
            "200",
            "-p",
            "2",
            "--connections",
            "2",
            "--json",
            "-",
            *SHORT,
        )
    )
    assert (found["succeeded"], found["failed"], found["dropped"]) == (60, 0, 0)
    assert len(found["client_cpu"]) == 2
    assert found["offered_per_s"] > 0
    assert found["lag_ms"]["max"] >= 0


def test_a_run_by_time_ends(kv: Run) -> None:
    """A duration, a warm-up and a zipfian choice of keys are taken as they are given."""
    found = document(
        kv("bench", "put", "--duration", "300ms", "--warmup", "100ms", "--distribution", "zipfian:1.2",
           "--json", "-", "-c", "2")
    )  # fmt: skip
    assert found["measured_s"] == 0.3
    assert (found["plan"]["distribution"], found["plan"]["theta"]) == ("zipfian", 1.2)
    assert found["succeeded"] > 0


def test_nothing_succeeded(kv: Run, cluster: GrpcCluster) -> None:
    """If every operation was refused the refusals are shown by reason, none counts as done, and the status is 1."""

    def refuse(_node: NodeId, request: kv_pb2.PipelinedBatch) -> Overloaded | None:
        return Overloaded() if any(op.HasField("put") for op in rows_of(request.batch)) else None

    cluster.fake.rule = refuse
    done = kv("--timeout", "200ms", "bench", "put", "-n", "10", "--json", "-", *SHORT)
    assert done.status == 1
    found = json.loads(done.stdout)
    assert (found["succeeded"], found["failed"], found["goodput_per_s"]) == (0, 10, 0.0)
    assert sum(row["count"] for row in found["endings"]) == 10
    assert all(row["reason"] and row["outcome"] != "done" for row in found["endings"])


def test_a_cluster_that_is_not_there(kv: Run) -> None:
    """If no node can be reached nothing is measured, and the error and status are those of every other command."""
    done = kv("-e", "127.0.0.1:1", "--timeout", "300ms", "bench", "put", "-n", "1", *SHORT)
    assert done.status in {6, 7}
    assert "error: " in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("put", "--distribution", "normal"), "there is no distribution 'normal'"),
        (("put", "--distribution", "uniform:2"), "there is no distribution 'uniform:2'"),
        (("put", "--distribution", "zipfian:x"), "is not a number"),
        (("put", "--count", "5", "--duration", "5s"), "cannot be combined"),
        (("put", "--duration", "5"), "is not a number with one of the units"),
        (("put", "--rate", "0"), "--rate 0 is not above 0"),
        (("put", "--key-size", "8"), "--key-size 8 is not 10"),
        (("put", "--processes", "0"), "--processes 0 is not 1 to 64"),
        (("put", "--level", "maybe"), "there is no read level"),
        (("put", "--local", "10"), "10 nodes is not 1 to 9"),
        (("put", "--json", "no/such/folder/x.json"), "its folder is not there"),
        (("put", "--html", "."), "it is a folder"),
        (("push",), "'push' is not one of"),
    ],
)
def test_bad_usage_ends_with_2(kv: Run, options: tuple[str, ...], said: str) -> None:
    """What cannot be run is refused before anything is started, and the message names it."""
    done = kv("bench", *options)
    assert done.status == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_the_documentation_names_what_is_there() -> None:
    """Every option, kind and default of docs/bench.md is one of the command, and every option of the command is there."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    command = build().get_command(None, "bench")
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    above = {name for parameter in build().params for name in parameter.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named <= options | above
    assert {name for name in options if name.startswith("--")} <= named | {"--help"}
    assert all(f"| `{kind}` |" in text for kind in Kind)


def test_raw_output_is_refused(kv: Run) -> None:
    """There are no bytes to write as they are."""
    assert kv("-o", "raw", "bench", "put").status == 2


def test_watches_are_refused(kv: Run) -> None:
    """The store has no watches: a definite error says so."""
    done = kv("bench", "watch")
    assert done.status == 1
    assert "UNIMPLEMENTED: the store has no watches" in done.stderr
    assert "definite" in done.stderr
