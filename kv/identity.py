"""Who a node is: the identity of its data directory, and those of the peers it has met.

A Raft member is its log. A node that comes back with an empty directory under its old name
is not that member: it would vote again in a term in which it has voted, or help to elect a
leader without entries that it acknowledged. So each directory has a random incarnation, each
node remembers on disk the incarnation by which it first met each peer, and refuses another.

A directory without its log is no better than an empty one. The log's folder is made before the
identity: an identity without it can only mean that the log was taken away, and is refused.
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
LOG_FOLDER = "wal"
FORMAT = 1


class DataDirectory:
    """A node's directory, locked against a second process, with its identity."""

    def __init__(self, path: Path, node_id: str, cluster: str, fresh_incarnation: int) -> None:
        """Opens or makes the directory; `fresh_incarnation` (random, not 0) is used if it is new.

        Raises InvalidArgument if it belongs to another node or cluster, is in use, its files are damaged,
        or its log was taken away.
        """
        self.path = path
        self.log_folder = path / LOG_FOLDER
        path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take_lock()
            self.incarnation = self._identify(node_id, cluster, fresh_incarnation)
            self._peers = _peers(path / PEERS_FILE)
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidArgument(f"{self.path} is in use by another process: stop it first") from error

    def _identify(self, node_id: str, cluster: str, fresh_incarnation: int) -> int:
        """The directory's incarnation, after a check that it is this node's; a new one is made this node's."""
        file = self.path / IDENTITY_FILE
        identity = _load(file)
        if not identity:
            self.log_folder.mkdir(exist_ok=True)
            _sync_directory(self.path)  # not both at once: a crash may keep the later one only
            identity = {
                "format": FORMAT,
                "node_id": node_id,
                "cluster": cluster,
                "incarnation": fresh_incarnation,
            }
            write_durably(file, json.dumps(identity).encode())
        self._check(identity, node_id, cluster)
        incarnation = _incarnation(identity.get("incarnation"), file)
        self._check_log()
        return incarnation

    def _check(self, identity: dict[str, Any], node_id: str, cluster: str) -> None:
        if identity.get("format") != FORMAT:
            raise InvalidArgument(
                f"{self.path} has format {identity.get('format')}, this version reads {FORMAT}"
            )
        for name, wanted in (("node_id", node_id), ("cluster", cluster)):
            if identity.get(name) != wanted:
                raise InvalidArgument(
                    f"{self.path} belongs to {name} {identity.get(name)!r}, not {wanted!r}: name the right directory"
                )

    def _check_log(self) -> None:
        """Refuse a directory whose log was taken away: this node would vote and acknowledge as one that forgot."""
        if not self.log_folder.is_dir():
            raise InvalidArgument(
                f"{self.log_folder} is gone, but the directory was used: put it back as it was, "
                "or move the whole directory away and go on as after a lost disk",
                metadata={"log_folder": self.log_folder},
            )

    def known(self, peer: str, incarnation: int) -> bool:
        """Whether `incarnation` is the one by which the peer is known; the first one is remembered durably.

        0 is none: it is what a Hello without an incarnation says.
        """
        if incarnation == 0:
            return False
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
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Makes durable which files the directory has."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(loaded, dict):
        raise _damaged(path)
    return loaded


def _peers(path: Path) -> dict[str, int]:
    return {name: _incarnation(value, path) for name, value in _load(path).items()}


def _incarnation(value: object, path: Path) -> int:
    """The value, if it is one that travels: 64 bits, and 0 is none."""
    if type(value) is not int or not 0 < value < 1 << 64:
        raise _damaged(path)
    return value


def _damaged(path: Path) -> InvalidArgument:
    return InvalidArgument(f"{path} is not what this node wrote: restore it, or move the directory away")
