"""Telemetry: logs go where and how they were told, and each node has metrics of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import REGISTRY as GLOBAL_REGISTRY

from kv.telemetry import Metrics, configure_logging


@pytest.fixture(autouse=True)
def _restore_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_json_lines() -> None:
    """Without a terminal each event is one JSON object on one line, exceptions included."""
    stream = io.StringIO()
    configure_logging("info", "auto", stream)
    log = structlog.get_logger()
    log.debug("hidden")
    log.info("started", node="n1")
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed")
    started, failed = map(json.loads, stream.getvalue().splitlines())
    assert started == {"event": "started", "node": "n1", "level": "info", "timestamp": started["timestamp"]}
    assert failed["exception"][0]["exc_value"] == "boom"


def test_pretty_on_a_terminal() -> None:
    """A terminal gets lines for people, and JSON if that is asked for."""
    stream = Terminal()
    configure_logging("info", "auto", stream)
    structlog.get_logger().info("started")
    assert "started" in stream.getvalue()
    assert not stream.getvalue().startswith("{")

    stream = Terminal()
    configure_logging("info", "json", stream)
    structlog.get_logger().info("started")
    assert json.loads(stream.getvalue())["event"] == "started"


def test_reconfiguration_replaces() -> None:
    """A logger made before a second set-up writes to the new stream."""
    first, second = io.StringIO(), io.StringIO()
    configure_logging("info", "json", first)
    log = structlog.get_logger()
    log.info("one")
    configure_logging("warning", "json", second)
    log.info("two")
    log.warning("three")
    assert first.getvalue().count("\n") == 1
    assert json.loads(second.getvalue())["event"] == "three"


def test_metrics_are_per_node() -> None:
    """Two nodes in one process count apart, and the global registry stays free of both."""
    one, two = Metrics.create(), Metrics.create()
    one.requests.labels("Put", "OK").inc()
    one.leader_groups.set(3)
    assert one.registry.get_sample_value("kv_requests_total", {"method": "Put", "outcome": "OK"}) == 1
    assert two.registry.get_sample_value("kv_requests_total", {"method": "Put", "outcome": "OK"}) is None
    assert GLOBAL_REGISTRY.get_sample_value("kv_leader_groups") is None
    assert b"kv_leader_groups 3.0" in one.exposition()


def test_metric_names() -> None:
    """Every field of Metrics is exposed under its own name with the prefix kv_."""
    metrics = Metrics.create()
    exposed = {family.name for family in metrics.registry.collect()}
    fields = {name for name in Metrics.__dataclass_fields__ if name != "registry"}
    assert exposed == {f"kv_{name}" for name in fields}
