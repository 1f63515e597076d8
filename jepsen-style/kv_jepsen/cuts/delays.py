"""Delays of what one namespace sends: a route through a TUN device, behind which a program of the harness holds each packet.

A queueing discipline (netem) would do the same in the kernel, which not every kernel has; TUN devices nearly all have. Only packets of
links that are slow go this way; all others go as they do without. The program, `delayer`, is started by the first delay.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kv_jepsen.cuts import delayer
from kv_jepsen.cuts.commands import COMMAND_TIMEOUT_S, call, ip
from kv_jepsen.records import Records

DEVICE: Final = "kvjlate"
INTERFACE: Final = "eth0"
"""Of each namespace of the harness."""


def offered() -> bool:
    """Whether TUN devices can be made here."""
    try:
        os.close(os.open(delayer.TUN_FILE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Delays:
    """Who is slow to reach from one namespace.

    Args:
        space: its name.
        source: the address of its node.
        hardware: address to hardware address, of every node.
        records: where the program is noted.
        seed: of which packets are late.
    """

    def __init__(
        self, space: str, source: str, hardware: Mapping[str, str], records: Records, seed: int
    ) -> None:
        self._space, self._source, self._hardware = space, source, hardware
        self._records, self._seed = records, seed
        self._program: subprocess.Popen[str] | None = None
        self._slow: dict[str, float] = {}
        self._late: tuple[float, float] = (0.0, 0.0)
        self._routed: dict[str, None] = {}

    def slow(self, end: str, seconds: float) -> None:
        """Packets to this address are so late; 0 ends it."""
        self._slow[end] = seconds
        self._apply(end)

    def late(self, chance: float, seconds: float) -> None:
        """Packets to any node are, by this chance, so late; a chance of 0 ends it."""
        if self._late != (chance, seconds):
            self._late = (chance, seconds)
            for end in self._hardware:
                if end != self._source:
                    self._apply(end)

    def end(self) -> None:
        """Nothing that is sent from now on is late; what waits leaves when it is due."""
        self._late = (0.0, 0.0)
        self._slow.clear()
        for end in list(self._routed):
            self._apply(end)

    def close(self) -> None:
        """End the program, its device and its routes."""
        program, self._program = self._program, None
        self._routed.clear()
        if program is None:
            return
        try:
            program.communicate(timeout=COMMAND_TIMEOUT_S)  # it ends when its input does
        except subprocess.TimeoutExpired:
            program.kill()
            program.communicate()

    def _apply(self, end: str) -> None:
        """Tell the program the rule of an address, and route to it what the rule makes late."""
        slow_s, (chance, late_s) = self._slow.get(end, 0.0), self._late
        if slow_s <= 0 and chance <= 0:
            if end in self._routed:
                del self._routed[end]
                # Whatever becomes of the program, this must not fail: without it the device and the route are gone.
                call("ip", "-n", self._space, "route", "delete", f"{end}/32", "dev", DEVICE)
            return
        self._tell(f"{end} {self._hardware[end]} {slow_s} {chance} {late_s}")
        if end not in self._routed:
            ip("-n", self._space, "route", "replace", f"{end}/32", "dev", DEVICE, "src", self._source)
            self._routed[end] = None

    def _tell(self, line: str) -> None:
        program = self._program or self._started()
        assert program.stdin is not None, "it was opened with pipes"
        program.stdin.write(line + "\n")
        program.stdin.flush()
        self._heard(program, "done")

    def _started(self) -> subprocess.Popen[str]:
        """Start the program in the namespace, with its device up."""
        file = str(Path(delayer.__file__))
        self._program = program = subprocess.Popen(  # noqa: S603 - a program of our own
            ["ip", "netns", "exec", self._space, sys.executable, "-I", "-S", file, DEVICE, INTERFACE, str(self._seed)],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the harness, which ends it by closing its input
        )  # fmt: skip
        self._records.process(program.pid)
        self._heard(program, "ready")
        ip("-n", self._space, "link", "set", DEVICE, "up")
        return program

    def _heard(self, program: subprocess.Popen[str], word: str) -> None:
        """Wait for a word of the program. Raises `OSError` if it ended, or says nothing."""
        assert program.stdout is not None, "it was opened with pipes"
        answers, _, _ = select.select([program.stdout], [], [], COMMAND_TIMEOUT_S)
        said = program.stdout.readline().strip() if answers else "nothing"
        if said != word:
            raise OSError(
                f"the program that delays packets of {self._space} said {said!r}, {word!r} was expected"
            )
