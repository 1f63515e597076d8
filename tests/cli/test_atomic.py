"""Commands on keys with levels, conditions, atomic operations and outcomes, against a cluster in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from kv.cli.atomic import status_of
from kv.client.types import Evidence, Outcome, OutcomeState
from kv.v1 import kv_pb2
from tests.cli.running import Run, memory_cluster, runner
from tests.client.fakes import Fault
from tests.client.playing import always
from tests.client.server import GrpcCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[GrpcCluster]:
    """Run one cluster for the tests of this file, which use different keys."""
    with memory_cluster() as running:
        yield running


@pytest.fixture
def kv(cluster: GrpcCluster, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Give a function that runs the command with that cluster."""
    yield runner(cluster, capfd)
    cluster.fake.rule = lambda _node, _request: None
    for partition in cluster.fake.partitions.values():
        partition.lagging.clear()


def test_increment_and_append(kv: Run) -> None:
    """Both print what the key holds now; a delta may be negative; a wrong value is a conflict."""
    assert kv("-o", "raw", "increment", "{n}").stdout == "1\n"
    assert kv("-o", "raw", "increment", "{n}", "-5").stdout == "-4\n"
    fields = json.loads(kv("-o", "json", "increment", "{n}", "10", "--if-value=-4").stdout)
    assert (fields["value"], fields["version"], fields["evidence"]["revision"]) == (6, 3, fields["revision"])
    assert kv("increment", "{n}", "--if-absent").status == 4
    assert kv("-o", "raw", "append", "{s}", "ab").stdout == "2\n"
    assert kv("append", "{s}", "c").stdout.split()[:4] == ["key", "length", "revision", "version"]
    done = kv("increment", "{s}")
    assert (done.status, "NOT_AN_INTEGER" in done.stderr) == (4, True)
    assert kv("increment", "{s}", "much").status == 2


def test_previous_values(kv: Run) -> None:
    """--get-previous shows what the key held, or that there was nothing; raw writes it as it was."""
    first = json.loads(kv("-o", "json", "put", "p", "1", "--get-previous").stdout)
    assert first["previous"] is None
    second = json.loads(kv("-o", "json", "put", "p", "2", "--get-previous").stdout)
    assert second["previous"]["value"] == "1"
    assert "previous" not in json.loads(kv("-o", "json", "put", "p", "3").stdout)
    assert kv("-o", "raw", "delete", "p", "--get-previous").stdout == "3"
    header, row = kv("delete", "p", "--get-previous").stdout.splitlines()
    assert header.split()[:4] == ["key", "deleted", "revision", "previous"]
    assert row.split()[1:2] == ["no"]


@pytest.mark.parametrize("level", ["linearizable", "lease", "session", "bounded:200ms", "stale"])
def test_levels(kv: Run, level: str) -> None:
    """Each level is honoured, and the evidence says so in every form of output."""
    kv("put", "l", "1")
    fields = json.loads(kv("-o", "json", "get", "l", "--level", level).stdout)
    assert fields["evidence"]["level"] == level.partition(":")[0]
    assert ("age_ms" in fields["evidence"]) is (level not in ("linearizable", "lease"))
    header, row = kv("get", "l", "--level", level, "-v").stdout.splitlines()
    assert "epoch" in header
    assert level.partition(":")[0] in row
    assert "epoch" not in kv("get", "l", "--level", level).stdout


def test_several_replicas_answer(kv: Run) -> None:
    """QUORUM and ALL show what each replica said."""
    kv("put", "q", "1")
    fields = json.loads(kv("-o", "json", "get", "q", "--level", "all").stdout)
    assert {answer["node"] for answer in fields["answers"]} == {"n1", "n2", "n3"}
    assert fields["answers"][0] == fields["evidence"]
    assert "what each replica said" in kv("get", "q", "--level", "quorum:2", "--evidence").stdout


def test_a_miss_has_evidence(kv: Run) -> None:
    """With -v a missing key tells where it was looked for."""
    assert "served by" in kv("get", "nothing", "-v").stderr
    assert "served by" not in kv("get", "nothing").stderr


def test_a_preference_names_the_replica(kv: Run, cluster: GrpcCluster) -> None:
    """--prefer sends the read to that node's replica."""
    kv("put", "r", "1")
    for node in cluster.fake.addresses:
        fields = json.loads(kv("-o", "json", "get", "r", "--level", "stale", "--prefer", node).stdout)
        assert fields["evidence"]["node"] == node


def test_scans_show_their_indexes(kv: Run, cluster: GrpcCluster) -> None:
    """With -v a scan ends with the index at which each partition was read."""
    kv("put", "scan1", "1")
    *items, last = kv("-o", "json", "scan", "--prefix", "scan", "-v", "--level", "stale").stdout.splitlines()
    assert [json.loads(item)["key"] for item in items] == ["scan1"]
    assert len(json.loads(last)["evidence"]) == len(cluster.fake.partitions)
    assert "served by" in kv("scan", "--prefix", "scan", "-v").stdout
    assert "served by" not in kv("scan", "--prefix", "scan").stdout


