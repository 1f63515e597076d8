"""The mutants of read levels, outcome queries and write levels.

Here live entries of the registry only; see `kv.sim.mutants`.
"""

from __future__ import annotations

from typing import Final

from kv.sim import level_mutations as do
from kv.sim import read_scenes as play
from kv.sim.circumstances import AGED, APART, CLINGING, CUT_OFF, DENSE, LEVELS, PAGES, SCANS, Hunt
from kv.sim.levels import readers_and_writers
from kv.sim.mutation import Mutation, without
from kv.sim.scripted import SETUP

_READS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "lease-too-long",
        "a lease lasts longer than an election timeout (rule 22)",
        ("linearizable",),
        "scripted",
        Hunt(CLINGING, CUT_OFF, work=readers_and_writers),
        rules=without(lease_bounded=False),
    ),
    Mutation(
        "lease-unconfirmed",
        "a lease begins with a probe that was sent, whether anyone answered it or not (rule 22)",
        ("linearizable",),
        "scripted",
        Hunt(CLINGING, CUT_OFF, work=readers_and_writers),
        rules=without(lease_confirmed=False),
    ),
    Mutation(
        "vote-during-lease",
        "a member that hears a leader votes for another: a lease outlives its leader (rule 16)",
        ("linearizable",),
        "scripted",
        Hunt(play.LEASES, scene=play.lease_and_candidate),
        rules=without(sticky_leader=False),
    ),
    Mutation(
        "vote-while-leader-unknown",
        "votes are held back only where the leader's name is known (rule 23)",
        ("linearizable",),
        "scripted",
        Hunt(play.LEASES, scene=play.lease_by_probes_only),
        rules=without(votes_held_back=False),
    ),
    Mutation(
        "answer-to-another-question",
        "a follower's read takes any answer of a leader, to whatever question (rule 24)",
        ("linearizable",),
        "scripted",
        Hunt(SETUP, scene=play.late_answer),
        rules=without(answers_matched=False),
    ),
    Mutation(
        "follower-read-before-applied",
        "a follower reads before it has applied what its leader named (rule 14)",
        ("linearizable",),
        "scripted",
        Hunt(SETUP, scene=play.answer_before_its_entries),
        on_group=do.read_before_applied,
    ),
    Mutation(
        "session-token-ignored",
        "a replica answers a SESSION read though it is behind what the session has seen",
        ("session-reads-see-what-was-seen",),
        "scripted",
        Hunt(SETUP, scene=play.session_behind),
        on_group=do.session_token_ignored,
    ),
    Mutation(
        "session-forgets",
        "a client does not remember what its SESSION reads must see",
        ("session-reads-see-what-was-seen",),
        "scripted",
        Hunt(DENSE, AGED),
        around=do.nothing_seen,
    ),
    Mutation(
        "any-proof-is-young",
        "a BOUNDED read takes any proof, however old",
        ("bounded-reads-are-young",),
        "scripted",
        Hunt(LEVELS, APART, work=readers_and_writers),
        on_group=do.any_proof_is_young,
    ),
    Mutation(
        "proof-dated-by-its-answer",
        "a proof counts from when the leader's answer came, not from when the question began",
        ("bounded-reads-are-young", "evidence-is-true"),
        "scripted",
        Hunt(LEVELS, AGED, work=readers_and_writers),
        on_group=do.proof_dated_by_its_answer,
    ),
    Mutation(
        "pages-of-now",
        "each page of a scan reads the present state instead of the scan's snapshot",
        ("scans-read-one-index",),
        "scripted",
        Hunt(PAGES, SCANS),
        on_group=do.pages_of_now,
    ),
    Mutation(
        "new-keys-not-remembered",
        "a scan's snapshot does not know which keys did not exist",
        ("scans-read-one-index",),
        "scripted",
        Hunt(PAGES, SCANS),
        on_group=do.new_keys_not_remembered,
    ),
)

_WRITES: Final[tuple[Mutation, ...]] = (
    Mutation(
        "all-means-quorum",
        "a write at level ALL is acknowledged when a quorum has it",
        ("all-means-all",),
        "random",
        Hunt(DENSE),
        on_group=do.all_means_quorum,
    ),
    Mutation(
        "outcome-without-fence",
        "an outcome query says NOT_APPLIED, and the request is applied when it comes late",
        ("definite-failures-never-applied", "equal-content"),
        "scripted",
        Hunt(SETUP, scene=play.late_request),
        on_group=do.outcome_without_fence,
    ),
    Mutation(
        "fences-not-in-checkpoints",
        "a checkpoint forgets what was declared not applied",
        ("definite-failures-never-applied", "equal-content"),
        "scripted",
        Hunt(SETUP, scene=play.late_request_after_a_crash),
        on_group=do.fences_not_in_checkpoints,
    ),
    Mutation(
        "fences-not-in-snapshots",
        "a snapshot that is installed forgets what was declared not applied",
        ("definite-failures-never-applied", "equal-content"),
        "scripted",
        Hunt(SETUP, scene=play.late_request_after_a_snapshot),
        on_group=do.fences_not_in_snapshots,
    ),
)

LEVEL_MUTANTS: Final = (*_READS, *_WRITES)
"""In the order in which they are listed."""
