"""The pytest plugin: the fixture `partitioned_cluster`, its marker, and the folder that stays after a failure.

It is loaded by every run of pytest where this package is installed, so it imports nothing but pytest until the fixture is used.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kv_jepsen.fixture import PartitionedCluster

MARKER = "partitioned_cluster"
OPTIONS = ("nodes", "partitions", "cuts", "settings")

_cluster_key: pytest.StashKey[PartitionedCluster] = pytest.StashKey()
_failed_key: pytest.StashKey[bool] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(nodes=3, partitions=4, cuts='proxy', settings=None): how the fixture {MARKER} is to be",
    )


@pytest.fixture
def partitioned_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PartitionedCluster]:
    """A ringkv cluster of real processes, ready, behind proxies that the test can cut; see kv_jepsen.fixture.PartitionedCluster.

    After a failure its folder stays, with logs, data, and what was recorded; the report of the failure names it.
    """
    item = request.node
    options = _options(item)
    from kv_jepsen.fixture import PartitionedCluster  # noqa: PLC0415 - the plugin must cost nothing where it is not used

    cluster = PartitionedCluster(tmp_path_factory.mktemp("partitioned_cluster"), **options)
    item.stash[_cluster_key] = cluster
    try:
        cluster.open()
        yield cluster
    except BaseException:  # of `open`: the report comes later
        item.stash[_failed_key] = True
        raise
    finally:
        try:
            cluster.close()
        finally:
            if item.stash.get(_failed_key, False):
                cluster.save()
            else:
                cluster.remove()


def _options(item: pytest.Item) -> dict[str, Any]:
    marker = item.get_closest_marker(MARKER)
    if marker is None:
        return {}
    unknown = [name for name in marker.kwargs if name not in OPTIONS]
    if marker.args or unknown:
        wrong = f"not {unknown[0]!r}" if unknown else "by name"
        raise pytest.UsageError(f"the marker {MARKER} takes {', '.join(OPTIONS)}, {wrong}")
    return dict(marker.kwargs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that the test failed, and say where its cluster's folder is."""
    report = yield
    del call
    cluster = item.stash.get(_cluster_key, None)
    if cluster is not None and report.failed:
        item.stash[_failed_key] = True
        report.sections.append(
            ("partitioned cluster", f"logs, data and recordings are kept in {cluster.folder}")
        )
    return report
