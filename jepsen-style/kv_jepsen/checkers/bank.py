"""A bank: transfers move money and make none.

Pure. Calls are `transfer` and `read`; a read returns a map of account to balance. Each key is a bank of its own (the
store has transactions inside one partition, so accounts of one bank share one).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kv_jepsen.checkers.finding import CheckResult, Finding, judged
from kv_jepsen.history import Call, Value


def bank(calls: Sequence[Call], total: int | None = None, *, overdraft: bool = False) -> CheckResult:
    """Every read has the same total; no balance is negative unless `overdraft`.

    Args:
        calls: of the whole history.
        total: money in each bank; by default what the first read of each saw.
        overdraft: whether balances below zero are allowed.
    """
    totals: dict[Value, int] = {}
    findings: list[Finding] = []
    reads = sorted((call for call in calls if call.f == "read" and call.ok), key=lambda call: call.end)
    for read in reads:
        balances = _balances(read)
        expected = totals.setdefault(read.key, sum(balances.values()) if total is None else total)
        findings += _judge(read, balances, expected, overdraft)
    counts = {"reads": len(reads), "banks": len(totals), "transfers": sum(map(_moved, calls))}
    return judged("bank", findings, counts, "" if reads else "no read completed")


def _moved(call: Call) -> bool:
    return call.f == "transfer" and call.ok and call.output is not False


def _balances(read: Call) -> dict[Value, int]:
    """What a read returned: a map, or pairs of account and balance."""
    pairs = tuple(read.output.items()) if isinstance(read.output, Mapping) else read.output
    balances: dict[Value, int] = {}
    for pair in pairs if isinstance(pairs, tuple) else (pairs,):
        match pair:
            case (account, int(balance)):
                balances[account] = balance
            case _:
                raise ValueError(
                    f"operation {read.id}: a read of a bank must give balances, not {read.output!r}"
                )
    return balances


def _judge(read: Call, balances: dict[Value, int], expected: int, overdraft: bool) -> Iterator[Finding]:
    if sum(balances.values()) != expected:
        why = f"A read has {sum(balances.values())} in all accounts together, and there are {expected}."
        yield Finding("wrong-total", why, (read.id,))
    negative = [account for account, balance in balances.items() if balance < 0]
    if negative and not overdraft:
        why = f"Account {negative[0]} has {balances[negative[0]]}, and no balance may be below zero."
        yield Finding("negative", why, (read.id,))
