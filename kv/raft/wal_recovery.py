"""Reading a write-ahead log back after a start: which bytes count, and what is corruption.

What lives here: the shell that reads segments through `Files`, and the rules about their ends. What must
not: the meaning of records (`wal_replay`) and writing new ones (`wal_writer`).

- A segment that has a successor ends where the successor's header says. Any bad byte before is corruption.
- The last segment ends at its first bad frame. That is a torn write, and what is valid before it stays,
  unless a valid frame of a later batch follows: then the bad bytes had been synced, and it is corruption.
- A last segment with a bad header and nothing but zeros behind it was being created: it is removed.

What was read may be in the kernel's page cache only (a process that died before its sync, or whose sync
failed and marked the pages clean), but the caller is going to treat it as durable. So the last batch is
written again, with the same bytes at the same place, and synced before anything relies on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from kv.raft.files import Files
from kv.raft.wal_errors import WalCorruption
from kv.raft.wal_format import (
    FORMAT_VERSION,
    HEADER_BLOCK_BYTES,
    Scan,
    SegmentHeader,
    decode_segment_header,
    encode_segment_header,
    segment_name,
    segment_sequence,
)
from kv.raft.wal_replay import GroupLog, Replay, check_complete
from kv.raft.wal_writer import Segment


@dataclass(frozen=True, slots=True)
class Recovered:
    """What recovery found: segments oldest first, groups, and the number of the next batch."""

    segments: list[Segment]
    groups: dict[int, GroupLog]
    batch_next: int


def recover(files: Files, cache_bytes_max: int, cache_total_bytes_max: int) -> Recovered:
    """Replay all segments; raises WalCorruption, or OSError if the disk fails."""
    replay = Replay(cache_bytes_max, cache_total_bytes_max)
    headers = _read_headers(files)
    _check_sequence(headers)
    segments: list[Segment] = []
    batch_next = headers[0].first_batch if headers else 1
    for header, following in zip(headers, [*headers[1:], None], strict=False):  # no header: no segment
        if header.first_batch != batch_next:
            name = segment_name(header.sequence)
            raise WalCorruption(name, 0, f"it begins with batch {header.first_batch}, not {batch_next}")
        segment, batch_next = _read_segment(files, header, following, replay)
        segments.append(segment)
    _check_groups(replay, segments)
    return Recovered(segments, replay.groups, batch_next)


def _read_headers(files: Files) -> list[SegmentHeader]:
    """Headers of all segments, oldest first; removes a last segment that was never used."""
    names = [name for name in sorted(files.names()) if segment_sequence(name) is not None]
    headers: list[SegmentHeader] = []
    for name in names:
        block = files.read(name, 0, HEADER_BLOCK_BYTES)
        header = decode_segment_header(block)
        if header is not None and header.sequence == segment_sequence(name):
            headers.append(header)
        elif name == names[-1] and _is_unused(files, name):
            files.remove(name)
            files.sync_directory()
        else:
            raise WalCorruption(
                name, 0, f"the segment's header is damaged, or not of format version {FORMAT_VERSION}"
            )
    return headers


def _is_unused(files: Files, name: str) -> bool:
    """Whether nothing follows the header: it is durable before the first record is written."""
    rest = files.read(name, HEADER_BLOCK_BYTES, files.size(name))
    return rest.count(0) == len(rest)


def _check_sequence(headers: list[SegmentHeader]) -> None:
    """The segments must be consecutive: the oldest may be gone, but none between."""
    for previous, header in pairwise(headers):
        if not header.previous_sequence == previous.sequence == header.sequence - 1:
            raise WalCorruption(
                segment_name(header.sequence),
                0,
                f"segment {segment_name(header.sequence - 1)} before it is missing: the one found before it "
                f"is {segment_name(previous.sequence)}",
            )


def _read_segment(
    files: Files, header: SegmentHeader, following: SegmentHeader | None, replay: Replay
) -> tuple[Segment, int]:
    """Replay one segment; returns it and the number of the batch that comes after it."""
    name = segment_name(header.sequence)
    size = files.size(name)
    scan = Scan(partial(files.read, name), header, following.previous_end if following else size)
    _replay(scan, name, header.sequence, replay)
    if following is None:
        _check_tail(scan, name)
        _harden(files, name, header, scan)
    elif scan.end != following.previous_end:
        raise WalCorruption(
            name, scan.end, f"a damaged record before the segment's end at {following.previous_end}"
        )
    return Segment(name, header, header.seed, scan.end, size), scan.batch_next


def _replay(scan: Scan, name: str, sequence: int, replay: Replay) -> None:
    for record in scan:
        try:
            replay.apply(sequence, record)
        except ValueError as error:
            raise WalCorruption(name, record.offset, f"a record out of place: {error}") from error


def _check_tail(scan: Scan, name: str) -> None:
    later = scan.later_batch_offset()
    if later is not None:
        raise WalCorruption(
            name, scan.end, f"a damaged record of batch {scan.batch}, with a later batch at {later} behind it"
        )


def _harden(files: Files, name: str, header: SegmentHeader, scan: Scan) -> None:
    """Make the last batch durable whatever the kernel thinks of it; the first time, the header too.

    The bytes are those that were scanned, not a second reading: what the kernel only seems to have on disk
    may read otherwise the next time.
    """
    if scan.batch_start == HEADER_BLOCK_BYTES:
        files.write(name, 0, [encode_segment_header(header), scan.last_batch])
    else:
        files.write(name, scan.batch_start, [scan.last_batch])
    files.sync(name)
    files.sync_directory()


def _check_groups(replay: Replay, segments: list[Segment]) -> None:
    """Every group must be whole, or records are missing: say where the log ends without them."""
    for group, log in sorted(replay.groups.items()):
        try:
            check_complete(log)
        except ValueError as error:
            last = segments[-1]
            raise WalCorruption(last.name, last.end, f"group {group} is not whole: {error}") from error
