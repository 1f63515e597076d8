"""The guarded replica's state machine survives crashes as a checkpoint, and travels as a snapshot."""

from __future__ import annotations

import pytest

from kv.sim.stock.tally import Image, Sink, Source, Tally, TallyDisk, command


def image() -> Image:
    """Three entries after the start."""
    after = Image()
    for entry in ((b"\x01", 3, 1), (b"\x01a", 4, 1), (b"\x01b", 5, 2)):
        after = after.after(entry)
    return after


def test_no_ops_change_no_state() -> None:
    """An entry that is its prefix alone moves the index only."""
    assert command(b"\x01") is None
    assert command(b"\x01a") == "a"
    assert Image().after((b"\x01", 3, 1)).state == (0, 0)
    assert image().state[0] == 2
    assert (image().index, image().term, image().previous_term) == (5, 2, 1)


def test_a_snapshot_round_trip_in_pieces() -> None:
    """What a source reads out, a sink puts together to the same image, at the index it was announced for."""
    disk, other = TallyDisk(checkpoint=image()), TallyDisk()
    source = Source(disk)
    source.prepare()
    sink = Sink(other, source.index)
    for offset in range(0, source.total_bytes, 7):
        sink.write(offset, source.read(offset, 7))
    sink.finish()
    assert other.finished == {5: image()}


def test_a_snapshot_for_another_index_or_cut_short_is_refused() -> None:
    """Neither is finished."""
    disk = TallyDisk()
    wrong, short = Sink(disk, 6), Sink(disk, 5)
    wrong.write(0, image().pack())
    short.write(0, image().pack()[:-1])
    for sink in (wrong, short):
        with pytest.raises(ValueError, match="snapshot"):
            sink.finish()
    assert not disk.finished


def test_an_interrupted_installation_is_finished_at_start() -> None:
    """If the log stands on a snapshot that the state has not taken over, the next start does."""
    disk = TallyDisk(finished={5: image()})
    tally = Tally(disk, 5)
    assert (tally.applied_index, tally.checkpoint_index) == (5, 5)
