"""The configuration: precedence of its sources, relations between its fields, and messages that name both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from kv.config import (
    ENTRY_OVERHEAD_BYTES_MAX,
    ENV_PREFIX,
    MIB,
    PARTITIONS_MAX,
    NodeConfig,
    load_config,
    parse_address,
    parse_pairs,
)
from kv.errors import ExitCode, InvalidArgument
from kv.ids import REQUEST_BYTES_MAX

THREE = "n1=127.0.0.1:7001, n2=127.0.0.1:7002, n3=127.0.0.1:7003"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


def problem(**flags: object) -> str:
    """Return the message with which these flags are refused."""
    with pytest.raises(InvalidArgument) as caught:
        load_config(None, **flags)
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value.message


def test_defaults_are_one_node() -> None:
    """Without any setting the configuration is a valid cluster of one node with one replica."""
    config = load_config()
    assert config.peers == {"n1": "127.0.0.1:7001"}
    assert config.listen == config.advertise == "127.0.0.1:7001"
    assert config.replication_factor == 1
    assert config.leader_fallback_ms == config.election_min_ms
    assert config.advice() == ()


def test_addresses_follow_peers() -> None:
    """Given its name and the peers, a node listens at its own address and keeps three replicas."""
    config = load_config(node_id="n2", peers=THREE)
    assert config.listen == config.advertise == "127.0.0.1:7002"
    assert config.replication_factor == 3
    assert sorted(config.peers) == ["n1", "n2", "n3"]


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins over the environment, that over the file, and that over the default."""
    file = tmp_path / "kv.toml"
    file.write_text(
        "heartbeat_ms = 11\nelection_min_ms = 700\nsnapshot_window = 9\n[peers]\nn1 = '127.0.0.1:9'\n"
    )
    monkeypatch.setenv("KV_HEARTBEAT_MS", "22")
    monkeypatch.setenv("KV_ELECTION_MIN_MS", "800")
    config = load_config(file, heartbeat_ms=33, election_min_ms=None)
    assert (config.heartbeat_ms, config.election_min_ms, config.snapshot_window) == (33, 800, 9)
    assert config.listen == "127.0.0.1:9"
    assert config.partitions == 16


def test_peers_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers have the same short form in the environment as on the command line."""
    monkeypatch.setenv("KV_PEERS", THREE)
    assert load_config().peers == parse_pairs(THREE)


def test_construction_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only load_config looks at the environment, so that an embedding program decides alone."""
    monkeypatch.setenv("KV_HEARTBEAT_MS", "22")
    assert NodeConfig(peers={"n1": "h:1"}).heartbeat_ms == 100


