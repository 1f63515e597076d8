"""The configuration of a node: frozen, validated as a whole, passed down.

Here live the settings that an operator may change, their defaults, their relations, and the
small parts that the inner floors receive (`RaftConfig`, `PartitionConfig`), in bytes and seconds.
Hard limits of the protocol are in `kv.ids`. No other file reads the environment or a configuration
file, and only `load_config` does so here: `NodeConfig(...)` uses its arguments and nothing else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kv.errors import InvalidArgument
from kv.ids import REQUEST_BYTES_MAX, NodeId, check_node_id

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

ENV_PREFIX: Final = "KV_"
PARTITIONS_MAX: Final = 4096
REPLICATION_FACTOR_DEFAULT: Final = 3
PORT_MAX: Final = 65_535
NODE_ID_DEFAULT: Final = "n1"
LISTEN_DEFAULT: Final = "127.0.0.1:7001"
OFF: Final = "off"
"""Instead of an address: not at all."""

RAFT_PORT_OFFSET: Final = 100
"""Raft's port lies so far above a node's own, if `raft_peers` says nothing else."""

ENTRY_OVERHEAD_BYTES_MAX: Final = 64 * KIB
"""What the command around a request of the greatest size may add to it."""

HEARTBEATS_PER_ELECTION_MIN: Final = 3
"""A follower must miss this many heartbeats before it stands, or one late message costs a term."""

MAP_CHECKPOINTS_MIN: Final = 4
"""LMDB copies each changed page: the map must hold several times what one checkpoint writes."""

_WILDCARD_HOSTS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, never bound

Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1 << 44)]


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """What the raft floor needs: times in seconds, sizes in bytes."""

    heartbeat_s: float
    election_min_s: float
    election_max_s: float
    leader_fallback_s: float
    lease_s: float
    clock_drift_max: float
    segment_bytes: int
    entry_bytes_max: int
    log_cache_bytes_max: int
    log_retain_bytes: int
    log_retain_entries: int
    snapshot_chunk_bytes: int
    snapshot_window: int


@dataclass(frozen=True, slots=True)
class PartitionConfig:
    """What the partition floor needs: times in seconds, sizes in bytes."""

    checkpoint_bytes_max: int
    checkpoint_ops_max: int
    checkpoint_interval_s: float
    command_bytes_max: int
    commands_in_flight_max: int
    session_ttl_s: float
    sessions_max: int
    session_results_max: int
    session_result_bytes_max: int
    map_bytes_initial: int
    pending_requests_max: int
    pending_bytes_max: int
    scan_page_bytes: int
    scan_page_items: int
    request_timeout_s: float
    session_wait_s: float
    all_write_timeout_s: float
    scan_snapshots_max: int
    scan_snapshot_bytes_max: int
    scan_snapshot_idle_s: float


def parse_address(text: str) -> tuple[str, int]:
    """Split "host:port" or "[ipv6]:port" into host and port; raise `ValueError` that says what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        raise ValueError(f"{text!r} is not host:port with a port of 0 to {PORT_MAX}")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError(f"{text!r} has an IPv6 address: write it as [address]:port")
    return host, int(port)


def parse_pairs(text: str) -> dict[NodeId, str]:
    """Read "n1=host:port,n2=host:port"; raise `ValueError` that names the part that is wrong."""
    pairs: dict[NodeId, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        node_id, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"{part!r} is not node_id=value")
        if node_id in pairs:
            raise ValueError(f"node id {node_id!r} is given twice")
        pairs[node_id] = value
    return pairs


def _raft_peers(data: dict[str, Any]) -> dict[NodeId, str]:
    """Return where Raft is dialled if nobody says: each node at its own host, `RAFT_PORT_OFFSET` above its port."""
    peers: dict[NodeId, str] = data["peers"]
    return {node_id: _raft_address(address) for node_id, address in peers.items()}


