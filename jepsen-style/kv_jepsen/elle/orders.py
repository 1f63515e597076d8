"""Version orders: in which order the elements of each list were appended, inferred from the reads.

Pure. A list only grows at its end, so each read of a key is a prefix of every later one: the longest read is the
order of all elements in it (Kingsbury and Alvaro, "Elle", VLDB 2020, section 4.2). Where reads contradict
each other the order is trusted as far as they agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kv_jepsen.elle.anomaly import Anomaly
from kv_jepsen.elle.txn import Append, Element, Elements, Key, Read, Txn, UnusableHistory, shorten


@dataclass(frozen=True, slots=True)
class Writer:
    """Who appended an element."""

    txn: int
    final: bool
    """It was the last append of that transaction to that key."""


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """The known order of one key's elements."""

    elements: Elements
    complete: bool
    """No read contradicts it, so what is not in it came after it or never."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The version orders of all keys, and who wrote what."""

    writers: dict[Key, dict[Element, Writer]]
    keys: dict[Key, KeyOrder]
    anomalies: tuple[Anomaly, ...]

    def writer(self, key: Key, element: Element) -> Writer | None:
        """Who appended the element; None if nobody did."""
        return self.writers.get(key, {}).get(element)


@dataclass(slots=True)
class _Observed:
    """The reads of one key so far."""

    longest: Elements = ()
    reader: int = -1
    agreed: int | None = None
    """How many elements the reads agree on, if there are two that do not."""
    conflict: tuple[int, Elements] | None = None
    """The read that agrees least with the longest one: who, and what."""
    readers: list[tuple[int, Elements]] = field(default_factory=list)


def infer(txns: Sequence[Txn]) -> Orders:
    """The order of each key's elements, with duplicates and incompatible orders reported.

    Raises:
        UnusableHistory: two appends of one element to one key.
    """
    writers = index_writers(txns)
    observed: dict[Key, _Observed] = {}
    anomalies: list[Anomaly] = []
    for txn, read, elements in known_reads(txns):
        seen = observed.setdefault(read.key, _Observed())
        distinct = _without_repeats(elements)
        if len(distinct) < len(elements):
            anomalies.append(_duplicate(txn, read.key, elements, elements[len(distinct)]))
        seen.readers.append((txn.index, distinct))
        if len(distinct) > len(seen.longest):
            seen.longest, seen.reader = distinct, txn.index
    keys: dict[Key, KeyOrder] = {}
    for key, seen in observed.items():
        keys[key] = _order(seen)
        if seen.conflict is not None:
            anomalies.append(_incompatible(key, seen))
    return Orders(writers, keys, tuple(anomalies))


def known_reads(txns: Sequence[Txn]) -> Iterator[tuple[Txn, Read, Elements]]:
    """Every read whose value is known, of transactions that happened."""
    for txn in txns:
        if txn.ok:
            for mop in txn.mops:
                if isinstance(mop, Read) and mop.elements is not None:
                    yield txn, mop, mop.elements


def index_writers(txns: Sequence[Txn]) -> dict[Key, dict[Element, Writer]]:
    """Who appended each element.

    Raises:
        UnusableHistory: two appends of one element to one key, so that a read does not tell whose it saw.
    """
    writers: dict[Key, dict[Element, Writer]] = {}
    for txn in txns:
        last: dict[Key, Append] = {append.key: append for append in txn.appends()}
        for append in txn.appends():
            of_key = writers.setdefault(append.key, {})
            if append.element in of_key:
                other = of_key[append.element].txn
                raise UnusableHistory(
                    f"T{other} and T{txn.index} both append {append.element!r} to {append.key!r}:"
                    " the workload must append each element to a key once"
                )
            of_key[append.element] = Writer(txn.index, final=last[append.key] is append)
    return writers


def _without_repeats(elements: Elements) -> Elements:
    """The part before the first element that is there a second time."""
    if len(set(elements)) == len(elements):
        return elements
    seen: set[Element] = set()
    for position, element in enumerate(elements):
        if element in seen:
            return elements[:position]
        seen.add(element)
    raise AssertionError("a shorter set means a repeated element")


def _order(seen: _Observed) -> KeyOrder:
    """The longest read, cut to what all reads agree on."""
    for reader, elements in seen.readers:
        if seen.longest[: len(elements)] != elements:
            agreed = _common(seen.longest, elements)
            if seen.agreed is None or agreed < seen.agreed:
                seen.agreed, seen.conflict = agreed, (reader, elements)
    return KeyOrder(seen.longest[: seen.agreed], complete=seen.agreed is None)


def _common(left: Elements, right: Elements) -> int:
    """The length of the longest common prefix."""
    for position, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return position
    return min(len(left), len(right))


def _duplicate(txn: Txn, key: Key, elements: Elements, element: Element) -> Anomaly:
    sentence = (
        f"T{txn.index} read {key} as {shorten(elements)}: {element} is in it {elements.count(element)} times,"
        " and was appended once."
    )
    return Anomaly("duplicate-elements", (txn.index,), sentence)


def _incompatible(key: Key, seen: _Observed) -> Anomaly:
    assert seen.conflict is not None
    reader, elements = seen.conflict
    sentence = (
        f"T{seen.reader} read {key} as {shorten(seen.longest)} and T{reader} read it as {shorten(elements)}:"
        " neither is the beginning of the other, so no order of appends explains both."
    )
    return Anomaly("incompatible-order", (seen.reader, reader), sentence)