def test_frozen() -> None:
    """A configuration cannot be changed after it was validated."""
    config = load_config()
    with pytest.raises(ValidationError):
        config.heartbeat_ms = 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"election_min_ms": 300}, ["election_min_ms 300", "heartbeat_ms 100"]),
        ({"election_max_ms": 600}, ["election_max_ms 600", "election_min_ms 600"]),
        ({"leader_fallback_ms": 100}, ["leader_fallback_ms 100", "heartbeat_ms 100"]),
        ({"log_cache_bytes_max": 4 * MIB - 1}, ["log_cache_bytes_max", "command_bytes_max"]),
        ({"segment_bytes": 8 * MIB}, ["segment_bytes", "command_bytes_max"]),
        ({"map_bytes_initial": 32 * MIB - 1}, ["map_bytes_initial", "checkpoint_bytes_max"]),
        ({"pending_bytes_max": 4 * MIB - 1}, ["pending_bytes_max", "request"]),
        ({"scan_page_bytes": 4 * MIB + 1}, ["scan_page_bytes", "message"]),
        ({"snapshot_chunk_bytes": 4 * MIB + 1}, ["snapshot_chunk_bytes", "message"]),
        ({"replication_factor": 4, "peers": THREE}, ["replication_factor 4", "3 nodes in peers"]),
        ({"node_id": "n9", "peers": THREE}, ["node_id 'n9'", "peers (n1, n2, n3)"]),
        ({"advertise": "h:1", "peers": THREE}, ["peers says '127.0.0.1:7001'", "advertise is 'h:1'"]),
        ({"peers": "n1=h:1,n2=h:1"}, ["peers", "same address"]),
        ({"zones": "n7=a", "peers": THREE}, ["zones names n7", "peers"]),
    ],
)
def test_relations_name_both_fields(flags: dict[str, object], words: list[str]) -> None:
    """When two settings disagree the message names both."""
    message = problem(**flags)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "flags",
    [
        {"election_min_ms": 301, "leader_fallback_ms": 101},
        {"election_max_ms": 601},
        {"log_cache_bytes_max": 4 * MIB},
        {"segment_bytes": 2 * (REQUEST_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX)},
        {"map_bytes_initial": 32 * MIB},
        {"pending_bytes_max": 4 * MIB, "scan_page_bytes": 4 * MIB, "snapshot_chunk_bytes": 4 * MIB},
        {"partitions": 1},
        {"partitions": PARTITIONS_MAX},
        {"replication_factor": 3, "peers": THREE},
    ],
)
def test_bounds_are_inclusive(flags: dict[str, object]) -> None:
    """A setting exactly at its bound is accepted."""
    config = load_config(None, **flags)
    assert config.heartbeat_ms == 100


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"partitions": 0}, "partitions"),
        ({"partitions": PARTITIONS_MAX + 1}, "partitions"),
        ({"load_factor": 0.99}, "load_factor"),
        ({"load_factor": float("nan")}, "load_factor"),
        ({"heartbeat_ms": 0}, "heartbeat_ms"),
        ({"node_id": "a b"}, "node_id"),
        ({"cluster": ""}, "cluster"),
        ({"log_level": "loud"}, "log_level"),
        ({"hearbeat_ms": 5}, "hearbeat_ms: there is no such setting"),
        ({"listen": "7001"}, "listen: '7001' is not host:port"),
        ({"http_listen": "h:70000"}, "http_listen"),
        ({"peers": "n1"}, "peers: 'n1' is not node_id=value"),
        ({"peers": "n1=h:1,n1=h:2"}, "peers: node id 'n1' is given twice"),
        ({"listen": "0.0.0.0:7001"}, "set advertise"),
        ({"listen": "127.0.0.1:0"}, "set advertise"),
    ],
)
def test_single_fields(flags: dict[str, object], field: str) -> None:
    """A bad value is refused under the name of its field."""
    assert field in problem(**flags)


def test_wildcard_listen_with_advertise() -> None:
    """A node may listen everywhere, on any port, as long as it says where it can be dialled."""
    config = load_config(listen="0.0.0.0:0", advertise="kv1.example:7001")
    assert config.peers == {"n1": "kv1.example:7001"}


def test_all_problems_at_once() -> None:
    """One attempt shows every problem, and none that only follows from another."""
    message = problem(heartbeat_ms=300, election_max_ms=5, replication_factor=9)
    assert message.count(";") == 2
    assert problem(listen="x").count(";") == 1  # peers are made from it, too


def test_files(tmp_path: Path) -> None:
    """A file that is missing or is not TOML is named in the error."""
    with pytest.raises(InvalidArgument, match=r"cannot read .*none\.toml"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("= 3")
    with pytest.raises(InvalidArgument, match=r"bad\.toml is not TOML"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b'cluster = "\xe9"')
    with pytest.raises(InvalidArgument, match="is not TOML"):
        load_config(tmp_path / "latin.toml")


def test_parts_are_in_seconds_and_bytes() -> None:
    """The inner floors receive base units, and the entry limit covers the greatest request."""
    config = load_config(heartbeat_ms=50, request_timeout_ms=2500)
    assert config.raft.heartbeat_s == 0.05
    assert config.raft.election_max_s == 1.2
    assert config.raft.entry_bytes_max == REQUEST_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX
    assert config.partition.request_timeout_s == 2.5
    assert config.partition.session_ttl_s == 3600.0


def test_advice() -> None:
    """What is allowed but seldom meant is said, not refused."""
    config = load_config(peers=THREE, replication_factor=2, request_timeout_ms=2400)
    even, timeout = config.advice()
    assert "replication_factor 2 is even" in even
    assert "request_timeout_ms 2400" in timeout
    assert "election_max_ms 1200" in timeout


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("h:1", ("h", 1)),
        ("[::1]:7001", ("::1", 7001)),
        (":0", ("", 0)),
        ("1.2.3.4:65535", ("1.2.3.4", 65535)),
    ],
)
def test_parse_address(text: str, parsed: tuple[str, int]) -> None:
    """An address is host:port, with brackets around IPv6."""
    assert parse_address(text) == parsed


@pytest.mark.parametrize("text", ["", "h", "h:", "h:x", "h:-1", "h:65536", "::1:7001", "h:\u0661"])
def test_bad_addresses(text: str) -> None:
    """What is not host:port is refused with the text itself."""
    with pytest.raises(ValueError, match=r"not host:port|IPv6"):
        parse_address(text)
