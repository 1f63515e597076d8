"""A program that runs in the namespace of a node and makes packets late: the shell around `Holding`.

It owns a TUN device. What the kernel routes to that comes here as whole IP packets; each waits as long as the rule of its destination
says, and leaves by the node's own interface, straight to the hardware address of the destination. So the packets are the node's
in every way but their age, and whatever the receiver filters it filters when they arrive. The device goes when the
program ends, and its routes with it; the program ends when its standard input does, which is when the harness does.

Only the standard library, since it is started as a file by itself; one line in, one line out (see `Delays`).
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

TUN_FILE = "/dev/net/tun"
TUN_SET_IFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
ETHERTYPE_IP = 0x0800
PACKET_BYTES_MAX = 65_536
DESTINATION = slice(16, 20)
"""Where an IPv4 header has it (RFC 791)."""
HELD_MAX = 20_000
"""Packets that wait; what comes beyond is dropped, as by a router whose buffer is full."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to packets to one address: all are `slow_s` late, and by chance (0 to 1) another `late_s`."""

    hardware: bytes
    slow_s: float
    chance: float
    late_s: float


@dataclass(slots=True)
class Holding:
    """Packets that wait, soonest due first; those due at one moment leave in the order in which they came. No clock, no I/O."""

    rng: random.Random
    rules: dict[bytes, Rule] = field(default_factory=dict)
    dropped: int = 0
    _held: list[tuple[float, int, bytes, bytes]] = field(default_factory=list)
    _count: int = 0

    def rule(self, line: str) -> None:
        """Take a line `ADDRESS HARDWARE SLOW_S CHANCE LATE_S`; with all numbers 0 new packets to it wait no more."""
        address, hardware, *numbers = line.split()
        slow_s, chance, late_s = map(float, numbers)
        plain = bytes.fromhex(hardware.replace(":", ""))
        self.rules[socket.inet_aton(address)] = Rule(plain, slow_s, chance, late_s)

    def take(self, packet: bytes, now: float) -> None:
        """Hold a packet; one to an address without a rule, or beyond the bound, is dropped."""
        rule = self.rules.get(packet[DESTINATION])
        if rule is None or len(self._held) >= HELD_MAX:
            self.dropped += 1
            return
        late = rule.late_s if rule.chance and self.rng.random() < rule.chance else 0.0
        self._count += 1
        heapq.heappush(self._held, (now + rule.slow_s + late, self._count, rule.hardware, packet))

    def due(self, now: float) -> list[tuple[bytes, bytes]]:
        """Hardware addresses and packets that leave now."""
        leaving = []
        while self._held and self._held[0][0] <= now:
            _, _, hardware, packet = heapq.heappop(self._held)
            leaving.append((hardware, packet))
        return leaving

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next one is due; None if nothing waits."""
        return max(0.0, self._held[0][0] - now) if self._held else None


def device(name: str) -> int:
    """Make the TUN device; the descriptor gives and takes IP packets without a header. Raises `OSError`."""
    tun = os.open(TUN_FILE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUN_SET_IFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def say(word: str) -> None:
    """Tell the harness."""
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def carry(tun: int, out: socket.socket, interface: str, holding: Holding) -> None:
    """Take packets and rules until the standard input ends; each rule that is in force is told by a line."""
    with selectors.DefaultSelector() as ready, os.fdopen(0, "rb", buffering=0) as rules:
        ready.register(tun, selectors.EVENT_READ)
        ready.register(rules, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select(holding.wait_s(time.monotonic())):
                if key.fd == tun:
                    holding.take(os.read(tun, PACKET_BYTES_MAX), time.monotonic())
                    continue
                line = rules.readline()
                if not line:
                    return
                holding.rule(line.decode())
                say("done")
            for hardware, packet in holding.due(time.monotonic()):
                out.sendto(packet, (interface, ETHERTYPE_IP, 0, 0, hardware))


def main() -> None:
    """Make the device, say so, and carry: arguments are the device's name, the node's interface, and a seed."""
    name, interface, seed = sys.argv[1:]
    tun = device(name)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as out:
        say("ready")
        carry(tun, out, interface, Holding(random.Random(seed)))


if __name__ == "__main__":
    main()
