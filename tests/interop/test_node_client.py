"""Another language: a Node.js client made from proto/kv/v1 alone does with a real cluster what ringkv offers.

The client is `client.js`; it plays one scene at a time and prints what came back, the tests judge that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from kv.cli.cluster_process import LocalCluster
from tests.interop import nodejs
from tests.interop.nodejs import NodeClient, Step

# The first test waits for npm and for the cluster.
pytestmark = pytest.mark.timeout(150)

NODES: Final = ("n1", "n2", "n3")
MIN64: Final = "-9223372036854775808"


@pytest.fixture(scope="module")
def client(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> NodeClient:
    """Give the installed client."""
    return nodejs.install(nodejs.require(), tmp_path_factory.mktemp("node"), cluster)


def level(step: Step) -> str:
    """Return the level that the evidence of a reply claims."""
    return str(step["evidence"]["level"]).removeprefix("READ_LEVEL_")


def check_evidence(evidence: dict[str, Any]) -> None:
    """Check what every evidence says, whatever was asked."""
    assert 1 <= evidence["partition"] <= 4
    assert evidence["node"] in NODES
    assert int(evidence["map_epoch"]) >= 1
    assert int(evidence["term"]) >= 1
    assert int(evidence["index"]) >= int(evidence["revision"])


def reasons(steps: dict[str, Step], names: Iterable[str]) -> dict[str, str]:
    """Return the reason with which each of the named steps was refused; it must have been."""
    return {name: steps[name]["error"]["reason"] for name in names}


def operations(step: Step) -> list[dict[str, Any]]:
    """Return what is in each result of a reply, without its kind."""
    return [result[result["result"]] for result in step["results"]]


def test_a_key_lives_its_life(client: NodeClient) -> None:
    """Put, get, get-and-put and delete through different nodes, each reply with its evidence."""
    steps = client.play("life")
    for step in steps.values():
        check_evidence(step["evidence"])
    put, got = steps["put"], steps["get"]
    assert put["version"] == "1"
    assert put["revision"] == put["evidence"]["revision"] == put["evidence"]["index"]
    assert put["previous"] is None
    assert (got["item"]["value"], got["item"]["mod_revision"]) == ("one", put["revision"])
    assert level(got) == "LINEARIZABLE"
    assert got["evidence"]["revision"] == put["revision"]
    assert steps["get-and-put"]["previous"]["value"] == "one"
    assert steps["delete"]["deleted"] is True
    assert steps["delete"]["previous"]["value"] == "two"
    assert steps["get of nothing"]["item"] is None
    assert steps["get of nothing"]["evidence"]["revision"] == "0"
    assert steps["delete of nothing"]["deleted"] is False
    assert steps["delete of nothing"]["previous"] is None


def test_every_read_level_at_every_node(client: NodeClient) -> None:
    """Each level is honoured through each node and named in the evidence, with the age of what may be old."""
    steps = client.play("levels")
    write = steps.pop("put")
    for name, step in steps.items():
        asked, _, place = name.partition(" at ")
        check_evidence(step["evidence"])
        assert step["item"]["value"] == "v", name
        assert int(step["evidence"]["index"]) >= int(write["evidence"]["index"]), name
        expected = asked.split()[0]
        assert level(step) == ("LINEARIZABLE" if expected == "DEFAULT" else expected), name
        if " from " in place:
            assert step["evidence"]["node"] == place.partition(" from ")[2]
        elif asked in {"LINEARIZABLE here", "SESSION", "BOUNDED", "STALE"}:
            assert step["evidence"]["node"] == place, name
        if expected == "BOUNDED":
            assert 0 <= int(step["evidence"]["age_ms"]) <= 2000
        if expected in {"DEFAULT", "LINEARIZABLE"}:
            assert "age_ms" not in step["evidence"], name


def test_quorum_and_all_show_each_answer(client: NodeClient) -> None:
    """QUORUM and ALL reads carry the evidence of each replica that answered, the chosen one first."""
    steps = client.play("levels")
    for node in NODES:
        for asked, count in (("QUORUM", 2), ("QUORUM of 1", 1), ("ALL", 3)):
            step = steps[f"{asked} at {node}"]
            assert len(step["answers"]) == count, asked
            assert len({answer["node"] for answer in step["answers"]}) == count
            assert step["answers"][0] == step["evidence"]
            newest = max(int(answer["index"]) for answer in step["answers"])
            assert int(step["evidence"]["index"]) == newest


def test_lease(client: NodeClient) -> None:
    """A calm leader soon answers from its lease, and says so."""
    lease = client.play("lease")["lease"]
    assert lease["item"]["value"] == "v"
    assert level(lease) == "LEASE"


def test_batches(client: NodeClient) -> None:
    """A batch over several partitions answers each operation, with the evidence of each partition."""
    steps = client.play("batch")
    for name in ("write", "read", "bounded"):
        assert len(steps[name]["results"]) == 20
        partitions = [evidence["partition"] for evidence in steps[name]["evidence"]]
        assert len(partitions) == len(set(partitions)) > 1
        for evidence in steps[name]["evidence"]:
            check_evidence(evidence)
    for name in ("read", "bounded"):
        values = [operation["item"]["value"] for operation in operations(steps[name])]
        assert values == [f"interop/batch/{number}" for number in range(20)]
    assert {evidence["level"] for evidence in steps["bounded"]["evidence"]} == {"READ_LEVEL_BOUNDED"}
    kinds = [result["result"] for result in steps["mixed"]["results"]]
    assert kinds == ["error", "append", "delete"]
    assert operations(steps["mixed"])[0]["reason"] == "NOT_AN_INTEGER"


def test_conditions(client: NodeClient) -> None:
    """A write whose condition holds is done, one whose condition fails is refused for good."""
    steps = client.play("conditions")
    failed = [name for name in steps if name.endswith("fails")]
    assert len(failed) == 5
    assert set(reasons(steps, failed).values()) == {"CONDITION_FAILED"}
    for name in failed:
        error = steps[name]["error"]
        assert (error["definite"], error["code"]) == (True, "ABORTED")
    assert [steps[f"{name} holds"]["version"] for name in ("absent", "revision", "value")] == ["1", "2", "3"]
    assert steps["delete holds"]["deleted"] is True


def test_increment_and_append(client: NodeClient) -> None:
    """Counters hold 64 bits, overflow is an error, and bytes are appended in order."""
    steps = client.play("arithmetic")
    assert [steps[name]["value"] for name in ("from nothing", "on", "back")] == ["-5", "7", "-1"]
    assert steps["as text"]["item"]["value"] == "7"
    assert [steps[name]["length"] for name in ("append to nothing", "append")] == ["2", "4"]
    assert steps["list"]["item"]["value"] == "abcd"
    assert steps["list"]["item"]["version"] == "2"
    assert reasons(steps, ("overflow", "not an integer", "condition")) == {
        "overflow": "INTEGER_OVERFLOW",
        "not an integer": "NOT_AN_INTEGER",
        "condition": "CONDITION_FAILED",
    }
    assert all(steps[name]["error"]["definite"] for name in ("overflow", "not an integer", "condition"))


def test_scans(client: NodeClient) -> None:
    """A scan gives every key of all partitions in order, each partition at one index, at the level asked for."""
    steps = client.play("scan")
    expected = [(f"interop/scan/{number:02}", f"v{number}") for number in range(40)]
    for name in ("all", "READ_LEVEL_LEASE", "READ_LEVEL_SESSION", "READ_LEVEL_BOUNDED", "READ_LEVEL_STALE"):
        pages = steps[name]["pages"]
        assert [(item["key"], item["value"]) for page in pages for item in page["items"]] == expected
        evidence = [found for page in pages for found in page["evidence"]]
        indexes = {found["partition"]: found["index"] for found in evidence}
        assert indexes.keys() == {1, 2, 3, 4}
        assert all(found["index"] == indexes[found["partition"]] for found in evidence)
        levels = {found["level"] for found in evidence}
        assert (
            levels <= {"READ_LEVEL_LINEARIZABLE", "READ_LEVEL_LEASE"}
            if name in {"all", "READ_LEVEL_LEASE"}
            else levels == {name}
        )
    part = [item for page in steps["part"]["pages"] for item in page["items"]]
    assert [item["key"] for item in part] == [key for key, _ in expected[10:15]]
    assert {item["value"] for item in part} == {""}
    assert set(reasons(steps, ("quorum", "all replicas")).values()) == {"INVALID_ARGUMENT"}


def test_transactions(client: NodeClient) -> None:
    """Compares choose a list, lists nest once, and what cannot be done whole is not done at all."""
    steps = client.play("txn")
    assert steps["then"]["succeeded"] is True
    assert [result["result"] for result in steps["then"]["results"]] == ["put", "put"]
    assert steps["else"]["succeeded"] is False
    assert [operation["item"]["value"] for operation in operations(steps["else"])] == ["90", "10"]
    nested = operations(steps["nested"])
    assert [found.get("value") for found in nested[:2]] == ["70", "30"]
    assert nested[2]["succeeded"] is False
    assert nested[2]["results"][0]["append"]["length"] == str(len("moved;"))
    assert nested[3]["item"]["value"] == "70"
    assert steps["unchanged"]["item"]["value"] == "70"
    assert reasons(steps, ("fails whole", "too deep", "two partitions")) == {
        "fails whole": "NOT_AN_INTEGER",
        "too deep": "INVALID_ARGUMENT",
        "two partitions": "CROSS_PARTITION",
    }
    for name in ("then", "else", "nested"):
        check_evidence(steps[name]["evidence"])


def test_bad_input(client: NodeClient) -> None:
    """Each bad request is refused by a definite error that says what to do."""
    steps = client.play("refused")
    assert reasons(steps, steps) == {
        "empty key": "KEY_EMPTY",
        "long key": "KEY_TOO_LONG",
        "large value": "VALUE_TOO_LARGE",
        "unknown level": "INVALID_ARGUMENT",
        "bounded by nothing": "INVALID_ARGUMENT",
        "more replicas than there are": "INVALID_ARGUMENT",
        "unknown write level": "INVALID_ARGUMENT",
        "session from the future": "BEHIND_SESSION",
        "not a token": "INVALID_ARGUMENT",
        "no operations": "INVALID_ARGUMENT",
        "unknown session": "SESSION_EXPIRED",
        "inside a batch": "KEY_EMPTY",
    }
    for name, step in steps.items():
        error = step["error"]
        assert error["definite"] is True, name
        assert error["message"].endswith("."), name
        if error["reason"] == "INVALID_ARGUMENT":
            assert error["code"] == "INVALID_ARGUMENT"
    assert {"index", "applied_index"} <= steps["session from the future"]["error"]["metadata"].keys()


def test_pipeline(client: NodeClient) -> None:
    """Batches in flight on one stream are each answered once; a repeated one has its first result."""
    steps = client.play("pipeline")
    values = {operations(steps[f"reply {place}"])[0]["value"] for place in (1, 2, 3, 4)}
    assert values == {"1", "2", "3", "4"}
    repeated, first = steps["repeated"], steps["reply 2"]
    assert repeated["results"] == first["results"]
    assert [len(steps["reply 5"][name]) for name in ("results", "trace")] == [2, 0]
    assert steps["misdirected"]["error"]["reason"] == "WRONG_PARTITION"
    assert steps["misdirected"]["error"]["definite"] is True
    traced = steps["traced"]
    assert operations(traced)[0]["item"]["value"] == "4"
    assert {step["component"] for step in traced["trace"]} >= {"router"}
    assert all(step["node"] in NODES and step["step"] for step in traced["trace"])


def test_a_request_sent_again(client: NodeClient) -> None:
    """A request with an id that is sent to every node is applied once, and each answers the first result."""
    steps = client.play("again")
    for kind in ("increment", "txn"):
        first = steps[f"{kind} at n1"]
        for node in ("n2", "n3"):
            again = steps[f"{kind} at {node}"]
            assert {**again, "evidence": None} == {**first, "evidence": None}
    assert steps["increment at n1"]["value"] == "5"
    assert steps["acknowledged before"]["error"]["reason"] == "RESULT_EVICTED"  # applied, and forgotten
    assert steps["acknowledged before"]["error"]["definite"] is False
    assert [operation["item"]["value"] for operation in operations(steps["read"])] == ["6", "x"]


def test_outcome_of_a_request(client: NodeClient) -> None:
    """The outcome of an applied request has its result; one never sent is decided, and refused later."""
    steps = client.play("outcome")
    applied = steps["outcome of the applied"]
    assert applied["outcome"] == "WRITE_OUTCOME_APPLIED"
    assert applied["results"] == steps["applied"]["results"]
    for name in ("outcome of one never sent", "asked again"):
        assert steps[name]["outcome"] == "WRITE_OUTCOME_NOT_APPLIED"
        check_evidence(steps[name]["evidence"])
    late = steps["sent too late"]["error"]
    assert (late["reason"], late["definite"]) == ("OUTCOME_DECIDED", True)
    assert steps["value"]["item"]["value"] == "1"


def leader_of(client: NodeClient, key: str) -> str:
    """Write a key through each node, and return the node that leads its partition."""
    return str(client.play("where", key=key)["n3"]["evidence"]["node"])


def test_outcome_of_a_lost_write(client: NodeClient) -> None:
    """Writes whose quorum was away end with a token each, by which another process learns what became of them."""
    key = "{interop-lost}"
    leader = leader_of(client, key)
    others = [node for node in NODES if node != leader]
    client.cluster.pause(*others)
    try:
        lost = client.play("lose", key=key, through=leader, timeout_ms=500)
    finally:
        client.cluster.resume(*others)
    assert lost.keys() == {"piped", "called"}
    for step in lost.values():
        assert step["error"]["reason"] in {"UNKNOWN_OUTCOME", "DEADLINE_EXCEEDED"}
        assert step["error"]["definite"] is False
    tokens = {name: step["error"]["metadata"]["token"] for name, step in lost.items()}
    steps = client.play("ask", key=key, tokens=tokens)
    for name in lost:
        outcome, item = steps[f"outcome of {name}"], steps[f"value of {name}"]["item"]
        if outcome["outcome"] == "WRITE_OUTCOME_APPLIED":
            assert operations(outcome)[0]["value"] == "1"
            assert item["value"] == "1"
        else:
            assert outcome["outcome"] == "WRITE_OUTCOME_NOT_APPLIED"
            assert item is None


def test_write_level_all_without_a_replica(client: NodeClient) -> None:
    """A write at level ALL with one replica away is applied, and its error says which replica is missing."""
    key = "interop/all"
    leader = leader_of(client, key)
    away = next(node for node in NODES if node != leader)
    client.cluster.pause(away)
    try:
        steps = client.play("all", key=key, through=leader)
    finally:
        client.cluster.resume(away)
    error = steps["all"]["error"]
    assert (error["reason"], error["code"]) == ("NOT_ON_ALL_REPLICAS", "DEADLINE_EXCEEDED")
    assert error["definite"] is False
    assert error["metadata"]["missing"] == away
    assert steps["value"]["item"]["value"] == "all"
    assert steps["value"]["item"]["mod_revision"] == error["metadata"]["revision"]


def test_cluster_service(client: NodeClient) -> None:
    """The map and the state of every node are there for programs that want to route by themselves."""
    steps = client.play("cluster")
    for node in NODES:
        found = steps[f"map of {node}"]["map"]
        assert {known["id"]: known["address"] for known in found["nodes"]} == {
            name: spec.address for name, spec in client.cluster.specs.items()
        }
        assert [partition["id"] for partition in found["partitions"]] == [1, 2, 3, 4]
        status = steps[f"status of {node}"]["status"]
        assert status["id"] == node
        assert {replica["partition"] for replica in status["replicas"]} >= {1, 2, 3, 4}


def test_a_machine_without_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Node.js these tests fail and say what to do; they are left out only if the environment says so."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(nodejs.SKIP_VARIABLE, raising=False)
    with pytest.raises(pytest.fail.Exception, match=nodejs.SKIP_VARIABLE):
        nodejs.require()
    monkeypatch.setenv(nodejs.SKIP_VARIABLE, "1")
    with pytest.raises(pytest.skip.Exception):
        nodejs.require()
