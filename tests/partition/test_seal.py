"""The seal of a snapshot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv.partition.seal import SEAL_BYTES, SEAL_MAGIC, check_seal, seal


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """Give a sealed file of 3000 bytes."""
    return make(tmp_path, bytes(range(250)) * 12)


def make(directory: Path, content: bytes) -> Path:
    """Return a file that holds `content` and its seal."""
    file = directory / "sealed"
    file.write_bytes(content)
    descriptor = os.open(file, os.O_RDWR)
    seal(descriptor)
    os.close(descriptor)
    return file


def test_golden(tmp_path: Path) -> None:
    """The form of a seal never changes: snapshots travel between versions."""
    assert make(tmp_path, b"content").read_bytes().hex() == (
        "636f6e74656e74" + SEAL_MAGIC.hex() + "917e1274274fc195b27a2d2388d9568c"
    )


@given(st.binary(min_size=1, max_size=3000))
def test_sealed(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """What was sealed passes, and the seal is all that was added."""
    file = make(tmp_path_factory.mktemp("seal"), content)
    check_seal(file)
    assert file.read_bytes()[:-SEAL_BYTES] == content


def test_every_byte_counts(sealed: Path) -> None:
    """No byte of the content or of the seal can change unseen, and none can be missing or too many."""
    whole = sealed.read_bytes()
    changed = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    for damaged in [*changed, whole[:-1], whole + b"\0", whole[1:], whole[-SEAL_BYTES:], b""]:
        sealed.write_bytes(damaged)
        with pytest.raises(ValueError, match="seal"):
            check_seal(sealed)
