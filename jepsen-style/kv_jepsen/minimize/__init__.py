"""The smallest history, and the smallest schedule, that still shows a violation.

`shrink` is delta debugging of anything; `rests` says what an answer rests upon, so that nothing is made up; `complaint` is
what must stay; `calls` and `spells` put these together for histories and for schedules. Pure, all of them: what runs
a cluster again is `kv_jepsen.cli_minimize`.
"""

from kv_jepsen.minimize.calls import Minimized, NothingToMinimize, minimize
from kv_jepsen.minimize.complaint import Complaint, complaints
from kv_jepsen.minimize.shrink import Shrunk, shrink
from kv_jepsen.minimize.spells import Spell, schedule_of, spells

__all__ = [
    "Complaint",
    "Minimized",
    "NothingToMinimize",
    "Shrunk",
    "Spell",
    "complaints",
    "minimize",
    "schedule_of",
    "shrink",
    "spells",
]
