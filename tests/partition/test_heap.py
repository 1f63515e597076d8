"""The heap's free pages go back to the system, and large blocks do not live in it."""

from __future__ import annotations

import subprocess
import sys
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


FRESH = """
from kv.partition import heap
from tests.partition.test_heap import resident_bytes
heap.map_large_blocks()
freed = bytes(2 * heap.MAPPED_BYTES_MIN)
del freed
held = resident_bytes()
blocks = [bytes(2 * heap.MAPPED_BYTES_MIN) for _ in range(8)]
print(resident_bytes() - held, heap.MAPPED_BYTES_MIN)
"""


def test_large_blocks_are_untouched_after_one_was_freed() -> None:
    """A block as large as LMDB's, when one was freed before, takes no memory until it is written to."""
    # in a process of its own: the heap of this one has free blocks of that size, which are taken first
    told = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True).stdout
    grown, limit = map(int, told.split())
    assert grown < limit


KEPT = """
import resource
from kv.partition import heap
from tests.partition.test_heap import resident_bytes

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        block = bytearray(b"x") * size
        other = bytes(block)
        del block, other
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

heap.keep_blocks()
faults(4 << 20)
small, large = faults(4 << 20), faults(heap.KEPT_BYTES_MAX)
held = resident_bytes()
with heap.untouched_blocks():
    blocks = [bytes(2 * heap.MAPPED_BYTES_MIN) for _ in range(8)]
print(small, large, resident_bytes() - held, heap.MAPPED_BYTES_MIN)
"""


def test_blocks_of_large_values_are_kept() -> None:
    """A copy of 4 MiB does not begin with a page fault for each of its pages; larger blocks, and LMDB's, are mapped as ever."""
    told = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True).stdout
    small, large, grown, limit = map(int, told.split())
    pages = (4 << 20) // 4096
    assert small < pages < 50 * pages < large
    assert grown < limit, "blocks that nobody writes to are not resident"