def _raft_address(address: str) -> str:
    host, port = parse_address(address)
    port += RAFT_PORT_OFFSET if port + RAFT_PORT_OFFSET <= PORT_MAX else -RAFT_PORT_OFFSET
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _raft_listen(data: dict[str, Any]) -> str:
    """Return where to bind for Raft if nobody says: on the hosts of `listen`, at the port by which others dial."""
    own: str = data["raft_peers"].get(data["node_id"]) or _raft_address(data["listen"])
    host = data["listen"].rpartition(":")[0]
    return f"{host}:{parse_address(own)[1]}"


def _replicas(data: dict[str, Any]) -> int:
    return min(REPLICATION_FACTOR_DEFAULT, len(data["peers"]))


class NodeConfig(BaseSettings):
    """The settings of one node. Times are in the unit that ends the name, sizes in bytes.

    Raises `pydantic.ValidationError` when built from bad values; `load_config` turns that into `InvalidArgument`.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, validate_default=True, env_ignore_empty=True
    )

    # who and where
    cluster: str = Field(default="ringkv", min_length=1, max_length=63)
    node_id: NodeId = NODE_ID_DEFAULT
    data_dir: Path = Path("ringkv-data")
    peers: Annotated[dict[NodeId, str], NoDecode]  # not given: this node alone
    listen: str = Field(default_factory=lambda data: data["peers"].get(data["node_id"], LISTEN_DEFAULT))
    advertise: str = Field(default_factory=lambda data: data["peers"].get(data["node_id"], data["listen"]))
    http_listen: str | None = None
    # Raft between the nodes has a port of its own: where each node's is dialled, and where this one binds
    raft_peers: Annotated[dict[NodeId, str], NoDecode] = Field(default_factory=_raft_peers)
    raft_listen: str = Field(default_factory=_raft_listen)
    # the direct way of clients beside gRPC: where it listens (port 0: any free one), or "off"
    direct_listen: str = Field(default_factory=lambda data: f"{data['listen'].rpartition(':')[0]}:0")

    # the first cluster map: the same on every node, or they would not agree on it
    partitions: int = Field(default=16, ge=1, le=PARTITIONS_MAX)
    replication_factor: int = Field(default_factory=_replicas, ge=1, le=9)
    virtual_nodes: int = Field(default=64, ge=1, le=1024)
    load_factor: float = Field(default=1.25, ge=1.0, le=10.0, allow_inf_nan=False)
    zones: Annotated[dict[NodeId, str], NoDecode] = Field(default_factory=dict)  # a node not named is its own

    # raft
    heartbeat_ms: Milliseconds = 100
    election_min_ms: Milliseconds = 600
    election_max_ms: Milliseconds = 1200
    leader_fallback_ms: Milliseconds = Field(default_factory=lambda data: data["election_min_ms"])
    # A leader answers LEASE reads for so long after a round that a quorum confirmed; 0 switches LEASE off.
    lease_ms: int = Field(default_factory=lambda data: data.get("election_min_ms", 0) * 4 // 5, ge=0)
    # By which part of its rate any clock may run fast or slow; LEASE relies on it, nothing else does.
    clock_drift_max: float = Field(default=0.05, ge=0.0, lt=1.0, allow_inf_nan=False)
    segment_bytes: Bytes = 64 * MIB
    log_cache_bytes_max: Bytes = 8 * MIB  # per group
    log_cache_total_bytes_max: Bytes = 16 * MIB  # per node, looked at each second
    log_retain_bytes: Bytes = 16 * MIB  # per group
    log_retain_entries: Count = 10_000  # per group
    snapshot_chunk_bytes: Bytes = 256 * KIB
    snapshot_window: Count = 4

    # partition
    checkpoint_bytes_max: Bytes = 8 * MIB
    checkpoint_ops_max: Count = 50_000
    checkpoint_interval_ms: Milliseconds = 30_000
    replay_ops_max: Count = 200_000  # per node: what a restart would apply again, over all partitions
    command_bytes_max: Bytes = 1 * MIB  # requests are joined up to this; a larger one travels alone
    commands_in_flight_max: Count = 4
    session_ttl_s: Count = 3600
    sessions_max: Count = 10_000
    session_results_max: Count = 1024
    session_result_bytes_max: Bytes = 8 * MIB
    map_bytes_initial: Bytes = 1 * GIB
    # A start reads the stores before it serves, for so long at most; 0: not at all.
    warm_up_s: int = Field(default=10, ge=0)
    pending_requests_max: Count = 4096  # per partition
    pending_bytes_max: Bytes = 64 * MIB  # per partition
    scan_page_bytes: Bytes = 256 * KIB
    scan_page_items: Count = 1000
    request_timeout_ms: Milliseconds = 5000
    session_wait_ms: Milliseconds = 500  # a SESSION read waits so long for its replica to catch up
    all_write_timeout_ms: Milliseconds = 1000  # a write at level ALL waits so long for the last replica
    scan_snapshots_max: Count = 16  # per partition
    scan_snapshot_bytes_max: Bytes = 16 * MIB  # per partition: what writes have replaced under open scans
    scan_snapshot_idle_ms: Milliseconds = 10_000

    # router
    forward_in_flight_max: Count = 4096
    streams_max: Count = 1000
    idle_stream_s: Count = 300

    # log of the program
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "pretty"] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the arguments only: a test or an embedding program must not inherit a stray variable."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _default_peers(cls, data: dict[str, Any]) -> dict[str, Any]:
        if data.get("peers"):
            return data
        address = data.get("advertise") or data.get("listen") or LISTEN_DEFAULT
        return {**data, "peers": {data.get("node_id") or NODE_ID_DEFAULT: address}}

    @field_validator("peers", "zones", "raft_peers", mode="before")
    @classmethod
    def _read_pairs(cls, value: object) -> object:
        return parse_pairs(value) if isinstance(value, str) else value

    @field_validator("node_id")
    @classmethod
    def _check_node_id(cls, value: str) -> str:
        _check_id(value)
        return value

    @field_validator("peers")
    @classmethod
    def _check_peers(cls, value: dict[NodeId, str]) -> dict[NodeId, str]:
        for node_id, address in value.items():
            _check_id(node_id)
            _check_dialable(address, f"peer {node_id}")
        return value

    @field_validator("raft_peers")
    @classmethod
    def _check_raft_peers(cls, value: dict[NodeId, str]) -> dict[NodeId, str]:
        for node_id, address in value.items():
            _check_dialable(address, f"raft_peers {node_id}")
        return value

    @field_validator("listen", "http_listen", "raft_listen")
    @classmethod
    def _check_listen(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @field_validator("direct_listen")
    @classmethod
    def _check_direct_listen(cls, value: str) -> str:
        if value != OFF:
            parse_address(value)
        return value

    @field_validator("advertise")
    @classmethod
    def _check_advertise(cls, value: str) -> str:
        _check_dialable(value, "advertise")
        return value

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        problems = [*_node_problems(self), *_raft_problems(self), *_size_problems(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def offers_direct(self) -> bool:
        """Whether clients are offered the direct way.

        Not where they reach this node under another port than it listens at: what stands between (a proxy, a
        forwarded port) would be passed by, and does not forward the other port.
        """
        if self.direct_listen == OFF:
            return False
        return parse_address(self.advertise)[1] == parse_address(self.listen)[1]

    @property
    def entry_bytes_max(self) -> int:
        """The largest log entry: a full joined command, or one request of the greatest size alone."""
        return max(self.command_bytes_max, REQUEST_BYTES_MAX) + ENTRY_OVERHEAD_BYTES_MAX

    @property
    def raft(self) -> RaftConfig:
        """The part that the raft floor receives."""
        return RaftConfig(
            heartbeat_s=self.heartbeat_ms / 1000,
            election_min_s=self.election_min_ms / 1000,
            election_max_s=self.election_max_ms / 1000,
            leader_fallback_s=self.leader_fallback_ms / 1000,
            lease_s=self.lease_ms / 1000,
            clock_drift_max=self.clock_drift_max,
            segment_bytes=self.segment_bytes,
            entry_bytes_max=self.entry_bytes_max,
            log_cache_bytes_max=self.log_cache_bytes_max,
            log_retain_bytes=self.log_retain_bytes,
            log_retain_entries=self.log_retain_entries,
            snapshot_chunk_bytes=self.snapshot_chunk_bytes,
            snapshot_window=self.snapshot_window,
        )

    @property
    def partition(self) -> PartitionConfig:
        """The part that the partition floor receives."""
        return PartitionConfig(
            checkpoint_bytes_max=self.checkpoint_bytes_max,
            checkpoint_ops_max=self.checkpoint_ops_max,
            checkpoint_interval_s=self.checkpoint_interval_ms / 1000,
            command_bytes_max=self.command_bytes_max,
            commands_in_flight_max=self.commands_in_flight_max,
            session_ttl_s=float(self.session_ttl_s),
            sessions_max=self.sessions_max,
            session_results_max=self.session_results_max,
            session_result_bytes_max=self.session_result_bytes_max,
            map_bytes_initial=self.map_bytes_initial,
            pending_requests_max=self.pending_requests_max,
            pending_bytes_max=self.pending_bytes_max,
            scan_page_bytes=self.scan_page_bytes,
            scan_page_items=self.scan_page_items,
            request_timeout_s=self.request_timeout_ms / 1000,
            session_wait_s=self.session_wait_ms / 1000,
            all_write_timeout_s=self.all_write_timeout_ms / 1000,
            scan_snapshots_max=self.scan_snapshots_max,
            scan_snapshot_bytes_max=self.scan_snapshot_bytes_max,
            scan_snapshot_idle_s=self.scan_snapshot_idle_ms / 1000,
        )

    def advice(self) -> tuple[str, ...]:
        """Return what is allowed but seldom meant, one sentence each, for the log at start."""
        advice = []
        if self.replication_factor % 2 == 0:
            advice.append(
                f"replication_factor {self.replication_factor} is even: it survives no more failures than"
                f" {self.replication_factor - 1} and needs one more acknowledgement"
            )
        if self.request_timeout_ms <= 2 * self.election_max_ms:
            advice.append(
                f"request_timeout_ms {self.request_timeout_ms} is not above twice election_max_ms"
                f" {self.election_max_ms}: requests will fail whenever a leader changes"
            )
        return tuple(advice)


def load_config(path: Path | str | None = None, **flags: object) -> NodeConfig:
    """Return the configuration from flags, else the environment (`KV_*`), else the TOML file, else defaults.

    A flag that is None counts as not given. Raises `InvalidArgument` that lists every problem.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        environment = EnvSettingsSource(NodeConfig)()
        return NodeConfig(**{**_read_file(path), **environment, **given})
    except ValidationError as error:
        raise InvalidArgument(f"the configuration is not valid: {_explain(error)}") from error


