"""Random schedules for a cluster: every step is drawn from a seed.

What lives here: the faults and their weights. What must not: properties; `checks` has them, after each step.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.raft.harness import Cluster


class Storm:
    """Loss, duplication, reordering, slow disks, crashes, power loss, cuts, checkpoints and compaction."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.random = Random(seed)
        self.cut: set[tuple[str, str]] = set()
        # Some seeds mostly compact, some mostly crash, some neither: an even mix hides both.
        compact, crash = self.random.choice([1, 12]), self.random.choice([0.0, 0.3, 1.0])
        links = 1 if len(cluster.names) > 1 else 0
        self._steps: list[tuple[float, Callable[[], None]]] = [
            (60, self.deliver),
            (25, self.sync),
            (16, self.pass_time),
            (14, self.command),
            (8, self.work),
            (4, self.read),
            (4, self.duplicate),
            (4, self.reorder),
            (3, self.lose),
            (compact, self.checkpoint),
            (crash, self.crash),
            (3, self.restart),
            (links, self.reconnect),
            (links, self.cut_one),
            (2 * links, self.mend),
        ]

    def run(self, steps: int) -> None:
        """Take that many steps."""
        weights = [weight for weight, _ in self._steps]
        for _, step in self.random.choices(self._steps, weights, k=steps):
            step()

    def run_deposing(self, steps: int, rounds: int) -> None:
        """In each round take that many steps, half of them while nobody hears whoever leads, and no silence ends."""
        steps_of_calm = self._steps
        for _ in range(rounds):
            self.run(steps // 2)
            self.mend()
            self._steps = [it for it in steps_of_calm if it[1] not in (self.cut_one, self.mend, self.crash)]
            leaders = [
                n for n in self.cluster.names if self.cluster.members[n].up and self.cluster[n].is_leader
            ]
            self.cut = {link for link in self.cluster.links if set(link) & set(leaders)}
            self.run(steps // 2)
            self.cut.clear()
            self._steps = steps_of_calm

    # ------------------------------------------------------------ steps

    def deliver(self) -> None:
        """Deliver a few messages of one link."""
        busy = [link for link, waiting in self.cluster.links.items() if waiting and link not in self.cut]
        if busy:
            self.cluster.deliver(*self.random.choice(busy), self.random.randint(1, 4))

    def sync(self) -> None:
        """A disk finishes a sync, or begins one: in between, the member may crash with its data safe."""
        name = self._up()
        if name is None:
            return
        if self.cluster.members[name].flush is not None or (
            self.cluster.begin_sync(name) and self.random.random() < 0.7
        ):
            self.cluster.end_sync(name)

    def pass_time(self) -> None:
        """A little time passes; some members look at the clock."""
        up = [name for name in self.cluster.names if self.cluster.members[name].up]
        chosen = [name for name in up if self.random.random() < 0.7]
        pause = (
            self.random.uniform(0.0, 0.12) if self.random.random() < 0.97 else self.random.uniform(0.5, 1.5)
        )
        self.cluster.timer(*chosen, advance_s=pause)

    def command(self) -> None:
        """Clients send commands to whoever leads."""
        for name in self.cluster.names:
            if self.cluster.members[name].up and self.cluster[name].is_leader:
                for _ in range(self.random.randint(1, 3)):
                    self.cluster.command(name)

    def read(self) -> None:
        """A client reads from whoever leads, by the lease or not, and from one that may not lead."""
        for name in self.cluster.names:
            if self.cluster.members[name].up and self.cluster[name].is_leader:
                self.cluster.read(name, lease=self.random.random() < 0.5)
        anybody = self._up()
        if anybody is not None:
            self.cluster.read(anybody)

    def work(self) -> None:
        """A worker thread finishes something."""
        name = self._up()
        if name is not None:
            self.cluster.work(name)

    def duplicate(self) -> None:
        """A message arrives again later."""
        link = self._busy_link()
        if link is not None:
            waiting = self.cluster.links[link]
            waiting.append(self.random.choice(waiting))

    def reorder(self) -> None:
        """The messages of a link overtake each other."""
        link = self._busy_link()
        if link is not None:
            wires = self.cluster.take(*link)
            self.random.shuffle(wires)
            self.cluster.links[link].extend(wires)

    def lose(self) -> None:
        """A message is lost without anyone noticing."""
        link = self._busy_link()
        if link is not None:
            waiting = self.cluster.links[link]
            del waiting[self.random.randrange(len(waiting))]

    def checkpoint(self) -> None:
        """A member makes a checkpoint; often it compacts its log."""
        name = self._up()
        if name is not None and self.cluster[name].failure is None:
            self.cluster.checkpoint(name, keep=self.random.choice([0, 0, 3, 20]))

    def crash(self) -> None:
        """A process dies; half of the time with its machine."""
        name = self._up()
        if name is not None:
            self.cluster.crash(name, power_loss=self.random.random() < 0.5)

    def restart(self) -> None:
        """A dead member comes back."""
        down = [name for name in self.cluster.names if not self.cluster.members[name].up]
        if down:
            self.cluster.restart(self.random.choice(down))

    def reconnect(self) -> None:
        """A connection breaks and comes back at once."""
        a, b = self.random.sample(self.cluster.names, 2)
        if self.cluster.members[a].up and self.cluster.members[b].up:
            self.cluster.connect(a, b)

    def cut_one(self) -> None:
        """One direction between two members, or all from and to one, go silent."""
        a, b = self.random.sample(self.cluster.names, 2)
        if self.random.random() < 0.5:
            self.cut.add((a, b))
        else:
            self.cut |= {link for link in self.cluster.links if a in link}

    def mend(self) -> None:
        """All silence ends."""
        self.cut.clear()

    # ------------------------------------------------------------ choices

    def _up(self) -> str | None:
        up = [name for name in self.cluster.names if self.cluster.members[name].up]
        return self.random.choice(up) if up else None

    def _busy_link(self) -> tuple[str, str] | None:
        busy = [link for link, waiting in self.cluster.links.items() if waiting]
        return self.random.choice(busy) if busy else None
