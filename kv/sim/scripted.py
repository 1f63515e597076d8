"""Scripts for what a random search would hardly meet: a hand lets each Raft message of one partition go.

Here live the `Stage`, which holds the messages of partition 1 and its election timers in a whole
simulated cluster, and the scenes that are played on it. The judges are those of every run: a
scene says nothing about what is right. Each scene ends well with all rules in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from kv.client.operations import read_evidence, read_get
from kv.client.types import ReadLevel
from kv.errors import KVError
from kv.internal.v1 import raft_pb2
from kv.raft.group import Group
from kv.raft.pulse import BEATS_GROUP
from kv.sim.node import SimNode
from kv.sim.setup import Setup
from kv.sim.world import Mutant, World
from kv.v1 import kv_pb2

GROUP: Final = 1
"""The partition that is played with."""
KEY: Final = b"{t1}a"
"""The only key."""
STEP_S: Final = 0.02
"""A message, its turn and its sync take less, unless the script says otherwise."""
QUIET_S: Final = 0.7
"""After this nobody takes a silent leader for alive."""
BEAT_S: Final = 0.15
"""Longer than the time between two heartbeats."""
CAMPAIGNS: Final = 3
PATIENCE_MS: Final = 10_000_000
"""A leader that nobody answers does not step down by itself."""
SCENE_S: Final = 40.0
"""Every scene is over by then."""
ROUNDS: Final = 6

_LIMITS: Final = {
    "leader_fallback_ms": PATIENCE_MS,
    "commands_in_flight_max": 64,
    "log_retain_entries": 100,
    "checkpoint_ops_max": 1000,
    "checkpoint_interval_ms": 1_000_000,
}
SETUP: Final = Setup(
    nodes=3, partitions=1, scale=1, lossy=True, clients=0, duration_s=SCENE_S, limits=_LIMITS
)
FIVE: Final = SETUP.but(nodes=5, limits={**_LIMITS, "replication_factor": 5})


Scene = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A mutant for a `World` that holds all messages of partition 1 until the scene lets them go."""

    def __init__(self, mutant: Mutant, scene: Scene) -> None:
        self.name, self.rules = mutant.name, mutant.rules
        self._mutant, self._scene = mutant, scene
        self._held: dict[tuple[str, str], list[raft_pb2.RaftMessage]] = {}
        self._over = self._beats_held = False
        self._task: asyncio.Task[None] | None = None
        self._proposed = 0
        self.world: World
        self.answers: dict[str, bytes | KVError] = {}
        self.reads = 0
        """Reads that were answered."""

    # ------------------------------------------------------------ what the world calls

    def started(self, node: SimNode) -> None:
        """Hold what this node sends."""
        self._mutant.started(node)
        send = node.links.send

        def held(peer: str, raws: Sequence[bytes], bulk: bool) -> None:
            messages = [raft_pb2.RaftMessage.FromString(raw) for raw in raws]
            ours = [one for one in messages if self._holds(one)]
            others = [raw for raw, one in zip(raws, messages, strict=True) if not self._holds(one)]
            self._held.setdefault((node.name, peer), []).extend(ours)
            if others:
                send(peer, others, bulk)

        vars(node.links)["send"] = held

    def _holds(self, message: raft_pb2.RaftMessage) -> bool:
        if self._over:
            return False
        return message.group == GROUP or (self._beats_held and message.group == BEATS_GROUP)

    def group_started(self, node: SimNode, group: Group) -> None:
        """Stop its election timer."""
        self._mutant.group_started(node, group)
        timer = group.campaign.timer
        due = timer.due
        if group.group_id == GROUP:
            vars(timer)["due"] = lambda now: self._over and due(now)
            group.rest.allowed = False

    def look(self, world: World) -> None:
        """Begin when partition 1 exists everywhere; an error of the scene is one of the run."""
        self.world = world
        if self._task is None and all(GROUP in node.cluster.engine.groups for node in world.nodes):
            vars(world.ledger)["_quorum"] = len(world.nodes) // 2 + 1
            self._task = asyncio.ensure_future(self._play())
        elif self._task is not None and self._task.done() and (error := self._task.exception()) is not None:
            raise error

    async def _play(self) -> None:
        await self._scene(self)
        await self.step()
        self._over = True
        self._held.clear()

    # ------------------------------------------------------------ what a scene does

    def node(self, name: str) -> SimNode:
        """The node of this name."""
        return next(node for node in self.world.nodes if node.name == name)

    def group(self, name: str) -> Group:
        """Its replica of partition 1."""
        return self.node(name).cluster.engine.groups[GROUP]

    async def step(self, seconds: float = STEP_S) -> None:
        """Let time pass."""
        await asyncio.sleep(seconds)

    def take(self, source: str, target: str, *, beats: bool = False) -> list[raft_pb2.RaftMessage]:
        """Take what `source` sent to `target` off the wire, or only the beats."""
        taken = self._held.pop((source, target), [])
        if not beats:
            return taken
        self._held[source, target] = [one for one in taken if one.group == GROUP]
        return [one for one in taken if one.group != GROUP]

    def allow_rest(self, *names: str) -> None:
        """From now on the group may rest at these nodes."""
        for name in names:
            self.group(name).rest.allowed = True

    def hold_beats(self) -> None:
        """From now on the beats of all groups are held too."""
        self._beats_held = True

    def held(self, source: str, target: str) -> list[raft_pb2.RaftMessage]:
        """What `source` sent to `target` and still is on the wire."""
        return list(self._held.get((source, target), ()))

    def drop(self) -> None:
        """Lose everything that is under way."""
        self._held.clear()

    def receive(self, source: str, target: str, messages: Sequence[raft_pb2.RaftMessage]) -> None:
        """Let messages arrive now."""
        node = self.node(target)
        copies = [raft_pb2.RaftMessage.FromString(one.SerializeToString()) for one in messages]
        node.enter(lambda: node.raft(source, copies))

    async def deliver(self, source: str, target: str) -> None:
        """Let everything from `source` to `target` arrive, and the target act on it."""
        self.receive(source, target, self.take(source, target))
        await self.step()

    async def exchange(self, *names: str, rounds: int = ROUNDS) -> None:
        """Let everything among these nodes arrive, and the answers to it."""
        for _ in range(rounds):
            for source in names:
                for target in names:
                    if (source, target) in self._held:
                        self.receive(source, target, self.take(source, target))
            await self.step()

    def stand(self, name: str) -> None:
        """Let a node's election timer run out."""
        node, group = self.node(name), self.group(name)

        def stands() -> None:
            group.campaign.stand()
            group.wake()

        node.enter(stands)

    async def elect(self, name: str, *voters: str) -> None:
        """Make a node the leader with the help of these voters; what it sends as leader is held."""
        await self.step(QUIET_S)
        for _ in range(CAMPAIGNS):  # a voter of a higher term refuses the first time
            self.drop()
            self.stand(name)
            await self.step()
            for voter in voters * 2:
                if not self.group(name).is_leader:
                    await self.deliver(name, voter)
                    await self.deliver(voter, name)
            if self.group(name).is_leader:
                return

    async def commit(self, name: str, *texts: str) -> None:
        """Propose, and let everyone learn that it is committed."""
        await self.propose(name, *texts)
        await self.settle(*(node.name for node in self.world.nodes))
        self.drop()

    async def settle(self, *names: str) -> None:
        """Let what was asked for be committed among these nodes, and each of them learn that it is."""
        for _ in range(2):
            await self.exchange(*names)
            await self.step(BEAT_S)
        await self.exchange(*names)

    def checkpoint(self, *names: str) -> None:
        """Have the state of these nodes made durable, and compared."""
        for name in names:
            self.node(name).cluster.replicas[GROUP].content_hasher()

    def compact(self, name: str, index: int) -> None:
        """Let a node's log begin at `index`, below a checkpoint made now."""
        self.checkpoint(name)
        self.group(name).compact(index)

    async def propose(self, name: str, *texts: str) -> None:
        """Write each of these texts, once in a run, in an entry of its own."""
        for text in texts:
            put = kv_pb2.PutOperation(key=KEY, value=text.encode())
            raw = kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put=put)]).SerializeToString()
            node = self.node(name)
            replica = node.cluster.replicas[GROUP]
            node.enter(lambda replica=replica, raw=raw, text=text: replica.submit(raw, self._answer(text)))
            await self.step(0.001)

    def _answer(self, text: str) -> Callable[[bytes | KVError], None]:
        def answered(outcome: bytes | KVError) -> None:
            self.answers[text] = outcome
            if isinstance(outcome, KVError) and outcome.definite:
                promises = self.world.promises
                promises.failed(promises.begin("script"), [text.encode()], outcome)

        return answered

    def put(self, name: str, text: str) -> None:
        """Write a text, and have what is answered judged."""
        begun = self.world.promises.begin("script")

        def done(response: kv_pb2.BatchResponse) -> None:
            proof, put = read_evidence(response.evidence[0], write=True), response.results[0].put
            self.world.promises.wrote(begun, KEY, text.encode(), put.revision, put.version, proof)

        put = kv_pb2.PutOperation(key=KEY, value=text.encode())
        self.ask(name, kv_pb2.BatchRequest(operations=[kv_pb2.Operation(put=put)]), done)

    def read(self, name: str, level: ReadLevel, *, local: bool = False, after: int = 0) -> None:
        """Read the key, and have what is answered judged.

        Args:
            name: the node that is asked.
            level: what is promised.
            local: it should answer whether it leads or not.
            after: of a SESSION read, the index that its session has seen.
        """
        begun = self.world.promises.begin("script")

        def done(response: kv_pb2.BatchResponse) -> None:
            proof = read_evidence(response.evidence[0], write=False)
            item = read_get(response.results[0].get, proof)
            self.world.promises.read(begun, KEY, item, level, proof)
            self.reads += 1

        where = kv_pb2.REPLICA_PREFERENCE_LOCAL if local else kv_pb2.REPLICA_PREFERENCE_UNSPECIFIED
        batch = kv_pb2.BatchRequest(
            operations=[kv_pb2.Operation(get=kv_pb2.GetOperation(key=KEY))],
            level=kv_pb2.ReadLevel.ValueType(int(level)),
            read=kv_pb2.ReadOptions(
                preference=where, after=[kv_pb2.PartitionIndex(partition=GROUP, index=after)]
            ),
        )
        self.ask(name, batch, done)

    def ask(
        self, name: str, batch: kv_pb2.BatchRequest, done: Callable[[kv_pb2.BatchResponse], None]
    ) -> None:
        """Hand a request to a node's replica; `done` is told the answer unless it is an error."""

        def answered(outcome: bytes | KVError) -> None:
            if isinstance(outcome, bytes):
                done(kv_pb2.BatchResponse.FromString(outcome))

        node, raw = self.node(name), batch.SerializeToString()
        replica = node.cluster.replicas[GROUP]
        node.enter(lambda: replica.submit(raw, answered))

    async def crash(self, name: str, *, power: bool = False) -> None:
        """Kill a node and start it again."""
        node = self.node(name)
        node.crash(power=power)
        node.sync_extra_s = 0.0
        node.start()
        await self.step()


