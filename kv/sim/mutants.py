"""The mutants: builds of the store with one safety rule or one duty left out, by name.

Here live the registry and the mutants of the log, the state and the answers to writes; those of read levels, outcomes
and write levels are in `kv.sim.level_mutants`. Each says what it breaks, which property should notice, and in which
circumstances it is hunted. What it does to production objects is in `kv.sim.mutations`, the scripts are
in `kv.sim.scripted`, the hunt is in `kv.sim.hunt`, the form of an entry in `kv.sim.mutation`.
"""

from __future__ import annotations

from typing import Final

from kv.errors import InvalidArgument
from kv.sim import mutations as do
from kv.sim import rest_scenes as sleep
from kv.sim import scripted as play
from kv.sim.circumstances import (
    BUSY,
    CRASHES,
    DENSE,
    DEPOSED,
    DISK,
    LEFT_BEHIND,
    LONG_LOGS,
    LOSSY,
    MANY,
    NO_ANSWER,
    OLD_REPLIES,
    OVERWRITTEN,
    OWN_TAIL,
    POWER_LOSS,
    RETURN,
    SLOW_FOLLOWER,
    SLOW_START,
    SMALL_LOGS,
    SNAPSHOTS,
    UNHEARD,
    WILD,
    Hunt,
    undisturbed,
)
from kv.sim.level_mutants import LEVEL_MUTANTS
from kv.sim.levels import readers_and_writers
from kv.sim.mutation import Mutation, without

_REST: Final[tuple[Mutation, ...]] = (
    Mutation(
        "beats-not-compared",
        "a member's node agrees to every beat, whatever groups it stands for (rule 25)",
        ("linearizable",),
        "scripted",
        Hunt(sleep.RESTS, scene=sleep.candidate_among_sleepers),
        rules=without(beats_matched=False),
    ),
    Mutation(
        "beat-of-an-old-term",
        "a member rests under whatever leader, in whatever term, a beat names (rule 25)",
        ("linearizable",),
        "scripted",
        Hunt(sleep.RESTS, scene=sleep.deposed_and_a_sleeper),
        rules=without(rest_checked=False),
    ),
    Mutation(
        "answer-before-the-rest",
        "an answer counts for a group that went to rest after its beat had left (rule 26)",
        ("linearizable",),
        "scripted",
        Hunt(sleep.RESTS, scene=sleep.deposed_goes_to_rest),
        rules=without(beats_counted_since=False),
    ),
    Mutation(
        "beats-forgotten",
        "a member that wakes does not remember when it heard its leader's last beat (rule 27)",
        ("linearizable",),
        "scripted",
        Hunt(sleep.RESTS, scene=sleep.candidate_at_rest),
        rules=without(rest_remembered=False),
    ),
)

