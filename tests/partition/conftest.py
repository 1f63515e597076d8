"""What the tests of the partition share: a replica on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.partition.tools import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a replica on a real store, closed after the test."""
    made = Bench(tmp_path / "p")
    yield made
    made.crash()
