"""The model of a register that can be deleted: a delete is a write of nothing. Pure."""

from __future__ import annotations

from dataclasses import replace

from kv_jepsen.history import Call
from kv_jepsen.models import Register


class Erasable(Register):
    """As `Register`, with `delete`, which succeeds also where there is nothing."""

    name = "erasable"
    functions = frozenset({*Register.functions, "delete"})

    def _taken(self, call: Call) -> Call | None:
        taken = super()._taken(call)
        return replace(taken, f="write", input=None) if taken is not None and taken.f == "delete" else taken
