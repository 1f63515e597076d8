"""What the tests with real processes share: one cluster for those that leave it as it was, and the logs of failures."""

from __future__ import annotations

import resource
from collections.abc import Generator, Iterator

import pytest

from kv.cli.cluster_process import LocalCluster
from tests.integration import support


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Give a ready cluster of three nodes and four partitions; tests share it and use keys of their own."""
    # A node takes the limit of its parent: one test opens a thousand connections.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with support.started(tmp_path_factory.mktemp("cluster"), partitions=4) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the nodes logged last to the report of a failure."""
    report = yield
    if report.failed:
        report.sections.extend(support.log_tails())
    if report.when == "teardown":
        support.forget_closed()
    return report
