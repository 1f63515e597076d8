"""The cycle checker as one function: transactions in, anomalies and ruled-out models out.

Pure. After Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 2020.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kv_jepsen.elle import consistency, cycles, direct, edges, orders
from kv_jepsen.elle.anomaly import Anomaly
from kv_jepsen.elle.txn import Txn


@dataclass(frozen=True, slots=True)
class ElleResult:
    """The judgement on a history of list appends."""

    model: str
    """The consistency model it was held against."""
    valid: bool | Literal["unknown"]
    """`unknown` if there was nothing to go by: no transaction read anything of another."""
    anomalies: tuple[Anomaly, ...]
    ruled_out: tuple[str, ...]
    """Every model that the anomalies contradict."""
    weakest_ruled_out: tuple[str, ...]
    """The weakest of these."""
    txns: int
    dependencies: int
    """Edges of the dependency graph."""

    def counts(self) -> dict[str, int]:
        """How many anomalies of each name."""
        return dict(sorted(Counter(anomaly.name for anomaly in self.anomalies).items()))


def check(txns: Sequence[Txn], model: str = consistency.STRICT) -> ElleResult:
    """Judge the transactions; see `extract.transactions` for where they come from.

    Raises:
        UnusableHistory: an element appended twice to one key.
        ValueError: a consistency model that is not known here.
    """
    if model not in consistency.models():
        raise ValueError(f"no consistency model {model!r}: choose one of {', '.join(consistency.models())}")
    assert all(txn.index == i for i, txn in enumerate(txns)), "transactions are numbered by position"
    inferred = orders.infer(txns)
    graph = edges.build(txns, inferred)
    plain = (*inferred.anomalies, *direct.find(txns, inferred))
    found = cycles.find(graph, [(txn.start, txn.end) for txn in txns])
    anomalies = (*plain, *_saying_more(found, plain))
    out = consistency.ruled_out(anomaly.name for anomaly in anomalies)
    valid: bool | Literal["unknown"] = model not in out
    if valid and not graph.evidence:
        valid = "unknown"
    return ElleResult(
        model,
        valid,
        anomalies,
        tuple(name for name in consistency.models() if name in out),
        tuple(consistency.weakest(out)),
        len(txns),
        len(graph.graph),
    )


def _saying_more(found: Sequence[Anomaly], plain: Sequence[Anomaly]) -> list[Anomaly]:
    """Cycles without those between the very transactions of an anomaly that rules out as much."""
    told: dict[frozenset[int], frozenset[str]] = {}
    for anomaly in plain:
        concerned = frozenset(anomaly.txns)
        told[concerned] = told.get(concerned, frozenset()) | consistency.ruled_out([anomaly.name])
    return [
        cycle
        for cycle in found
        if not told.get(frozenset(cycle.txns), frozenset()) >= consistency.ruled_out([cycle.name])
    ]
