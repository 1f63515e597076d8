"""The heap's free pages go back to the system."""

from __future__ import annotations

from pathlib import Path

from kv.partition import heap

BLOCK_BYTES = 4096
BLOCKS = 8192


def resident_bytes() -> int:
    """Return the anonymous resident memory of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux tells it")


def test_free_memory_below_a_block_in_use() -> None:
    """What is free between blocks in use goes back too, which glibc does not do by itself."""
    blocks = [bytes([number % 255 + 1]) * BLOCK_BYTES for number in range(BLOCKS)]
    last = blocks.pop()
    held = resident_bytes()
    del blocks
    heap.trim()
    assert resident_bytes() < held - BLOCKS * BLOCK_BYTES // 2
    assert len(last) == BLOCK_BYTES
