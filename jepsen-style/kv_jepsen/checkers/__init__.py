"""Checkers of single properties; each is a function from calls to a `CheckResult`. Pure, all of them.

Linearizability has its own place in `kv_jepsen.linearizable`, cycles of list appends in `kv_jepsen.elle`.
"""

from kv_jepsen.checkers.bank import bank
from kv_jepsen.checkers.counter import counter
from kv_jepsen.checkers.finding import CheckResult, Finding, Valid, worst
from kv_jepsen.checkers.logs import log_patterns
from kv_jepsen.checkers.monotonic import monotonic
from kv_jepsen.checkers.queue import total_queue
from kv_jepsen.checkers.recovery import recovery
from kv_jepsen.checkers.replicas import ReplicaState, replicas_equal
from kv_jepsen.checkers.session import session_guarantees
from kv_jepsen.checkers.sets import final_set, set_full
from kv_jepsen.checkers.staleness import ages, histograms, staleness
from kv_jepsen.checkers.successes import successes
from kv_jepsen.checkers.unique import unique_ids
from kv_jepsen.checkers.watch import watches

__all__ = [
    "CheckResult",
    "Finding",
    "ReplicaState",
    "Valid",
    "ages",
    "bank",
    "counter",
    "final_set",
    "histograms",
    "log_patterns",
    "monotonic",
    "recovery",
    "replicas_equal",
    "session_guarantees",
    "set_full",
    "staleness",
    "successes",
    "total_queue",
    "unique_ids",
    "watches",
    "worst",
]
