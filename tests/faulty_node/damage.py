"""One flipped bit in a log that nobody has open.

The bit is in a record of a batch that is proved durable by a later one: a node must refuse to start from that. In the very last
batch it could not be told from a torn write (`kv.raft.wal_recovery`), and a member that forgot its promises is no member.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from kv.raft.wal_format import HEADER_BLOCK_BYTES, Record, Scan, decode_segment_header


def flip_bit(folder: Path, rng: Random) -> str | None:
    """Flip one bit; returns where, or None if no batch but the last is there."""
    found = [(path, record) for path in sorted(folder.glob("wal-*.log")) for record in _records(path)]
    last = max((record.batch for _, record in found), default=0)
    proved = [(path, record) for path, record in found if record.batch < last]
    if not proved:
        return None
    path, record = rng.choice(proved)
    offset, bit = rng.randrange(record.offset, record.end), rng.randrange(8)
    with path.open("r+b") as file:
        file.seek(offset)
        held = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([held ^ 1 << bit]))
    return f"bit {bit} of byte {offset} of {path.name}"


def _records(path: Path) -> list[Record]:
    buffer = path.read_bytes()
    header = decode_segment_header(buffer[:HEADER_BLOCK_BYTES])
    return [] if header is None else list(Scan(buffer, header, len(buffer)))
