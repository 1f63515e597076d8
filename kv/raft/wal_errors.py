"""What can go wrong with the write-ahead log, one class for each thing that the caller does about it.

What lives here: the exceptions. What must not: any behaviour.
"""

from __future__ import annotations

CORRUPTION_WAY_OUT = (
    "this replica's log cannot be trusted: stop the node, move its data directory away, "
    "and rejoin it as the README says under 'A lost disk'; the others will fill it"
)


class WalCorruption(Exception):
    """Bytes that were durable are not what was written. The process must not go on with this log."""

    def __init__(self, segment: str, offset: int, detail: str) -> None:
        """`offset` is the byte offset, in the segment file, of the damaged frame or header."""
        super().__init__(
            f"write-ahead log segment {segment}, offset {offset}: {detail}; {CORRUPTION_WAY_OUT}"
        )
        self.segment = segment
        self.offset = offset
        self.detail = detail


class WalFull(OSError):
    """No space (ENOSPC, EDQUOT) for a batch; nothing of it is durable. Retry when there is room."""


class WalFailed(OSError):
    """A write or sync failed: what is durable is unknown. Fatal to the process; never retried.

    After a failed fsync the kernel may drop the dirty pages and report success to the next call
    (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
    """
