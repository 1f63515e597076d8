"""What waits how long: the pure part of the program that makes packets late."""

from __future__ import annotations

import socket
from random import Random

import pytest

from kv_jepsen.cuts import delayer
from kv_jepsen.cuts.delayer import Holding

MAC = "02:00:00:00:00:0a"
HARDWARE = bytes.fromhex("02000000000a")


def _packet(address: str, word: bytes) -> bytes:
    """Something that has the destination where an IPv4 header has it."""
    return bytes(16) + socket.inet_aton(address) + word


def test_packets_leave_when_they_are_due_and_in_order() -> None:
    """All packets of a slow link are as late, keep their order, and leave to the hardware address of their rule."""
    holding = Holding(Random(1))
    holding.rule(f"10.0.0.2 {MAC} 0.5 0 0")
    first, second = _packet("10.0.0.2", b"one"), _packet("10.0.0.2", b"two")
    holding.take(first, 1.0)
    holding.take(second, 1.0)
    assert holding.wait_s(1.2) == pytest.approx(0.3)
    assert holding.due(1.4) == []
    assert holding.due(1.5) == [(HARDWARE, first), (HARDWARE, second)]
    assert holding.wait_s(1.5) is None


def test_by_chance_packets_are_later() -> None:
    """Of a weather so many are late by its seconds, the others leave at once, and a rule of zeros ends it."""
    holding = Holding(Random(1))
    holding.rule(f"10.0.0.2 {MAC} 0 0.25 2")
    for _ in range(1000):
        holding.take(_packet("10.0.0.2", b""), 0.0)
    at_once = len(holding.due(0.0))
    assert 700 < at_once < 800
    assert len(holding.due(2.0)) == 1000 - at_once
    holding.rule(f"10.0.0.2 {MAC} 0 0 0")
    for _ in range(100):
        holding.take(_packet("10.0.0.2", b""), 3.0)
    assert len(holding.due(3.0)) == 100


def test_what_is_too_much_or_has_no_rule_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound of packets that wait the next one is dropped, as one to an address that was never named."""
    monkeypatch.setattr(delayer, "HELD_MAX", 3)
    holding = Holding(Random(1))
    holding.take(_packet("10.0.0.9", b""), 0.0)
    assert holding.dropped == 1
    holding.rule(f"10.0.0.2 {MAC} 1 0 0")
    for _ in range(5):
        holding.take(_packet("10.0.0.2", b""), 0.0)
    assert holding.dropped == 3
    assert len(holding.due(1.0)) == 3
