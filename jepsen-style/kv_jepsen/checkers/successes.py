"""Whether a history shows anything at all: of calls that never succeeded nothing can be wrong, and nothing is right.

Pure. As Jepsen's checker `stats`, which calls a run without successes unknown; here what counts are answers that the other
checkers of the workload hold against something.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kv_jepsen.checkers.finding import CheckResult, judged
from kv_jepsen.history import Call

TRANSACTION = "txn"
READ_IN_TRANSACTION = "r"


def successes(calls: Sequence[Call], telling: Collection[str]) -> CheckResult:
    """Unknown without one successful call of a function whose answer tells something of the state.

    Args:
        calls: those that are judged.
        telling: functions whose answers are held against the calls before; a transaction tells something if it reads.
    """
    ok = [call for call in calls if call.ok]
    told = sum(call.f in telling and _reads(call) for call in ok)
    counts = {"calls": len(calls), "ok": len(ok), "telling": told}
    return judged("successes", (), counts, _reason(calls, ok, told, telling))


def _reason(calls: Sequence[Call], ok: Sequence[Call], told: int, telling: Collection[str]) -> str:
    """Why the history shows nothing; empty if it does show something."""
    if told:
        return ""
    if not calls:
        return "there is no call to judge, so nothing was shown"
    if not ok:
        return f"none of {len(calls)} calls succeeded, so nothing was shown: look at their errors and the nodes' logs"
    return (
        f"{len(ok)} of {len(calls)} calls succeeded, but none of {', '.join(sorted(telling))}, "
        "so there is no answer that could have been wrong"
    )


def _reads(call: Call) -> bool:
    """Whether a call that is no plain read or change has a part that reads."""
    if call.f != TRANSACTION or not isinstance(call.output, tuple):
        return True
    return any(isinstance(part, tuple) and part[:1] == (READ_IN_TRANSACTION,) for part in call.output)
