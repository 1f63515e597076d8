"""The heap's free pages go back to the system, and large blocks do not live in it."""

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


def test_large_blocks_are_untouched_after_one_was_freed() -> None:
    """A block as large as LMDB's, when one was freed before, takes no memory until it is written to."""
    heap.map_large_blocks()
    del_me = bytes(2 * heap.MAPPED_BYTES_MIN)
    del del_me
    held = resident_bytes()
    blocks = [bytes(2 * heap.MAPPED_BYTES_MIN) for _ in range(8)]
    assert resident_bytes() < held + heap.MAPPED_BYTES_MIN
    assert len(blocks) == 8
