"""Targets for what is read from a disk: the write-ahead log, the store's marks, snapshots, sessions, settings.

Byte-wise damage of a checksummed format is mostly noticed at once, so two targets go around the checksum:
`wal-records` writes any sequence of records with right checksums, `wal-damage` and `snapshot-file` take the
input as a list of edits to something valid, and hold what comes out against what had been there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from struct import Struct

from kv.config import load_config
from kv.errors import InvalidArgument
from kv.identity import IDENTITY_FILE, LOG_FOLDER, PEERS_FILE, DataDirectory
from kv.partition.checkpoint import Checkpoint, UnknownFormat
from kv.partition.session import Session
from kv.partition.snapshot import FileSource
from kv.partition.store import ReplicaCorrupt, Store, read_checkpoint
from kv.raft.wal import Wal, WalCorruption
from kv.raft.wal_format import (
    FRAME_HEADER_BYTES,
    HEADER_BLOCK_BYTES,
    PAYLOAD_BYTES_MAX,
    Kind,
    Scan,
    SegmentHeader,
    decode_frame,
    decode_segment_header,
    encode_frame_header,
    encode_segment_header,
    segment_name,
)
from kv.sim.disk import MemoryFile, MemoryFiles
from kv.sim.faults import format_schedule, parse_schedule
from kv.sim.schedule import Plan, generate
from tests.fuzz.engine import Check, Target, plain
from tests.fuzz.mutate import Field, mutate_bytes, mutate_message, mutate_text, parse, serialize
from tests.raft.wal_tools import SALT, GroupState, add, compact, flush, open_wal, states

SEGMENT_BYTES = 2048
FIRST = SegmentHeader(1, 1, 0, 0, SALT)
INDEX_MAX = 1 << 62
"""Above it a log has no room for what the check appends."""

_EDIT = Struct("<BHBB")
"""File, offset, kind of edit, operand."""


# --- the log's frames ------------------------------------------------------------------------------


def frame(
    kind: int, group: int, index: int, term: int, payload: bytes, batch: int = 1, last: int = 1
) -> bytes:
    """A record of the first segment with a right checksum."""
    return encode_frame_header(FIRST.seed, batch, group, kind, last, index, term, payload) + payload


def _frame_seeds() -> list[bytes]:
    header = encode_segment_header(FIRST)
    frames = frame(1, 1, 3, 1, b"\x01abc", last=0) + frame(2, 1, 0, 2, b"n1")
    return [header + frames, header + frames + frame(3, 1, 3, 0, b"", batch=2) + bytes(80), header, frames]


def _check_frames(data: bytes) -> str:
    header = decode_segment_header(data)
    if header is not None:
        assert encode_segment_header(header) == data[:HEADER_BLOCK_BYTES]
    scan = Scan(data, FIRST, len(data))
    records = list(scan)
    for record in records:
        again = frame(
            record.kind, record.group, record.index, record.term, record.payload, record.batch,
            data[record.offset + FRAME_HEADER_BYTES - 17],
        )  # fmt: skip
        assert again == data[record.offset : record.end], "a record that decodes is the one that was encoded"
        assert decode_frame(data, record.offset, record.end, FIRST.seed) == record
    later = scan.later_batch_offset()
    assert later is None or later >= scan.end
    return f"header {header is not None}, records {min(len(records), 4)}, later {later is not None}"


# --- any records with right checksums ----------------------------------------------------------------


def disk_of(records: bytes, name: str = segment_name(1)) -> MemoryFiles:
    """A disk with one segment that holds these frames."""
    files = MemoryFiles()
    data = encode_segment_header(FIRST) + records
    data += bytes(-len(data) % SEGMENT_BYTES + SEGMENT_BYTES)
    files.files[name] = MemoryFile(bytearray(data), bytearray(data))
    files.durable_files = dict(files.files)
    return files


def _record_seeds() -> list[bytes]:
    logs = [
        [(5, 1, 2, 0, bytes(8)), (2, 1, 0, 1, b"n1"), (1, 1, 3, 1, b"\x01a"), (1, 1, 4, 1, b"\x01b")],
        [(5, 1, 2, 0, bytes(8)), (1, 1, 3, 1, b"\x01"), (3, 1, 3, 0, b""), (1, 1, 3, 2, b"\x01c")],
        [(5, 2, 2, 0, bytes(8)), (1, 2, 3, 1, b"\x01"), (1, 2, 4, 1, b"\x01"), (4, 2, 4, 1, bytes(8))],
        [(5, 1, 2, 0, bytes(8)), (5, 2, 2, 0, bytes(8)), (5, 1, 9, 3, bytes(8)), (6, 2, 0, 0, b"")],
        [(1, 1, 3, 1, b"\x01x"), (4, 1, 2, 0, bytes(8)), (1, 1, 3, 1, b"\x01x"), (2, 1, 0, 1, b"")],
    ]
    return [serialize([_record_field(record) for record in log]) for log in logs]


def _record_field(record: tuple[int, int, int, int, bytes]) -> Field:
    numbers = [Field(number, 0, value) for number, value in enumerate(record[:4], 1)]
    return Field(1, 2, serialize([*numbers, Field(5, 2, record[4])]))


def _records_in(data: bytes) -> list[bytes]:
    """The frames that an input stands for; fields that are missing are 0 or empty."""
    frames = []
    for record in parse(data) or []:
        if not isinstance(record.value, list):
            continue
        numbers = {field.number: field.value for field in record.value}
        kind, group, index, term = (
            value if isinstance(value := numbers.get(n, 0), int) else 0 for n in range(1, 5)
        )
        payload = numbers.get(5, b"")
        payload = serialize(payload) if isinstance(payload, list) else payload
        if isinstance(payload, int) or len(payload) > PAYLOAD_BYTES_MAX or kind % 256 not in set(Kind):
            continue
        frames.append(frame(kind % 256, group, index, term, payload, last=0))
    return frames


def _check_records(data: bytes) -> str:
    frames = _records_in(data)
    files = disk_of(b"".join(frames))
    try:
        wal = open_wal(files, SEGMENT_BYTES)
    except WalCorruption as corruption:
        return "refused: " + re.sub(r"\d+", "N", corruption.detail)
    found = states(wal)
    assert states(open_wal(files, SEGMENT_BYTES)) == found, "recovery changed what it recovered"
    _check_goes_on(files, wal, found)
    return f"groups {len(found)}, entries {min(sum(len(state[3]) for state in found.values()), 4)}"


def _check_goes_on(files: MemoryFiles, wal: Wal, found: dict[int, GroupState]) -> None:
    """A log that was accepted takes more, and keeps it over the next start."""
    wanted = dict(found)
    for number in wal.groups():
        journal = wal.journal(number)
        if journal.base and journal.last < INDEX_MAX and journal.last_term < INDEX_MAX:
            add(journal, 1, term=journal.last_term, size=20)
            wanted[number] = states(wal)[number]
    if wal.dirty:
        flush(wal)
    assert states(open_wal(files, SEGMENT_BYTES)) == wanted, "what was appended after recovery is lost"


# --- damage to a real log ------------------------------------------------------------------------------


class History:
    """A real log, and the state of its groups after each record that was ever appended."""

    def __init__(self, *, compacted: bool) -> None:
        self.files = MemoryFiles()
        self.states: list[dict[int, GroupState]] = [{}]
        self._wal = wal = open_wal(self.files, SEGMENT_BYTES)
        for number in (1, 2):
            wal.journal(number).bootstrap()
            self._note()
        flush(wal)
        for term in range(1, 12):
            self._work(term)
        if compacted:
            wal.journal(1).compact_to(wal.journal(1).last - 1)
            self._note()
            flush(wal)
            compact(wal)
        self._work(12)

    def _note(self) -> None:
        self.states.append(states(self._wal))

    def _work(self, term: int) -> None:
        """One batch of several records."""
        journal, other = self._wal.journal(1), self._wal.journal(2)
        journal.set_hard_state(term, "n1")
        self._note()
        for size in (30, 80):
            add(journal, 1, term=term, size=size)
            self._note()
        if term % 3 == 0:
            journal.truncate_from(journal.last)
            self._note()
        if term % 5 == 1:
            add(other, 1, term=term)
            self._note()
        flush(self._wal)


def edits(data: bytes) -> list[tuple[int, int, int, int]]:
    """The edits that an input stands for."""
    return [_EDIT.unpack_from(data, at) for at in range(0, len(data) - _EDIT.size + 1, _EDIT.size)]


def apply_edit(content: bytearray, offset: int, kind: int, operand: int) -> None:
    """Change bytes of `content`, whose length stays."""
    at = offset % len(content)
    match kind % 6:
        case 0:
            content[at] ^= operand or 1
        case 1:
            content[at] = operand
        case 2:
            end = min(len(content), at + 8 * operand + 1)
            content[at:end] = bytes(end - at)
        case 3:
            content[at:] = bytes(len(content) - at)
        case 4:
            source = bytes(content[at : at + 8 * operand + 1])
            to = (at + 97 * operand) % len(content)
            content[to : to + len(source)] = source[: len(content) - to]
        case _:
            content[at : at + 4] = (operand << 24 | 0xFFFFFF).to_bytes(4, "big")[: len(content) - at]


def _damage_seeds() -> list[bytes]:
    made = [
        [],
        [(0, 600, 0, 1)],
        [(1, 600, 2, 3)],
        [(2, 0, 1, 0)],
        [(2, 900, 3, 0)],
        [(1, 700, 4, 9), (0, 9, 5, 1)],
    ]
    return [bytes([log]) + b"".join(_EDIT.pack(*edit) for edit in edits) for edits in made for log in (0, 1)]


@contextmanager
def _make_damage(_: Path) -> Iterator[Check]:
    histories = [History(compacted=False), History(compacted=True)]

    def check(data: bytes) -> str:
        history = histories[data[0] % 2 if data else 0]
        files = history.files.copy()
        names = files.names()
        for number, offset, kind, operand in edits(data[1:]):
            name = names[number % len(names)]
            if kind == 255 and name in files.files:
                # The oldest stays: that it is gone is what compaction does, and nothing tells the two apart.
                if name != files.names()[0]:
                    del files.files[name]
            elif name in files.files:
                apply_edit(files.files[name].data, offset, kind, operand)
        try:
            found = states(open_wal(files, SEGMENT_BYTES))
        except WalCorruption as corruption:
            return "refused: " + re.sub(r"[0-9a-f]{4,}|\d+", "N", corruption.detail)
        assert found in history.states, "damage made a log that never was"
        return f"whole {found == history.states[-1]}"

    yield check


# --- the store ------------------------------------------------------------------------------------------


def _check_mark(data: bytes) -> str:
    try:
        mark = Checkpoint.decode(data)
    except UnknownFormat as refusal:
        return "refused: " + re.sub(r"\d+", "N", str(refusal))
    assert mark.encode() == data, "a mark that decodes is the one that was encoded"
    return "mark"


def _check_session(data: bytes) -> str:
    try:
        session = Session.decode(data)
    except ValueError as refusal:
        return "refused: " + re.sub(r"\d+", "N", str(refusal))
    assert session.encode() == data, "a session that decodes is the one that was encoded"
    assert session.result_bytes == sum(map(len, session.results.values()))
    return f"session of {min(len(session.results), 3)} and {min(len(session.tombstones), 3)}"


def _session_seeds() -> list[bytes]:
    full = Session(stamp=5 << 16, time_ms=7, acknowledged=1, forgotten=2, tombstones={3: None, 9: None})
    full.keep(5, b"late")
    full.keep(4, b"")
    one = Session(stamp=1, time_ms=2)
    one.keep(1, bytes(40))
    return [full.encode(), one.encode(), Session(stamp=1, time_ms=0).encode()]


def snapshot_of(directory: Path) -> bytes:
    """A small snapshot, as it travels."""
    store = Store.open(directory, 7, map_bytes_initial=1 << 20)
    for n in range(20):
        store.put(b"%d" % n, bytes(100), is_new=True)
    store.checkpoint(Checkpoint(7, 40, 6, 5, 1000, 20), [(1, b"session")])
    source = FileSource(store, "fuzz")
    source.prepare()
    try:
        return source.read(0, source.total_bytes)
    finally:
        source.close()
        store.close()


@contextmanager
def _make_snapshot_file(directory: Path) -> Iterator[Check]:
    whole = snapshot_of(directory / "store")
    file = directory / "damaged.mdb"

    def check(data: bytes) -> str:
        content = bytearray(whole)
        for _, offset, kind, operand in edits(data):
            apply_edit(content, offset * 2 + operand, kind, operand)
            if kind == 255:
                del content[offset % len(content) + 1 :]
        file.write_bytes(content)
        try:
            mark = read_checkpoint(file)
        except ReplicaCorrupt:
            return "refused"
        assert content == whole, "a damaged snapshot was taken for a good one"
        assert mark.applied_index == 40
        return "whole"

    yield check


def _snapshot_seeds() -> list[bytes]:
    made = [
        [],
        [(0, 10, 0, 1)],
        [(0, 5000, 1, 7)],
        [(0, 2040, 5, 3)],
        [(0, 9000, 255, 0)],
        [(0, 4000, 2, 200)],
    ]
    return [b"".join(_EDIT.pack(*edit) for edit in edits) for edits in made]


# --- files that people write or move -------------------------------------------------------------------------


@contextmanager
def _make_identity(directory: Path) -> Iterator[Check]:
    (directory / LOG_FOLDER).mkdir()

    def check(data: bytes) -> str:
        name = PEERS_FILE if data[:1] == b"p" else IDENTITY_FILE
        for old in (IDENTITY_FILE, PEERS_FILE):
            (directory / old).unlink(missing_ok=True)
        (directory / name).write_bytes(data[1:])
        try:
            opened = DataDirectory(directory, "n1", "test", 5)
        except InvalidArgument as refusal:
            (directory / name).unlink()
            DataDirectory(directory, "n1", "test", 5).close()  # raises if the refused one is still locked
            return "refused: " + refusal.message.split("/")[-1].partition(" ")[2][:12]
        try:
            assert 0 < opened.incarnation < 1 << 64, "an incarnation travels as 64 bits, and 0 is none"
            return f"opened, n2 known {opened.known('n2', 7)}"
        finally:
            opened.close()

    yield check


def _identity_seeds() -> list[bytes]:
    identity = b'{"format": 1, "node_id": "n1", "cluster": "test", "incarnation": 77}'
    return [
        b"i" + identity,
        b'p{"n2": 7, "n3": 8}',
        b'p{"n2": 6}',
        b"i{}",
        b"p{}",
        b"i" + identity.replace(b"1,", b"2,"),
    ]


@contextmanager
def _make_config(directory: Path) -> Iterator[Check]:
    file = directory / "kv.toml"
    os.environ.pop("KV_NODE_ID", None)

    def check(data: bytes) -> str:
        file.write_bytes(data)
        try:
            config = load_config(file)
        except InvalidArgument as refusal:
            return "refused: " + re.sub(r"\d+", "N", refusal.message.rpartition("kv.toml")[2])[:60]
        assert load_config(file) == config
        assert config.raft.entry_bytes_max > 0
        return f"config of {min(len(config.peers), 4)}"

    yield check


def _config_seeds() -> list[bytes]:
    return [
        b'node_id = "n1"\npeers = "n1=h1:7000,n2=h2:7000,n3=h3:7000"\npartitions = 8\n',
        b'cluster = "c"\nlisten = "[::1]:7000"\nheartbeat_ms = 100\nload_factor = 1.5\n',
        b'[peers]\nn1 = "h:1"\n[zones]\nn1 = "a"\n',
        b'peers = {n1 = "h:1", n2 = "h:2"}\nreplication_factor = 2\nlog_level = "debug"\nsegment_bytes = 67108864',
    ]


def _check_schedule(data: bytes) -> str:
    try:
        faults = parse_schedule(data.decode("utf-8", errors="surrogateescape"))
    except InvalidArgument as refusal:
        return "refused: " + refusal.message.partition(": ")[2][:12]
    written = format_schedule(faults)  # times to the millisecond
    assert format_schedule(parse_schedule(written)) == written, "a schedule that is written reads back"
    return f"schedule of {min(len({fault.kind for fault in faults}), 6)} kinds"


def _schedule_seeds() -> list[bytes]:
    plan = Plan(nodes=("n1", "n2", "n3"), clients=("c1",), partitions=2, flips_max=1)
    drawn = [format_schedule(generate(Random(seed), plan, 60.0)).encode() for seed in range(6)]
    return [*drawn, b"# a comment\n\n3.5 cut n1>n2\n4 heal *\n", b""]


TARGETS = (
    Target("wal-frames", "bytes of a segment scan to frames that encode to the same bytes", _frame_seeds,
           plain(_check_frames), mutate_bytes),
    Target("wal-records", "records in any order are refused, or make a log that reads back and goes on",
           _record_seeds, plain(_check_records), mutate_message),
    Target("wal-damage", "a damaged log is refused, or is in a state in which it was", _damage_seeds,
           _make_damage, mutate_bytes),
    Target("store-mark", "the mark of a store is refused or encodes to the same bytes",
           lambda: [Checkpoint(7).encode(), Checkpoint(7, 40, 6, 5, 1000, 100).encode()],
           plain(_check_mark), mutate_bytes),
    Target("session", "a stored session is refused or encodes to the same bytes", _session_seeds,
           plain(_check_session), mutate_bytes),
    Target("snapshot-file", "a damaged snapshot is refused", _snapshot_seeds, _make_snapshot_file, mutate_bytes),
    Target("identity", "files of a data directory are refused or understood", _identity_seeds, _make_identity,
           mutate_text),
    Target("config", "a configuration file is refused or understood", _config_seeds, _make_config, mutate_text),
    Target("schedule", "a fault schedule is refused or reads back", _schedule_seeds, plain(_check_schedule), mutate_text),
)  # fmt: skip
