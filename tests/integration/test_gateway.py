"""HTTP on real nodes: any node answers for any key, and says when it cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from kv.cli.cluster_process import LocalCluster
from kv.ids import META_GROUP
from tests.integration.support import until


def http(cluster: LocalCluster, node: str) -> httpx.Client:
    """Return an HTTP client of one node."""
    return httpx.Client(base_url=f"http://{cluster.specs[node].http_address}", timeout=10.0)


def test_any_node_answers_for_any_key(cluster: LocalCluster) -> None:
    """What is put through one node is read through each, with one revision and one server."""
    with http(cluster, "n1") as first:
        put = first.post("/put", json={"key": "http/a", "value": "1"})
        assert put.status_code == 200, put.text
    for node in cluster.specs:
        with http(cluster, node) as other:
            got = other.get("/get", params={"key": "http/a"})
            assert got.status_code == 200, got.text
            assert (got.json()["value"], got.json()["revision"]) == ("1", put.json()["revision"])
            assert got.headers["kv-partition"] == put.headers["kv-partition"]


def test_delete_and_missing(cluster: LocalCluster) -> None:
    """A deleted key is 404 everywhere."""
    with http(cluster, "n2") as client:
        client.post("/put", json={"key": "http/d", "value": "1"}).raise_for_status()
        assert client.delete("/delete", params={"key": "http/d"}).json()["deleted"] is True
    with http(cluster, "n3") as client:
        missing = client.get("/get", params={"key": "http/d"})
        assert missing.status_code == 404
        assert missing.json()["error"]["reason"] == "NOT_FOUND"


def test_conditions(cluster: LocalCluster) -> None:
    """Of two puts that demand absence one wins, through whichever nodes they come."""
    statuses = []
    for node in ("n1", "n2"):
        with http(cluster, node) as client:
            body = {"key": "http/once", "value": node, "if_absent": True}
            statuses.append(client.post("/put", json=body).status_code)
    assert statuses == [200, 409]


def test_limits(cluster: LocalCluster) -> None:
    """A value of the greatest size passes, one byte more is refused."""
    with http(cluster, "n1") as client:
        assert client.post("/put", json={"key": "http/big", "value": "x" * (1 << 20)}).status_code == 200
        refused = client.post("/put", json={"key": "http/big", "value": "x" * ((1 << 20) + 1)})
        assert refused.status_code == 413
        assert refused.json()["error"]["reason"] == "VALUE_TOO_LARGE"
        assert client.delete("/delete", params={"key": "http/big"}).status_code == 200


def test_health_and_metrics(cluster: LocalCluster) -> None:
    """A node of a ready cluster is healthy and ready and shows the project's metrics."""
    with http(cluster, "n1") as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json() == {"status": "ready"}
        assert "kv_" in client.get("/metrics").text


async def test_metrics_count_the_work(cluster: LocalCluster) -> None:
    """What a node commits, applies and syncs shows in its metrics within a maintenance period or two."""
    names = ("kv_commits_total", "kv_applied_ops_total", "kv_elections_total", "kv_wal_syncs_total")

    def totals() -> dict[str, float]:
        summed = dict.fromkeys(names, 0.0)
        for node in cluster.specs:
            with http(cluster, node) as client:
                for line in client.get("/metrics").text.splitlines():
                    name, _, value = line.partition(" ")
                    if name in summed:
                        summed[name] += float(value)
        return summed

    before = totals()
    with http(cluster, "n1") as client:
        for number in range(10):
            client.post("/put", json={"key": f"m{number}", "value": "v"}).raise_for_status()

    async def grown() -> dict[str, float] | None:
        after = totals()
        return after if after["kv_applied_ops_total"] >= before["kv_applied_ops_total"] + 30 else None

    after = await until("the metrics of ten puts on three replicas", grown)
    assert after["kv_commits_total"] >= before["kv_commits_total"] + 30
    assert after["kv_wal_syncs_total"] > before["kv_wal_syncs_total"]
    assert after["kv_elections_total"] > 0


async def test_a_node_without_a_quorum_says_so(tmp_path: Path) -> None:
    """A follower whose leader and quorum are gone lives, acknowledges nothing, is not ready, and recovers."""
    options = {"request_timeout_ms": 1500}
    with LocalCluster(tmp_path, partitions=1, options=options) as cluster:
        cluster.start()
        view = await cluster.wait_ready()
        leaders = {view.leader(group) for group in (META_GROUP, 1)}
        survivor, *others = sorted(cluster.specs, key=lambda node: node in leaders)
        base_url = f"http://{cluster.specs[survivor].http_address}"
        async with httpx.AsyncClient(base_url=base_url, timeout=10.0) as client:
            cluster.kill(*others)
            refused = await client.post("/put", json={"key": "a", "value": "1"})
            assert refused.status_code in (500, 503, 504), refused.text
            reason = refused.json()["error"]["reason"]
            assert reason in {"NO_LEADER", "UNAVAILABLE", "UNKNOWN_OUTCOME", "DEADLINE_EXCEEDED"}
            assert (await client.get("/healthz")).status_code == 200
            await _becomes(client, 503)
            cluster.start(others[0])
            await cluster.wait_ready()
            assert (await client.post("/put", json={"key": "a", "value": "2"})).status_code == 200
            await _becomes(client, 200)


async def _becomes(client: httpx.AsyncClient, status: int) -> None:
    """Wait until /readyz answers with `status`."""
    async with asyncio.timeout(10):
        while True:
            if (await client.get("/readyz")).status_code == status:
                return
            await asyncio.sleep(0.05)  # the node's own view: there is no event to await from outside


@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
def test_errors_have_one_shape(cluster: LocalCluster, node: str) -> None:
    """A request that makes no sense is refused by each node in the shape of all errors."""
    with http(cluster, node) as client:
        refused = client.post("/put", json={"key": "a", "value": "1", "if_revisoin": 1})
        assert refused.status_code == 400
        assert set(refused.json()["error"]) == {"reason", "message", "definite", "metadata"}
