"""Cycle checking of list appends in the manner of Elle: which isolation anomalies does a history show?

    txns = transactions(history.calls)
    result = check(txns)
    result.valid, result.counts(), result.weakest_ruled_out

Pure, as everything in here.
"""

from kv_jepsen.elle.anomaly import Anomaly, Kind, Step
from kv_jepsen.elle.check import ElleResult, check
from kv_jepsen.elle.consistency import models, ruled_out
from kv_jepsen.elle.extract import transactions
from kv_jepsen.elle.txn import Append, Read, Txn, UnusableHistory, describe

__all__ = [
    "Anomaly",
    "Append",
    "ElleResult",
    "Kind",
    "Read",
    "Step",
    "Txn",
    "UnusableHistory",
    "check",
    "describe",
    "models",
    "ruled_out",
    "transactions",
]
