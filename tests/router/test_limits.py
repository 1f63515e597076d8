"""The router's limits as configuration."""

from __future__ import annotations

import pytest

from kv.config import NodeConfig
from kv.errors import InvalidArgument
from kv.router.limits import REQUEST_TIMEOUT_MAX_MS, RouterConfig

PEERS = {"n1": "127.0.0.1:7001"}


def test_a_node_configuration_gives_the_router_its_part() -> None:
    """The settings that an operator changes reach the router."""
    config = RouterConfig.of(
        NodeConfig(peers=PEERS, streams_max=7, request_timeout_ms=1234, forward_in_flight_max=9)
    )
    assert (config.streams_max, config.request_timeout_ms, config.forward_in_flight_max) == (7, 1234, 9)
    assert config.request_timeout_max_ms == REQUEST_TIMEOUT_MAX_MS


def test_a_long_default_timeout_raises_the_bound_with_it() -> None:
    """A default above the usual bound is the operator's wish, not a contradiction."""
    config = RouterConfig.of(NodeConfig(peers=PEERS, request_timeout_ms=REQUEST_TIMEOUT_MAX_MS * 2))
    assert config.request_timeout_max_ms == REQUEST_TIMEOUT_MAX_MS * 2


def test_limits_that_disagree_are_named() -> None:
    """The error names both fields, or the one that is not positive."""
    with pytest.raises(InvalidArgument, match=r"request_timeout_ms 10 is above request_timeout_max_ms 5"):
        RouterConfig(request_timeout_ms=10, request_timeout_max_ms=5)
    with pytest.raises(InvalidArgument, match="streams_max must be above 0"):
        RouterConfig(streams_max=0)
