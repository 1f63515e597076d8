"""Anomalies that show without a cycle.

Aborted, intermediate and garbage reads, dirty and lost updates, internal contradictions. Pure. Names and definitions: Adya (1999) for G1a and G1b; Elle (VLDB 2020, section 4.3) for the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kv_jepsen.elle.anomaly import Anomaly
from kv_jepsen.elle.orders import Orders, known_reads
from kv_jepsen.elle.txn import Append, Element, Elements, Key, Read, Txn, shorten
from kv_jepsen.history import Outcome


def find(txns: Sequence[Txn], orders: Orders) -> list[Anomaly]:
    """All of them, by kind."""
    return [
        *_foreign_elements(txns, orders),
        *_intermediate_reads(txns, orders),
        *_dirty_updates(txns, orders),
        *_lost_updates(txns),
        *_internal(txns),
    ]


def _foreign_elements(txns: Sequence[Txn], orders: Orders) -> Iterator[Anomaly]:
    """Reads of an element whose transaction failed (G1a), or that nobody appended (garbage)."""
    aborted = {txn.index for txn in txns if txn.outcome is Outcome.FAILED}
    sane: dict[Key, int] = {}
    for key, order in orders.keys.items():
        bad = (i for i, e in enumerate(order.elements) if _is_foreign(orders, aborted, key, e))
        sane[key] = next(bad, len(order.elements))
    for txn, read, elements in known_reads(txns):
        # Most reads are within the part of the order that is known to be sane, and need no look at each element.
        start = sane[read.key]
        if orders.keys[read.key].elements[: min(start, len(elements))] != elements[:start]:
            start = 0
        for element in elements[start:]:
            writer = orders.writer(read.key, element)
            if writer is None:
                yield _garbage(txn, read.key, elements, element)
            elif writer.txn in aborted:
                yield _aborted(txn, writer.txn, read.key, elements, element)
            else:
                continue
            break  # one for each read is enough to look at


def _is_foreign(orders: Orders, aborted: set[int], key: Key, element: Element) -> bool:
    writer = orders.writer(key, element)
    return writer is None or writer.txn in aborted


def _garbage(txn: Txn, key: Key, elements: Elements, element: Element) -> Anomaly:
    sentence = f"T{txn.index} read {key} as {shorten(elements)}, with {element}, which nobody appended."
    return Anomaly("garbage-read", (txn.index,), sentence)


def _aborted(txn: Txn, writer: int, key: Key, elements: Elements, element: Element) -> Anomaly:
    sentence = (
        f"T{txn.index} read {key} as {shorten(elements)}, with {element}, which T{writer} appended,"
        " and that transaction failed."
    )
    return Anomaly("G1a", (txn.index, writer), sentence)


def _intermediate_reads(txns: Sequence[Txn], orders: Orders) -> Iterator[Anomaly]:
    """Reads of a state in the middle of another transaction (G1b)."""
    for txn, read, elements in known_reads(txns):
        writer = orders.writer(read.key, elements[-1]) if elements else None
        if writer is not None and not writer.final and writer.txn != txn.index:
            sentence = (
                f"T{txn.index} read {read.key} as {shorten(elements)}, which ends with {elements[-1]},"
                f" but T{writer.txn} appended more to {read.key} after that."
            )
            yield Anomaly("G1b", (txn.index, writer.txn), sentence)


def _dirty_updates(txns: Sequence[Txn], orders: Orders) -> Iterator[Anomaly]:
    """A committed append on top of one whose transaction failed."""
    for key, order in orders.keys.items():
        dirty: tuple[Element, int] | None = None
        for element in order.elements:
            writer = orders.writer(key, element)
            if writer is None:
                continue
            if txns[writer.txn].outcome is Outcome.FAILED:
                dirty = (element, writer.txn)
            elif dirty is not None and txns[writer.txn].ok:
                sentence = (
                    f"T{writer.txn} appended {element} to {key} on top of {dirty[0]}, which T{dirty[1]} appended,"
                    " and that transaction failed."
                )
                yield Anomaly("dirty-update", (writer.txn, dirty[1]), sentence)
                break


def _lost_updates(txns: Sequence[Txn]) -> Iterator[Anomaly]:
    """Several transactions that read the same version of a key and all appended to it."""
    by_version: dict[tuple[Key, Elements], list[int]] = {}
    for txn in txns:
        if txn.ok:
            first: dict[Key, Elements] = {}
            for key, elements in txn.external_reads():
                first.setdefault(key, elements)
            for key in dict.fromkeys(append.key for append in txn.appends()):
                if key in first:
                    by_version.setdefault((key, first[key]), []).append(txn.index)
    for (key, elements), together in by_version.items():
        if len(together) > 1:
            names = ", ".join(f"T{index}" for index in together)
            sentence = (
                f"{names} all read {key} as {shorten(elements)} and then appended to it:"
                " at most one of them saw what its append followed."
            )
            yield Anomaly("lost-update", tuple(together), sentence)


def _internal(txns: Sequence[Txn]) -> Iterator[Anomaly]:
    """Transactions that contradict their own reads and appends."""
    for txn in txns:
        if txn.ok:
            known: dict[Key, tuple[bool, Elements]] = {}
            for step, mop in enumerate(txn.mops):
                whole, expected = known.get(mop.key, (False, ()))
                if isinstance(mop, Append):
                    known[mop.key] = (whole, (*expected, mop.element))
                elif mop.elements is not None:
                    if not _agrees(mop.elements, expected, whole):
                        yield _contradiction(txn, mop, mop.elements, expected, whole)
                        break
                    if (ahead := _from_the_future(txn, step, mop.key, mop.elements)) is not None:
                        yield ahead
                        break
                    known[mop.key] = (True, mop.elements)


def _agrees(elements: Elements, expected: Elements, whole: bool) -> bool:
    """Whether a read is what the transaction knows: the whole list, or only how it ends."""
    return elements == expected if whole else elements[len(elements) - len(expected) :] == expected


def _from_the_future(txn: Txn, step: int, key: Key, elements: Elements) -> Anomaly | None:
    """A read of what the same transaction appends only later."""
    for mop in txn.mops[step:]:
        if isinstance(mop, Append) and mop.key == key and mop.element in elements:
            sentence = f"T{txn.index} read {key} as {shorten(elements)}, with {mop.element}, which it appended only later."
            return Anomaly("internal", (txn.index,), sentence)
    return None


def _contradiction(txn: Txn, read: Read, elements: Elements, expected: Elements, whole: bool) -> Anomaly:
    sentence = (
        f"T{txn.index} read {read.key} as {shorten(elements)}, though by its own earlier steps it must"
        f" {'be' if whole else 'end with'} {shorten(expected)}."
    )
    return Anomaly("internal", (txn.index,), sentence)