# ------------------------------------------------------------ scenes


async def late_acknowledgements(stage: Stage) -> None:
    """Acknowledgements wait on a slow link until their entries are overwritten and their leader leads again."""
    await stage.elect("n1", "n2", "n3")
    await stage.exchange("n1", "n2", "n3", "n4", "n5")
    await stage.propose("n1", "a", "b", "c", "d")
    await stage.step()
    await stage.deliver("n1", "n2")
    slow = stage.take("n2", "n1")
    stage.drop()
    await stage.elect("n3", "n4", "n5")
    for _ in range(6):
        await stage.exchange("n1", "n2", "n3", "n4", "n5")
        await stage.step(0.1)
    await stage.elect("n1", "n4", "n5")
    await stage.propose("n1", "x", "y", "z")
    await stage.step()
    await stage.deliver("n1", "n5")
    await stage.deliver("n5", "n1")
    stage.drop()
    stage.receive("n2", "n1", slow)
    await stage.step()


async def doubled_votes(stage: Stage) -> None:
    """Two candidates of a term have two votes of five each; each vote that was given arrives twice."""
    await stage.step(QUIET_S)
    votes = []
    for candidate, voter in (("n1", "n3"), ("n2", "n4")):
        stage.drop()
        stage.stand(candidate)
        await stage.step()
        for helper in (voter, "n5"):
            await stage.deliver(candidate, helper)
            await stage.deliver(helper, candidate)
        await stage.deliver(candidate, voter)
        votes.append((voter, candidate, stage.take(voter, candidate)))
    stage.drop()
    for voter, candidate, replies in votes:
        stage.receive(voter, candidate, replies * 2)
    await stage.step()