_SAFE_LOG: Final = ("committed-entries-never-change", "leader-completeness", "durable-quorum", "log-matching")
_RAFT: Final[tuple[Mutation, ...]] = (
    Mutation(
        "ack-before-sync",
        "a follower acknowledges entries that are not on its disk (rule 7)",
        ("durable-quorum",),
        "random",
        Hunt(DISK),
        on_group=do.sent_early("append_reply"),
    ),
    Mutation(
        "count-unsynced-self",
        "the leader counts its own entry before it is on its disk (rule 6)",
        ("durable-quorum",),
        "random",
        Hunt(DISK),
        rules=without(durable_self=False),
    ),
    Mutation(
        "vote-before-sync",
        "a vote leaves before it is on the voter's disk (rule 7)",
        ("one-leader-per-term",),
        "scripted",
        Hunt(play.SETUP, scene=play.vote_before_its_disk),
        on_group=do.sent_early("vote_reply"),
    ),
    Mutation(
        "stale-acks",
        "acknowledgements of an earlier term count (rule 5)",
        ("durable-quorum",),
        "scripted",
        Hunt(play.FIVE, scene=play.late_acknowledgements),
        rules=without(current_acks=False),
    ),
    Mutation(
        "votes-twice",
        "a vote that arrives twice counts twice (rule 9)",
        ("one-leader-per-term",),
        "scripted",
        Hunt(play.FIVE, scene=play.doubled_votes),
        rules=without(votes_by_member=False),
    ),
    Mutation(
        "vote-of-another-epoch",
        "a message of another configuration of the group counts, whoever was its member (rule 1)",
        ("one-leader-per-term",),
        "scripted",
        Hunt(play.SETUP, scene=play.vote_of_another_epoch),
        rules=without(envelope=False),
    ),
    Mutation(
        "vote-for-any-log",
        "a voter does not compare the candidate's log with its own",
        ("leader-completeness",),
        "scripted",
        Hunt(BUSY, LEFT_BEHIND),
        on_group=do.votes_for_any_log,
    ),
    Mutation(
        "truncate-on-match",
        "an append removes entries that agree with it (rule 3)",
        _SAFE_LOG,
        "random",
        Hunt(LOSSY),
        rules=without(keep_agreed=False),
    ),
    Mutation(
        "commit-unproved",
        "a follower takes over a commit index above what the message proved (rule 4)",
        ("committed-entries-never-change", "durable-quorum"),
        "scripted",
        Hunt(play.SETUP, scene=play.unproved_tail),
        rules=without(proved_commit=False),
    ),
    Mutation(
        "trust-stored-commit",
        "a restarted member takes the end of its log for committed (rule 8)",
        ("durable-quorum", "committed-entries-never-change"),
        "scripted",
        Hunt(BUSY, OWN_TAIL),
        on_group=do.commit_index_trusted,
    ),
    Mutation(
        "snapshot-regresses",
        "a snapshot is installed over a state that is ahead of it (rule 10)",
        ("no-replica-stops", "applied-in-order"),
        "scripted",
        Hunt(play.SETUP, scene=play.late_snapshot),
        rules=without(snapshot_guard=False),
    ),
    Mutation(
        "compact-above-checkpoint",
        "the log drops entries that no checkpoint holds (rule 11)",
        ("no-replica-stops", "durable-state-survives"),
        "random",
        Hunt(CRASHES),
        rules=without(compact_below_checkpoint=False),
        on_group=do.compacted_when_applied,
    ),
    Mutation(
        "read-unconfirmed",
        "a leader serves reads without asking a quorum whether it still leads (rule 14)",
        ("linearizable",),
        "scripted",
        Hunt(MANY, DEPOSED),
        rules=without(confirm_reads=False),
    ),
    Mutation(
        "read-before-own-commit",
        "a new leader reads before it has committed in its term (rule 14)",
        ("linearizable",),
        "scripted",
        Hunt(BUSY, SLOW_START),
        rules=without(reads_after_own_commit=False),
    ),
    Mutation(
        "old-confirmations",
        "a reply to a probe from before the read confirms the read (rule 14)",
        ("linearizable", "evidence-is-true"),
        "scripted",
        Hunt(WILD, OLD_REPLIES, work=readers_and_writers),
        on_group=do.old_confirmations_count,
    ),
)

_LOG: Final[tuple[Mutation, ...]] = (
    Mutation(
        "forget-hard-state",
        "term and vote are never written",
        ("durable-state-survives",),
        "random",
        Hunt(CRASHES),
        on_group=do.hard_state_lost,
    ),
    Mutation(
        "forget-vote",
        "the term is written without the vote",
        ("durable-state-survives",),
        "random",
        Hunt(CRASHES),
        on_group=do.vote_lost,
    ),
    Mutation(
        "truncation-not-logged",
        "a truncation is not written: the removed entries are back after a restart",
        ("no-replica-stops", "durable-state-survives"),
        "scripted",
        Hunt(BUSY, OVERWRITTEN),
        on_group=do.truncation_not_logged,
    ),
    Mutation(
        "ignore-failed-sync",
        "a sync that failed counts as done",
        ("durable-state-survives", "no-replica-stops"),
        "scripted",
        Hunt(
            DENSE,
            "5 fail_sync n1\n5.5 crash n1 power=yes\n6.5 start n1\n8 fail_sync n2\n9 crash n2\n10 start n2",
        ),
        on_start=do.failed_sync_ignored,
    ),
    Mutation(
        "torn-tail-accepted",
        "recovery takes records whose checksum is wrong",
        ("committed-entries-never-change", "no-replica-stops"),
        "scripted",
        Hunt(DENSE, POWER_LOSS),
        around=do.torn_tail_accepted,
    ),
)