def _read_file(path: Path | str | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InvalidArgument(f"cannot read the configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the configuration file {path} is not TOML: {error}") from error


def _explain(error: ValidationError) -> str:
    """One line for all problems; those that only follow from another one are left out."""
    lines = []
    for problem in error.errors(include_url=False):
        if problem["type"] == "default_factory_not_called":
            continue
        field = ".".join(str(part) for part in problem["loc"])
        unknown = problem["type"] == "extra_forbidden"
        text = "there is no such setting" if unknown else problem["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {text}" if field else text)
    return "; ".join(lines)


def _check_id(node_id: str) -> None:
    try:
        check_node_id(node_id)
    except InvalidArgument as error:
        raise ValueError(error.message) from error  # the form that pydantic collects


def _check_dialable(address: str, what: str) -> None:
    host, port = parse_address(address)
    if host in _WILDCARD_HOSTS or port == 0:
        raise ValueError(
            f"{what} {address!r} cannot be dialled: set advertise to the host and port that others use"
        )


def _node_problems(config: NodeConfig) -> list[str]:
    problems = []
    if config.node_id not in config.peers:
        problems.append(
            f"node_id {config.node_id!r} is not in peers ({', '.join(sorted(config.peers))}):"
            " peers names every node of the cluster, this one too"
        )
    elif config.peers[config.node_id] != config.advertise:
        problems.append(
            f"peers says {config.peers[config.node_id]!r} for this node, but advertise is {config.advertise!r}:"
            " set advertise to the address in peers"
        )
    if len(set(config.peers.values())) != len(config.peers):
        problems.append("peers gives the same address to two nodes")
    if config.raft_peers.keys() != config.peers.keys():
        problems.append(
            f"raft_peers names {', '.join(sorted(config.raft_peers)) or 'nobody'}, peers names"
            f" {', '.join(sorted(config.peers))}: name the same nodes in both, or leave raft_peers out"
        )
    addresses = [*config.raft_peers.values(), *config.peers.values()]
    if len(config.peers) > 1 and len(set(addresses)) != len(addresses):
        problems.append(
            "raft_peers and peers give the same address twice: give each port one use (if raft_peers is left out,"
            f" it is peers with {RAFT_PORT_OFFSET} added to each port)"
        )
    if strangers := sorted(config.zones.keys() - config.peers.keys()):
        problems.append(
            f"zones names {', '.join(strangers)}, which peers does not: correct the one or the other"
        )
    if config.replication_factor > len(config.peers):
        problems.append(
            f"replication_factor {config.replication_factor} is more than the {len(config.peers)} nodes in peers:"
            " lower it or name more nodes"
        )
    return problems


def _raft_problems(config: NodeConfig) -> list[str]:
    problems = []
    if config.election_min_ms <= HEARTBEATS_PER_ELECTION_MIN * config.heartbeat_ms:
        problems.append(
            f"election_min_ms {config.election_min_ms} is not above {HEARTBEATS_PER_ELECTION_MIN} times"
            f" heartbeat_ms {config.heartbeat_ms}"
        )
    if config.election_max_ms <= config.election_min_ms:
        problems.append(
            f"election_max_ms {config.election_max_ms} is not above election_min_ms {config.election_min_ms}"
        )
    if config.leader_fallback_ms <= config.heartbeat_ms:
        problems.append(
            f"leader_fallback_ms {config.leader_fallback_ms} is not above heartbeat_ms {config.heartbeat_ms}"
        )
    return problems


def _size_problems(config: NodeConfig) -> list[str]:
    in_flight_bytes = config.command_bytes_max * config.commands_in_flight_max
    at_least = (
        ("log_cache_bytes_max", in_flight_bytes, "command_bytes_max times commands_in_flight_max"),
        ("segment_bytes", 2 * config.entry_bytes_max, "twice the largest entry (see command_bytes_max)"),
        (
            "map_bytes_initial",
            MAP_CHECKPOINTS_MIN * config.checkpoint_bytes_max,
            "4 times checkpoint_bytes_max",
        ),
        ("pending_bytes_max", REQUEST_BYTES_MAX, "one request of the greatest size"),
    )
    at_most = (("scan_page_bytes", REQUEST_BYTES_MAX), ("snapshot_chunk_bytes", REQUEST_BYTES_MAX))
    return [
        f"{name} {getattr(config, name)} is below {least}, {why}"
        for name, least, why in at_least
        if getattr(config, name) < least
    ] + [
        f"{name} {getattr(config, name)} is above {most}, the greatest message"
        for name, most in at_most
        if getattr(config, name) > most
    ]
