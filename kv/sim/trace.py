"""What happened last, for the report of a violation; and the digest of all that happened.

Here live the ring of recent events, kept raw so that it costs little, and their form for people.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from struct import Struct
from typing import Any, Final

import structlog
import xxhash

from kv.internal.v1 import peer_pb2

EVENTS_KEPT: Final = 20_000
EVENTS_SHOWN: Final = 40
EVENTS_UNDIGESTED_MAX: Final = 128
"""The digest takes in so many events at once: one call for each costs more than the hash."""
_TIME: Final = Struct("<d")
_Event = tuple[float, str, tuple[str, str], bytes]
"""When, of what purpose (empty: no message), by what way, what."""


class Trace:
    """The recent events and the digest of all."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._digest = xxhash.xxh3_128()
        self._undigested: list[_Event] = []
        self._ways: dict[tuple[str, tuple[str, str]], bytes] = {}
        self._events: deque[_Event] = deque(maxlen=EVENTS_KEPT)
        self.count = 0

    @property
    def digest(self) -> str:
        """Of all events so far: equal digests mean equal runs."""
        self._take_in()
        return self._digest.hexdigest()

    def _take_in(self) -> None:
        pack, ways = _TIME.pack, self._ways
        pieces: list[bytes] = []
        for now, purpose, way, data in self._undigested:
            name = ways.get((purpose, way))
            if name is None:
                name = ways[purpose, way] = " ".join((purpose, *way) if purpose else way).encode()
            pieces += (pack(now), name, data)
        self._digest.update(b"".join(pieces))
        self._undigested.clear()

    def message(self, purpose: str, way: tuple[str, str], data: bytes) -> None:
        """A message arrived, by a way (from whom, to whom)."""
        now, undigested = self._now, self._undigested
        event = (now(), purpose, way, data)
        self._events.append(event)
        self.count += 1
        undigested.append(event)
        if len(undigested) >= EVENTS_UNDIGESTED_MAX:
            self._take_in()

    def note(self, node: str, text: str) -> None:
        """Something else happened, at a node or (empty) to the world."""
        self.message("", (node, ""), text.encode())

    def aside(self, node: str, text: str) -> None:
        """A remark that is no event: not part of the digest."""
        self._events.append((self._now(), "", (node, ""), text.encode()))

    def last(self, nodes: Iterable[str], limit: int = EVENTS_SHOWN) -> list[str]:
        """The last events in which any of these nodes took part (all events if none are named)."""
        wanted = set(nodes)
        found: list[str] = []
        for event in reversed(self._events):
            source, target = event[2]
            if not wanted or source in wanted or target in wanted or not source:
                found.append(_text(event))
            if len(found) >= limit:
                break
        return found[::-1]


def _text(event: _Event) -> str:
    now, purpose, (source, target), data = event
    if not purpose:
        return f"{now:10.4f} {source or '*':>4} {data.decode()}"
    what = f"{len(data)} bytes"
    if purpose in ("raft", "datagram"):
        what = "; ".join(_raft(message) for message in peer_pb2.RaftFrame.FromString(data).messages)
    return f"{now:10.4f} {source:>4} > {target} {purpose}: {what}"


def _raft(message: Any) -> str:  # noqa: ANN401 - a message, by reflection
    name = message.WhichOneof("body")
    body = getattr(message, name)
    words = []
    for field, value in body.ListFields():
        if isinstance(value, bytes):
            words.append(f"{field.name}={len(value)}B")
        elif field.name == "entries":
            words.append(f"entries={[entry.term for entry in value]}")
        else:
            words.append(f"{field.name}={value}")
    return f"group {message.group} term {message.term} {name}({' '.join(words)})"


def capture_logs(tell: Callable[[str, str], None]) -> None:
    """Send the program's log to `tell(node, text)`; the one global effect is `structlog.configure`."""

    def record(_: object, method: str, fields: MutableMapping[str, Any]) -> Mapping[str, Any]:
        text = str(fields.pop("event", ""))
        failed = fields.pop("exc_info", None)
        node = str(fields.pop("node", ""))
        words = " ".join(f"{name}={value}" for name, value in sorted(fields.items()))
        shown = f"{method}: {text} {words}"
        tell(node, shown + ("\n" + traceback.format_exc() if failed else ""))
        raise structlog.DropEvent

    structlog.configure(
        processors=[record],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        cache_logger_on_first_use=False,
    )
