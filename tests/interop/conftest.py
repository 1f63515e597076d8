"""What the tests with programs in other languages share: a real cluster, and the logs of failures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kv.cli.cluster_process import LocalCluster
from tests.integration import support
from tests.integration.conftest import pytest_runtest_makereport  # noqa: F401 - a hook


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Give a ready cluster of three nodes and four partitions; tests share it and use keys of their own."""
    with support.started(tmp_path_factory.mktemp("interop"), partitions=4) as made:
        yield made