_STATE: Final[tuple[Mutation, ...]] = (
    Mutation(
        "retry-applied-twice",
        "a request that is sent again is applied again",
        (
            "exactly-once",
            "equal-content",
            "acknowledged-writes-survive",
            "scans-read-one-index",
            "stale-reads-are-real",
        ),
        "random",
        Hunt(DENSE),
        on_group=do.retry_applied_twice,
    ),
    Mutation(
        "snapshot-without-sessions",
        "the session table is forgotten when a snapshot is installed",
        ("equal-content",),
        "random",
        Hunt(SNAPSHOTS),
        on_group=do.snapshot_without_sessions,
    ),
    Mutation(
        "checkpoint-without-sessions",
        "a checkpoint does not hold the session table",
        ("equal-content", "no-replica-stops"),
        "random",
        Hunt(CRASHES),
        on_group=do.checkpoint_without_sessions,
    ),
    Mutation(
        "checkpoint-without-index",
        "a checkpoint does not move the applied index: entries are applied again after a crash",
        ("equal-content", "no-replica-stops", "durable-state-survives", "durable-state-never-goes-back"),
        "random",
        Hunt(CRASHES.but(limits=LONG_LOGS)),
        on_group=do.checkpoint_without_index,
    ),
    Mutation(
        "checkpoint-counted-when-begun",
        "a checkpoint counts as soon as it has begun: the log drops what is in memory only",
        ("no-replica-stops", "durable-state-survives", "durable-state-never-goes-back"),
        "random",
        Hunt(CRASHES.but(limits=SMALL_LOGS)),
        on_group=do.checkpoint_counted_when_begun,
    ),
    Mutation(
        "checkpoint-ahead-of-log",
        "a replica applies and checkpoints what its own log does not hold durably (rule 21)",
        ("no-replica-stops",),
        "scripted",
        Hunt(BUSY.but(limits=SMALL_LOGS), SLOW_FOLLOWER),
        rules=without(apply_durable=False),
        on_group=do.checkpoint_ahead_of_log,
    ),
    Mutation(
        "session-expiry-by-wall-clock",
        "each replica expires sessions by its own clock",
        ("equal-content", "stale-reads-are-real", "scans-read-one-index", "linearizable"),
        "random",
        Hunt(DENSE.but(mixes=("clock", "network"), limits={"session_ttl_s": 5})),
        on_group=do.sessions_expire_by_wall_clock,
    ),
)

_ANSWERS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "reply-when-proposed",
        "a put is answered before it is committed and applied",
        ("acknowledged-writes-survive",),
        "random",
        Hunt(DENSE),
        on_group=do.replied_when_proposed,
    ),
    Mutation(
        "follower-reads",
        "a follower answers linearizable reads from its own state",
        ("linearizable",),
        "random",
        Hunt(DENSE),
        on_group=do.followers_read,
    ),
    Mutation(
        "lost-when-deposed",
        "a leader that steps down calls what it had proposed definitely failed",
        ("definite-failures-never-applied", "exactly-once"),
        "scripted",
        Hunt(BUSY, UNHEARD),
        on_group=do.lost_when_deposed,
    ),
    Mutation(
        "lost-when-index-reused",
        "a proposal is called definitely failed when its proposer uses the index again",
        ("definite-failures-never-applied",),
        "scripted",
        Hunt(play.FIVE, scene=play.index_used_again),
        on_group=do.lost_when_index_reused,
    ),
    Mutation(
        "router-lost-is-definite",
        "a router that lost its stream to the leader says that nothing was applied",
        ("definite-failures-never-applied", "exactly-once"),
        "scripted",
        Hunt(DENSE, NO_ANSWER),
        on_start=do.forward_lost_is_definite,
    ),
    Mutation(
        "client-lost-is-definite",
        "a client that lost its connection takes its requests for not sent",
        ("definite-failures-never-applied", "exactly-once"),
        "random",
        Hunt(DENSE.but(mixes=("network", "process"))),
        around=do.client_lost_is_definite,
    ),
)

_CALM: Final[tuple[Mutation, ...]] = (
    Mutation(
        "no-pre-vote",
        "a member stands for election without asking first (rule 15)",
        ("undisturbed-leader",),
        "liveness",
        Hunt(DENSE, RETURN, watch=undisturbed),
        rules=without(pre_vote=False),
    ),
    Mutation(
        "no-stale-answer",
        "a message of a lower term gets no answer: its sender never learns that it is late (rule 2)",
        ("progress",),
        "liveness",
        Hunt(play.SETUP, scene=play.candidate_ahead),
        rules=without(terms=False),
    ),
)

MUTANTS: Final[tuple[Mutation, ...]] = (*_RAFT, *_REST, *_LOG, *_STATE, *_ANSWERS, *LEVEL_MUTANTS, *_CALM)
"""In the order in which they are listed."""


def mutant(name: str) -> Mutation:
    """The mutant of this name. Raises `InvalidArgument`."""
    for one in MUTANTS:
        if one.name == name:
            return one
    raise InvalidArgument(f"there is no mutant {name!r}: `kv sim --list-mutants` names them")
