"""Who a node is: the identity of its data directory, and those of the peers it has met.

A Raft member is its log. A node that comes back with an empty directory under its old name
is not that member: it would vote again in a term in which it has voted, or help to elect a
leader without entries that it acknowledged. So each directory has a random incarnation, each
node remembers on disk the incarnation by which it first met each peer, and refuses another.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from kv.errors import InvalidArgument

IDENTITY_FILE = "node.json"
PEERS_FILE = "peers.json"
LOCK_FILE = "lock"
FORMAT = 1


class DataDirectory:
    """A node's directory, locked against a second process, with its identity."""

    def __init__(self, path: Path, node_id: str, cluster: str, fresh_incarnation: int) -> None:
        """Opens or makes the directory; `fresh_incarnation` (random, not 0) is used if it is new.

        Raises InvalidArgument if it belongs to another node or cluster, or is in use.
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidArgument(f"{path} is in use by another process: stop it first") from error
        identity = _load(path / IDENTITY_FILE)
        if not identity:
            identity = {
                "format": FORMAT,
                "node_id": node_id,
                "cluster": cluster,
                "incarnation": fresh_incarnation,
            }
            write_durably(path / IDENTITY_FILE, json.dumps(identity).encode())
        self._check(identity, node_id, cluster)
        self.incarnation = int(identity["incarnation"])
        self._peers: dict[str, int] = {name: int(value) for name, value in _load(path / PEERS_FILE).items()}

    def _check(self, identity: dict[str, Any], node_id: str, cluster: str) -> None:
        if identity.get("format") != FORMAT:
            raise InvalidArgument(
                f"{self.path} has format {identity.get('format')}, this version reads {FORMAT}"
            )
        for name, wanted in (("node_id", node_id), ("cluster", cluster)):
            if identity[name] != wanted:
                raise InvalidArgument(
                    f"{self.path} belongs to {name} {identity[name]!r}, not {wanted!r}: name the right directory"
                )

    def known(self, peer: str, incarnation: int) -> bool:
        """Whether `incarnation` is the one by which the peer is known; the first one is remembered durably."""
        if peer not in self._peers:
            peers = {**self._peers, peer: incarnation}
            write_durably(self.path / PEERS_FILE, json.dumps(peers).encode())
            self._peers = peers
        return self._peers[peer] == incarnation

    def close(self) -> None:
        """Lets go of the lock."""
        os.close(self._lock)


def write_durably(path: Path, data: bytes) -> None:
    """Replaces a small file so that after a crash either the old or the new content is there."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(loaded, dict):
        raise InvalidArgument(f"{path} is not what this node wrote: restore it, or move the directory away")
    return loaded
