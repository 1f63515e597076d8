"""The beats of one node: sent to each peer and answered, and whom their absence wakes.

The books are in `beats.py`; here they meet the clock, the links and the groups. One beat a heartbeat goes to each peer
with a member of a group that rests here under this node. Two nodes that both have something to say keep step, with two messages
a heartbeat: what the one sends is a beat and the answer to the last one, and the other does the same at once. A leader's groups wake when their members' nodes stop
answering, a heartbeat before a leader would step down for it; a member's wake when its leader's node was silent for as
long as an election timer may be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from kv.config import RaftConfig
from kv.internal.v1 import raft_pb2
from kv.raft.beats import BeatListener, BeatSender, Line, first_sequence, lines_of
from kv.raft.group import Group

_EARLY: Final = 0.05
"""Part of a heartbeat by which a beat may be early: ticks are not exact."""
_IN_STEP: Final = 0.5
"""A beat that comes so long, in heartbeats, after ours is no answer to it: ours would be due soon, and goes at once."""
BEATS_GROUP: Final = (1 << 32) - 1
"""What stands for a group in the envelope of beats: they are of none."""

Send = Callable[[str, Sequence[raft_pb2.RaftMessage], bool], None]


class Pulse:
    """All beats of a process. Times: own clock, seconds."""

    def __init__(
        self,
        *,
        me: str,
        config: RaftConfig,
        draw: float,
        groups: Mapping[int, Group],
        send: Send,
        durable_seq: Callable[[], int],
        failed: Callable[[Group, Exception], None],
    ) -> None:
        """`draw`: a random number in [0, 1), another one for each process. `failed` is told what should never happen."""
        self._me, self._config, self._groups = me, config, groups
        self._send, self._durable_seq, self._failed = send, durable_seq, failed
        self._sequence = first_sequence(draw)
        # A heartbeat before a leader steps down for want of answers it wakes, and asks by heartbeats of its own.
        self._patience_s = config.leader_fallback_s - config.heartbeat_s
        self._early_s = (1 - _EARLY) * config.heartbeat_s
        self._senders: dict[str, BeatSender] = {}
        self._listeners: dict[str, BeatListener] = {}
        self._connected: dict[str, None] = {}
        self._beat_at: dict[str, float] = {}
        self._owed: dict[str, raft_pb2.RaftMessage] = {}
        """Answers that go with the next beat."""

    def introduce(self, group: Group) -> None:
        """A group was added: its members' nodes may be sent beats."""
        rules = group.rules
        for peer in group.peers:
            self._senders.setdefault(peer, BeatSender(counted_since=rules.beats_counted_since))
            self._listeners.setdefault(peer, BeatListener(matched=rules.beats_matched))

    def connection(self, peer: str, up: bool) -> None:
        """The connection to a peer came or went; the groups that rested over it have woken."""
        if up:
            self._connected[peer] = None
        else:
            self._connected.pop(peer, None)
        self._owed.pop(peer, None)
        if peer in self._senders:
            self._senders[peer].reset()
            self._listeners[peer].reset()

    # ------------------------------------------------------------ time

    def tick(self, now: float) -> None:
        """Wakes who was not answered, or heard nothing, for too long; sends the beats that are due."""
        for sender in self._senders.values():
            lines = sender.roll.lines
            if lines and not sender.alive(now, self._patience_s):
                self._wake(lines)
        for listener in self._listeners.values():
            lines = listener.roll.lines
            if lines and now - listener.heard_at >= self._config.election_min_s:
                self._wake(lines)
        beat_at, early_s = self._beat_at, self._early_s
        for peer in self._connected:
            if now - beat_at.get(peer, 0.0) >= early_s:
                self._say(peer, now)

    def _wake(self, groups: Iterable[int]) -> None:
        for number in list(groups):
            group = self._groups[number]
            try:
                group.rest.end()
            except Exception as error:  # noqa: BLE001 - it stops that group, and no other
                self._failed(group, error)

    def rest(self, group: Group, now: float) -> None:
        """A leader's group is to rest, as soon as the nodes of its members that can be reached answer beats."""
        senders = {peer: self._senders[peer] for peer in group.peers if peer in group.connected}
        silent = [sender for sender in senders.values() if not sender.alive(now, self._patience_s)]
        for sender in silent:
            sender.wanted = True
        if silent:
            return
        line = group.rest.line
        for sender in senders.values():
            sender.add(line, self._sequence + 1)
        group.rest.lead(senders)

    def roused(self, group: Group) -> None:
        """A group woke: no beat stands for it any more."""
        number = group.group_id
        for peer in group.peers:
            sender, listener = self._senders[peer], self._listeners[peer]
            if number in sender.roll.lines:
                sender.remove(number)
            if number in listener.roll.lines:
                listener.roll.remove(number)

    # ------------------------------------------------------------ beats out

    def _say(self, peer: str, now: float) -> None:
        """Sends the beat, if there is a reason for one, and the answer that is owed, in one go."""
        messages = []
        owed, sender = self._owed.pop(peer, None), self._senders.get(peer)
        if owed is not None:
            self._listeners[peer].answer(owed.beat_reply.sequence, now)
            messages.append(owed)
        if sender is not None and sender.needed:
            messages.append(self._beat(peer, sender, now))
        if messages:
            self._send(peer, messages, False)

    def _beat(self, peer: str, sender: BeatSender, now: float) -> raft_pb2.RaftMessage:
        self._sequence += 1
        self._beat_at[peer] = now
        sender.sent(self._sequence, now)
        message = self._envelope()
        beat = message.beat
        beat.sequence, beat.digest, beat.heard = self._sequence, sender.roll.digest, sender.heard
        if not sender.agreed:
            beat.complete = True
            beat.lines.extend(sender.roll.numbers())
        return message

    def _envelope(self) -> raft_pb2.RaftMessage:
        message = raft_pb2.RaftMessage()
        message.group, message.sender = BEATS_GROUP, self._me
        return message

    # ------------------------------------------------------------ beats in

    def receive(self, message: raft_pb2.RaftMessage, peer: str, now: float) -> None:
        """A beat or an answer came over the connection of `peer`."""
        if message.sender != peer or peer not in self._senders:
            return
        if message.HasField("beat"):
            self._on_beat(peer, message.beat, now)
        elif message.HasField("beat_reply"):
            self._on_answer(peer, message.beat_reply, now)

    def _on_beat(self, peer: str, beat: raft_pb2.Beat, now: float) -> None:
        listener = self._listeners[peer]
        refused: list[int] = []
        agreed, changed = listener.agrees(beat.digest), False
        if beat.complete and not agreed:
            refused = self._call_the_roll(peer, listener, lines_of(beat.lines))
            agreed = changed = True
        if agreed:
            listener.hear(beat.heard, now, changed=changed)
        owed = self._owed[peer] = self._envelope()
        reply = owed.beat_reply
        reply.sequence, reply.digest, reply.agreed = beat.sequence, beat.digest, agreed
        if refused:
            reply.refused.extend(refused)
        in_step = now - self._beat_at.get(peer, 0.0) < _IN_STEP * self._config.heartbeat_s
        if not (in_step and self._senders[peer].needed):
            self._say(peer, now)

    def _call_the_roll(self, peer: str, listener: BeatListener, lines: Sequence[Line]) -> list[int]:
        """Makes this end's roll that of the beat, as far as it agrees; returns the groups that do not."""
        named = {line.group: line for line in lines}
        self._wake(number for number, line in listener.roll.lines.items() if named.get(number) != line)
        refused = []
        for number, line in named.items():
            if number in listener.roll.lines:
                continue
            group = self._groups.get(number)
            if group is None or not group.rest.follow(line, peer, listener, self._durable_seq()):
                refused.append(number)
            else:
                listener.roll.add(line)
        return refused

    def _on_answer(self, peer: str, reply: raft_pb2.BeatReply, now: float) -> None:
        sender = self._senders[peer]
        waking = sender.on_answer(reply.sequence, reply.digest, reply.agreed, reply.refused, now)
        if waking:
            self._wake(waking)
