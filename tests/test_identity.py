"""A node's directory: whose it is, who uses it, and the peers that it has met."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kv.errors import InvalidArgument
from kv.identity import IDENTITY_FILE, PEERS_FILE, DataDirectory, write_durably


def opened(path: Path, node_id: str = "n1", cluster: str = "test", fresh: int = 7) -> DataDirectory:
    """Open the directory."""
    return DataDirectory(path, node_id, cluster, fresh)


def test_a_directory_keeps_its_incarnation(tmp_path: Path) -> None:
    """The incarnation is that of the first start, whatever later starts would have drawn."""
    opened(tmp_path / "new").close()
    again = opened(tmp_path / "new", fresh=8)
    assert again.incarnation == 7
    again.close()


def test_a_peer_is_known_by_its_first_incarnation(tmp_path: Path) -> None:
    """The first incarnation of a peer is remembered over a restart, and no other is let in."""
    first = opened(tmp_path)
    assert first.known("n2", 5)
    assert not first.known("n2", 6)
    first.close()
    again = opened(tmp_path)
    assert not again.known("n2", 6)
    assert not again.known("n4", 0)
    assert again.known("n2", 5)
    assert again.known("n3", 6)
    again.close()


def test_a_directory_is_used_by_one_process(tmp_path: Path) -> None:
    """A second opening is refused until the first is closed."""
    first = opened(tmp_path)
    with pytest.raises(InvalidArgument, match="in use"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


@pytest.mark.parametrize(("node_id", "cluster"), [("n2", "test"), ("n1", "other")])
def test_another_ones_directory_is_refused(tmp_path: Path, node_id: str, cluster: str) -> None:
    """A directory of another node or cluster is refused by name, and is not locked afterwards."""
    opened(tmp_path).close()
    with pytest.raises(InvalidArgument, match="belongs to"):
        opened(tmp_path, node_id, cluster)
    opened(tmp_path).close()


GOOD = {"format": 1, "node_id": "n1", "cluster": "test", "incarnation": 7}
DAMAGES: list[Callable[[], tuple[str, bytes]]] = [
    lambda: (IDENTITY_FILE, b'{"format": 1'),
    lambda: (IDENTITY_FILE, b"\xff"),
    lambda: (IDENTITY_FILE, b"[]"),
    lambda: (IDENTITY_FILE, b"[" * 100_000),
    lambda: (IDENTITY_FILE, json.dumps({**GOOD, "format": 2}).encode()),
    lambda: (IDENTITY_FILE, b'{"format": 1}'),
    *[
        lambda value=value: (IDENTITY_FILE, json.dumps({**GOOD, "incarnation": value}).encode())
        for value in (0, -1, 1 << 64, "7", 7.0, True, None)
    ],
    lambda: (PEERS_FILE, b'{"n2": "five"}'),
    lambda: (PEERS_FILE, b'{"n2": 0}'),
    lambda: (PEERS_FILE, b"null"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused(tmp_path: Path, damage: Callable[[], tuple[str, bytes]]) -> None:
    """A damaged file is refused with its name, and the directory is not locked afterwards."""
    name, content = damage()
    opened(tmp_path).close()
    good = (tmp_path / IDENTITY_FILE).read_bytes()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"is not what this node wrote|has format|belongs to"):
        opened(tmp_path)
    (tmp_path / PEERS_FILE).unlink(missing_ok=True)
    (tmp_path / IDENTITY_FILE).write_bytes(good)
    opened(tmp_path).close()


def test_a_directory_without_its_log_is_refused(tmp_path: Path) -> None:
    """A directory that has an identity and no log folder is refused, and left as it is; with the folder it is opened."""
    first = opened(tmp_path)
    log_folder = first.log_folder
    first.close()
    aside = log_folder.rename(tmp_path / "aside")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="is gone") as caught:
            opened(tmp_path)
        assert caught.value.definite
        assert not log_folder.exists()
    aside.rename(log_folder)
    opened(tmp_path).close()


def test_a_start_that_ended_before_the_identity_is_a_fresh_one(tmp_path: Path) -> None:
    """The log folder comes before the identity: a crash between the two leaves a directory that can be made anew."""
    opened(tmp_path).close()
    (tmp_path / IDENTITY_FILE).unlink()
    opened(tmp_path, fresh=8).close()


def test_a_small_file_is_replaced_whole(tmp_path: Path) -> None:
    """A write replaces the content and leaves no other file."""
    for content in (b"long content", b"short"):
        write_durably(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
