"""The kinds of load and the ways in which keys and arrivals are drawn. Names only, so that a help text costs no import."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What one operation of a run is."""

    PUT = "put"
    """One put."""
    GET = "get"
    """One get."""
    MIXED = "mixed"
    """A get or a put, by the ratio of reads."""
    SCAN = "scan"
    """One scan of some keys, from a drawn one on."""
    BATCH = "batch"
    """One batch of puts."""
    WATCH = "watch"
    """Refused: the store has no watches."""


class Distribution(StrEnum):
    """How keys are drawn."""

    UNIFORM = "uniform"
    ZIPFIAN = "zipfian"


class Arrivals(StrEnum):
    """How the operations of an open loop come."""

    POISSON = "poisson"
    """Independent of each other, as from very many users."""
    CONSTANT = "constant"
    """At even distances."""