def test_a_write_that_is_not_everywhere(kv: Run, cluster: GrpcCluster) -> None:
    """At level ALL a lagging replica is named, and that the write stands; status 7."""
    assert kv("put", "w", "1", "--write-level", "all").status == 0
    for partition in cluster.fake.partitions.values():
        partition.lagging.add("n3")
    done = kv("put", "w", "2", "--write-level", "all")
    assert done.status == 7
    assert "outcome: it was applied" in done.stderr
    assert "missing: n3" in done.stderr
    assert kv("-o", "raw", "get", "w").stdout == "2"


@pytest.mark.parametrize(
    ("fault", "status", "state"),
    [(Fault.SILENT_AFTER, 0, "applied"), (Fault.SILENT_BEFORE, 4, "not_applied")],
)
def test_what_became_of_a_write(kv: Run, cluster: GrpcCluster, fault: Fault, status: int, state: str) -> None:
    """An unknown outcome ends with status 5 and says what to run; that tells, by its status too."""
    cluster.fake.rule = always(fault)
    done = kv("--timeout", "1s", "put", f"o-{state}", "1")
    assert done.status == 5
    [line] = [line for line in done.stderr.splitlines() if "ask:" in line]
    token = line.split()[-1]
    cluster.fake.rule = lambda _node, _request: None
    asked = kv("outcome", token)
    assert (asked.status, asked.stdout.splitlines()[1].split()[0]) == (status, state)
    fields = json.loads(kv("-o", "json", "outcome", token).stdout)
    assert fields["outcome"] == state
    assert [result["version"] for result in fields["results"]] == ([1] if state == "applied" else [])
    assert kv("-o", "raw", "outcome", token).stdout == f"{state}\n"


def test_statuses_of_outcomes() -> None:
    """Each state has an exit status of its own."""
    proof = Evidence(1, 1, 1, 1, "n1", None)
    assert [status_of(Outcome(state, (), proof)) for state in OutcomeState] == [0, 4, 5]


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "a", "--level", "eventual"),
        ("get", "a", "--level", "bounded"),
        ("get", "a", "--prefer", "two words"),
        ("put", "a", "1", "--write-level", "one"),
        ("scan", "--level", "quorum"),
        ("outcome", "nonsense"),
        ("outcome", "w1-99-1-1-0-0"),
        ("explain", "get", "a", "--level", "eventual"),
        ("explain", "put", "a"),
        ("explain", "get", ""),
        ("explain", "get", "a", "--via", "n9"),
    ],
)
def test_usage_errors(kv: Run, arguments: tuple[str, ...]) -> None:
    """What can never work ends with status 2 and a reason."""
    done = kv(*arguments)
    assert (done.status, done.stdout) == (2, "")
    assert "INVALID_ARGUMENT" in done.stderr or "KEY_EMPTY" in done.stderr


def test_explain_put_and_get(kv: Run, cluster: GrpcCluster) -> None:
    """The whole way as a table and as JSON: where the key lives, who served, what each did and when."""
    shown = kv("explain", "put", "{tag}e", "1").stdout
    for part in ("hash", "partition", "replicas", "evidence", "read index confirmed by", "client", "took"):
        assert part in shown
    assert "n3 (0.300 ms)" in shown
    fields = json.loads(kv("-o", "json", "explain", "get", "{tag}e", "--via", "n2", "--prefer", "n2").stdout)
    assert fields["tag"] == "tag"
    assert fields["result"]["item"]["value"] == "1"
    assert fields["evidence"]["node"] == "n2"
    assert fields["asked"] == cluster.fake.addresses["n2"]
    assert fields["client_us"] > 0
    assert [span["component"] for span in fields["spans"]] == ["router", "leader"]
    missing = json.loads(kv("-o", "json", "explain", "get", "nothing", "--level", "all").stdout)
    assert missing["result"] == {"item": None}
    assert len(missing["answers"]) == 3
    assert "no such key" in kv("explain", "get", "nothing").stdout


def test_explain_passes_errors_on(kv: Run, cluster: GrpcCluster) -> None:
    """An error of the request ends the command with the error's status."""
    cluster.fake.leaders = dict.fromkeys(cluster.fake.leaders)
    try:
        assert kv("explain", "get", "a").status == 6
    finally:
        cluster.fake.leaders = {part.id: part.replicas[0] for part in cluster.fake.map.partitions}


def test_explain_asks_for_a_trace(kv: Run, cluster: GrpcCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch has one operation, asks for its trace, and carries level and preference."""
    asked: list[kv_pb2.BatchRequest] = []
    serve = cluster.fake.serve

    def noted(node: str, request: kv_pb2.PipelinedBatch) -> kv_pb2.PipelinedReply:
        asked.append(request.batch)
        return serve(node, request)

    monkeypatch.setattr(cluster.fake, "serve", noted)
    kv("explain", "get", "a", "--level", "bounded:5ms", "--prefer", "local")
    kv("explain", "put", "a", "1", "--write-level", "all")
    read, write = asked
    assert (read.trace, read.level, read.read.max_age_ms) == (True, kv_pb2.READ_LEVEL_BOUNDED, 5)
    assert read.read.preference == kv_pb2.REPLICA_PREFERENCE_LOCAL
    assert (write.trace, write.write_level) == (True, kv_pb2.WRITE_LEVEL_ALL)