async def vote_of_another_epoch(stage: Stage) -> None:
    """A vote that was given in another configuration of the group reaches two candidates of a term."""
    await stage.step(QUIET_S)
    for candidate, helper in (("n1", "n2"), ("n3", "n2")):
        stage.drop()
        stage.stand(candidate)
        await stage.step()
        await stage.deliver(candidate, helper)
        await stage.deliver(helper, candidate)
    stage.drop()
    for candidate in ("n1", "n3"):
        group = stage.group(candidate)
        old = raft_pb2.RaftMessage(
            group=GROUP, epoch=group.epoch - 1, sender="n2", term=group.term, vote_reply=raft_pb2.VoteReply()
        )
        stage.receive("n2", candidate, [old])
    await stage.step()


async def vote_before_its_disk(stage: Stage) -> None:
    """A member dies before its vote is on disk, and votes again when it is back."""
    await stage.step(QUIET_S)
    stage.stand("n1")
    await stage.step()
    await stage.deliver("n1", "n2")
    await stage.deliver("n2", "n1")
    stage.node("n2").sync_extra_s = 5.0
    await stage.deliver("n1", "n2")
    await stage.deliver("n2", "n1")
    node = stage.node("n2")
    node.life.in_worker.clear()  # it had not begun to write
    await stage.crash("n2", power=True)
    stage.drop()
    await stage.step(QUIET_S)
    stage.stand("n3")
    await stage.step()
    for _ in range(3):
        await stage.deliver("n3", "n2")
        await stage.deliver("n2", "n3")


