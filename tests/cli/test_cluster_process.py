"""The supervisor of node processes, as far as no node is needed; the rest is in tests/integration."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kv.cli.cluster_process import HOST, PORT_FIRST, PORT_LAST, LocalCluster, node_environment
from kv.errors import InvalidArgument


def test_every_node_has_ports_and_folders_of_its_own(tmp_path: Path) -> None:
    """No two nodes share an address or a folder, and ports are below those of outgoing connections."""
    cluster = LocalCluster(tmp_path, nodes=3)
    addresses = [a for spec in cluster.specs.values() for a in (spec.address, spec.http_address)]
    assert len(set(addresses)) == 6
    assert all(PORT_FIRST <= int(address.split(":")[1]) <= PORT_LAST for address in addresses)
    assert len({spec.data_dir for spec in cluster.specs.values()}) == 3
    assert cluster.url == "kv://" + ",".join(spec.address for spec in cluster.specs.values())


def test_a_taken_base_port_is_refused(tmp_path: Path) -> None:
    """A chosen port that somebody listens on is an error that names it."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InvalidArgument, match=str(port)):
            LocalCluster(tmp_path, nodes=1, base_port=port)


@pytest.mark.parametrize("nodes", [0, 10])
def test_the_number_of_nodes_is_bounded(tmp_path: Path, nodes: int) -> None:
    """A cluster on one machine has 1 to 9 nodes."""
    with pytest.raises(InvalidArgument):
        LocalCluster(tmp_path, nodes=nodes)


def test_unknown_nodes_are_refused(tmp_path: Path) -> None:
    """A misspelled node is an error, not nothing."""
    cluster = LocalCluster(tmp_path)
    with pytest.raises(InvalidArgument, match="n1, n2, n3"):
        cluster.pid("n4")
    with pytest.raises(InvalidArgument):
        cluster.kill("n4")


def test_options_reach_the_command_line(tmp_path: Path) -> None:
    """Settings for all nodes and for one node become flags, the latter above the former."""
    cluster = LocalCluster(
        tmp_path, options={"heartbeat_ms": 50, "zone": "a"}, extra={"n2": {"zone": "b"}}, partitions=2
    )
    first, second = cluster.command("n1"), cluster.command("n2")
    assert {"--heartbeat-ms=50", "--zone=a", "--partitions=2", "--node-id=n1"} <= set(first)
    assert {"--heartbeat-ms=50", "--zone=b", "--node-id=n2"} <= set(second)
    assert "--zone=a" not in second


def test_nodes_do_not_inherit_settings() -> None:
    """A KV_* variable of the caller does not reach the nodes; all others do."""
    kept = node_environment({"KV_NODE_ID": "x", "HOME": "/h", "PYTHONPATH": "/p"})
    assert "KV_NODE_ID" not in kept
    assert kept["HOME"] == "/h"
    assert kept["PYTHONPATH"].endswith(":/p")
