"""What the leader knows of its followers' disks, beyond what a commit needs."""

from __future__ import annotations

from tests.raft.harness import Cluster


def test_all_durable_is_what_every_members_disk_was_proved_to_hold() -> None:
    """An entry counts once the last member, the leader itself included, has it on its disk and said so."""
    cluster = Cluster(3)
    cluster.lead("n1")
    group, before = cluster["n1"], cluster["n1"].last_index
    assert (group.all_durable_index, group.lagging) == (before, ())
    cluster.propose("n1", "a")
    index = group.last_index
    assert group.behind(index) == ("n1", "n2", "n3")
    cluster.deliver("n1", "n2")
    cluster.deliver("n1", "n3")
    cluster.sync("n2")
    cluster.deliver("n2", "n1")
    assert (group.all_durable_index, group.behind(index)) == (before, ("n1", "n3"))
    cluster.sync("n1")
    assert group.commit_index == index, "a quorum has it"
    assert (group.all_durable_index, group.lagging) == (before, ("n3",))
    cluster.sync("n3")
    assert group.all_durable_index == before, "on its disk, and the leader does not know"
    cluster.deliver("n3", "n1")
    assert (group.all_durable_index, group.lagging, group.behind(index)) == (index, (), ())


def test_the_leaders_own_disk_can_be_the_last() -> None:
    """Followers that are faster than the leader's disk do not make an entry durable there."""
    cluster = Cluster(3)
    cluster.lead("n1")
    before = cluster["n1"].last_index
    cluster.propose("n1", "a")
    for name in ("n2", "n3"):
        cluster.deliver("n1", name)
        cluster.sync(name)
        cluster.deliver(name, "n1")
    assert (cluster["n1"].all_durable_index, cluster["n1"].lagging) == (before, ("n1",))
    cluster.sync("n1")
    assert cluster["n1"].all_durable_index == before + 1


def test_each_member_that_lacks_an_entry_is_named() -> None:
    """Members that are behind by different amounts are all behind the index that is asked about."""
    cluster = Cluster(3)
    cluster.lead("n1")
    cluster.drop()
    cluster.propose("n1", "a")
    cluster.sync("n1")
    cluster.deliver("n1", "n2")
    cluster.sync("n2")
    cluster.deliver("n2", "n1")
    cluster.propose("n1", "b")
    cluster.sync("n1")
    last = cluster["n1"].last_index
    assert cluster["n1"].behind(last) == ("n2", "n3")
    assert cluster["n1"].behind(last - 1) == ("n3",)
    assert cluster["n1"].lagging == ("n3",)


def test_nothing_of_another_term_counts() -> None:
    """A new leader knows of no disk but its own before its followers have answered it; a follower knows nothing."""
    cluster = Cluster(3)
    cluster.lead("n1")
    cluster.propose("n1", "a")
    cluster.exchange(*cluster.names)
    assert (cluster["n2"].all_durable_index, cluster["n2"].lagging, cluster["n2"].behind(1)) == (0, (), ())
    cluster.drop()
    cluster.elect("n2", "n3")
    cluster.sync("n2")
    assert cluster["n2"].all_durable_index == 0
    assert cluster["n2"].behind(1) == ("n1", "n3")
    assert cluster["n2"].lagging == ("n1", "n3")
    cluster.exchange(*cluster.names)
    assert cluster["n2"].all_durable_index == cluster["n2"].last_index


def test_the_only_member_is_all_of_them() -> None:
    """In a group of one an entry is on all disks when it is on this one."""
    cluster = Cluster(1)
    cluster.stand("n1")
    cluster.propose("n1", "a")
    assert cluster["n1"].all_durable_index == cluster["n1"].last_index - 1
    assert cluster["n1"].lagging == ("n1",)
    cluster.sync("n1")
    assert cluster["n1"].all_durable_index == cluster["n1"].last_index
    assert not cluster["n1"].lagging
