"""The disk of the test build: what it forgets when power fails, and how it fails when it is told to."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faulty_node.disk import SECTOR_BYTES, FaultyFiles

NAME = "wal-1"
OLD = b"o" * (16 * SECTOR_BYTES)
NEW = b"n" * (16 * SECTOR_BYTES)


class Host:
    """A machine whose processes come and go; its folder and its panel stay."""

    def __init__(self, folder: Path) -> None:
        self.log, self.panel = folder / "log", folder / "panel"
        self.log.mkdir()

    def start(self, power_failed: str | None = None) -> FaultyFiles:
        """A new process; with a seed the power failed before."""
        if power_failed is not None:
            self.tell("power_failed", power_failed)
        return FaultyFiles(str(self.log), self.panel)

    def tell(self, name: str, text: str = "") -> None:
        """Switch something on."""
        self.panel.mkdir(exist_ok=True)
        (self.panel / name).write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine with one file of old bytes that is on its disk."""
    made = Host(tmp_path)
    files = made.start()
    files.create(NAME, len(OLD))
    files.write(NAME, 0, [OLD])
    files.sync(NAME)
    files.sync_directory()
    files.close()
    return made


def _sectors(held: bytes) -> set[bytes]:
    return {held[at : at + SECTOR_BYTES] for at in range(0, len(held), SECTOR_BYTES)}


def _fresh(host: Host) -> FaultyFiles:
    """A process that has made the file itself, and synced old bytes."""
    files = host.start()
    files.remove(NAME)
    files.create(NAME, len(OLD))
    files.write(NAME, 0, [OLD])
    files.sync(NAME)
    files.sync_directory()
    return files


def test_a_killed_process_loses_nothing(host: Host) -> None:
    """What was written and not synced is there after a kill: the kernel has it."""
    host.start().write(NAME, 0, [NEW])
    assert host.start().read(NAME, 0, len(NEW)) == NEW


def test_a_power_cut_takes_unsynced_sectors_by_chance(host: Host) -> None:
    """Each sector that was not synced has its old or its new bytes, never a mixture, and the same seed gives the same."""
    host.start().write(NAME, 0, [NEW])
    held = host.start(power_failed="1").read(NAME, 0, len(NEW))
    assert _sectors(held) == _sectors(OLD) | _sectors(NEW)
    host.start().write(NAME, 0, [OLD])
    again = host.start()
    again.sync(NAME)
    again.write(NAME, 0, [NEW])
    assert host.start(power_failed="1").read(NAME, 0, len(NEW)) == held


def test_what_was_synced_survives_power_cuts(host: Host) -> None:
    """After a sync that returned nothing is taken back, by one power cut or several."""
    files = host.start()
    files.write(NAME, 0, [NEW])
    files.sync(NAME)
    for seed in range(8):
        assert host.start(power_failed=str(seed)).read(NAME, 0, len(NEW)) == NEW


def test_part_of_a_sector_keeps_its_synced_bytes(host: Host) -> None:
    """A write into a sector that holds synced bytes never loses those."""
    files = host.start()
    files.write(NAME, 100, [b"new"])
    held = host.start(power_failed="2").read(NAME, 0, SECTOR_BYTES)
    assert held[:100] + held[103:] == OLD[: SECTOR_BYTES - 3]
    assert held[100:103] in {b"ooo", b"new"}


def test_a_failed_sync_loses_its_bytes_for_good(host: Host) -> None:
    """As on Linux: the sync fails once, a later one succeeds, and what the first should have written is not on the disk."""
    files = _fresh(host)
    files.write(NAME, 0, [NEW[:SECTOR_BYTES]])
    host.tell("fail_sync")
    with pytest.raises(OSError, match="Input/output error") as raised:
        files.sync(NAME)
    assert raised.value.errno == errno.EIO
    assert files.read(NAME, 0, SECTOR_BYTES) == NEW[:SECTOR_BYTES]
    files.write(NAME, SECTOR_BYTES, [NEW[:SECTOR_BYTES]])
    files.sync(NAME)
    found = host.start(power_failed="3").read(NAME, 0, 2 * SECTOR_BYTES)
    assert found == OLD[:SECTOR_BYTES] + NEW[:SECTOR_BYTES]


def test_a_sync_does_not_fail_in_a_recovery(host: Host) -> None:
    """A file that was there before is synced; the failure waits for the first file of this process."""
    files = host.start()
    host.tell("fail_sync")
    files.write(NAME, 0, [NEW])
    files.sync(NAME)
    files.create("wal-2", SECTOR_BYTES)
    with pytest.raises(OSError, match="Input/output error"):
        files.sync("wal-2")
    files.sync("wal-2")


def test_a_rewritten_sector_is_no_longer_lost(host: Host) -> None:
    """What a failed sync lost is on the disk after it was written and synced once more."""
    files = _fresh(host)
    files.write(NAME, 0, [NEW])
    host.tell("fail_sync")
    with pytest.raises(OSError, match="Input/output error"):
        files.sync(NAME)
    files.write(NAME, 0, [NEW])
    files.sync(NAME)
    assert host.start(power_failed="4").read(NAME, 0, len(NEW)) == NEW


def test_directory_changes_wait_for_their_sync(host: Host) -> None:
    """A creation and a removal may be undone by a power cut until the directory was synced, and not after."""
    seen = set()
    for seed in range(40):
        files = host.start()
        if NAME in files.names():
            files.remove(NAME)
        files.create(NAME, len(OLD))
        files.write(NAME, 0, [OLD])
        files.sync(NAME)
        files.sync_directory()
        files.remove(NAME)
        files.create("wal-2", SECTOR_BYTES)
        names = tuple(host.start(power_failed=str(seed)).names())
        seen.add(names)
        clean = host.start()
        for name in names:
            clean.remove(name)
        clean.sync_directory()
    assert seen == {(), (NAME,), ("wal-2",), (NAME, "wal-2")}


def test_a_full_disk_creates_nothing(host: Host) -> None:
    """While it is full no file can be created, and what is there can be written; then there is room again."""
    files = host.start()
    host.tell("full")
    with pytest.raises(OSError, match="No space left"):
        files.create("wal-2", SECTOR_BYTES)
    files.write(NAME, 0, [NEW])
    files.sync(NAME)
    (host.panel / "full").unlink()
    files.create("wal-2", SECTOR_BYTES)
    assert files.names() == [NAME, "wal-2"]


def test_a_slow_disk_is_slow(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sync waits as long as the panel says, and not at all otherwise."""
    waited: list[float] = []
    monkeypatch.setattr("threading.Event.wait", lambda _, seconds: waited.append(seconds))
    files = host.start()
    files.sync(NAME)
    host.tell("slow_sync", "0.25")
    files.sync(NAME)
    assert waited == [0.25]