async def unproved_tail(stage: Stage) -> None:
    """A follower whose tail nobody else has hears heartbeats below it that tell a higher commit index."""
    everyone = ("n1", "n2", "n3")
    await stage.elect("n1", "n2")
    await stage.commit("n1", "a", "b", "c")
    await stage.propose("n1", "d")
    await stage.step()
    await stage.deliver("n1", "n2")
    await stage.deliver("n1", "n3")
    stage.drop()
    stage.node("n1").sync_extra_s = 5.0
    await stage.propose("n1", "lost")  # n1 sends it before its own sync
    await stage.deliver("n1", "n3")
    stage.node("n1").life.in_worker.clear()  # it has not begun to write
    await stage.crash("n1")
    await stage.elect("n2", "n1")
    await stage.exchange("n1", "n2")
    await stage.propose("n2", "x", "y")
    await stage.exchange("n1", "n2")
    stage.compact("n2", stage.group("n3").last_index - 1)
    stage.drop()
    for _ in range(4):  # hints lead below the compacted log: a snapshot is due, heartbeats go on
        await stage.step(BEAT_S)
        heartbeats = [one for one in stage.take("n2", "n3") if one.HasField("append")]
        stage.receive("n2", "n3", heartbeats)
        await stage.step()
        await stage.deliver("n3", "n2")
    await stage.exchange(*everyone)


async def index_used_again(stage: Stage) -> None:
    """What a leader proposed is overwritten in its log, its index used again, and then it is committed after all."""
    await stage.elect("n1", "n2", "n3")
    await stage.exchange(*(f"n{number}" for number in range(1, 6)))
    stage.drop()
    await stage.propose("n1", "a", "b", "c", "d")
    await stage.step()
    await stage.deliver("n1", "n2")
    await stage.elect("n3", "n4", "n5")
    for _ in range(2):
        await stage.deliver("n3", "n1")
        await stage.deliver("n1", "n3")
    await stage.elect("n1", "n4", "n5")
    stage.drop()
    await stage.propose("n1", "x", "y", "z")
    await stage.step()
    await stage.elect("n2", "n4", "n5")
    for _ in range(3):
        await stage.exchange("n2", "n4", "n5")
        await stage.step(BEAT_S)


async def late_snapshot(stage: Stage) -> None:
    """A snapshot arrives again after more than it holds was acknowledged."""
    await stage.elect("n1", "n2")
    await stage.exchange("n1", "n2")
    await stage.propose("n1", *"abcdef")
    for _ in range(2):
        await stage.exchange("n1", "n2")
        await stage.step(BEAT_S)
    stage.compact("n1", stage.group("n1").machine.applied_index)
    stage.drop()
    chunks: list[raft_pb2.RaftMessage] = []
    for _ in range(8):
        await stage.step(BEAT_S)
        chunks += [one for one in stage.held("n1", "n3") if one.HasField("snapshot_chunk")]
        await stage.deliver("n1", "n3")
        await stage.deliver("n3", "n1")
    await stage.propose("n1", "g")
    await stage.step()
    await stage.deliver("n1", "n3")
    await stage.deliver("n3", "n1")
    for chunk in chunks:
        stage.receive("n1", "n3", [chunk])
        await stage.step()
    await stage.elect("n3", "n2")
    for _ in range(3):
        await stage.exchange("n2", "n3")
        await stage.step(BEAT_S)


async def candidate_ahead(stage: Stage) -> None:
    """A member stood for election, nobody got its request, and its term is above that of the leader who goes on."""
    everyone = ("n1", "n2", "n3")
    await stage.elect("n1", "n2")
    await stage.commit("n1", "a")
    await stage.step(QUIET_S)
    stage.drop()
    stage.stand("n2")
    await stage.step()
    await stage.deliver("n2", "n3")
    await stage.deliver("n3", "n2")
    stage.drop()
    await stage.exchange("n1", "n3")
    await stage.propose("n1", "b")
    await stage.exchange(*everyone)
