"""Virtual time: an event loop that skips the waiting, so that a test of minutes takes none."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when nothing is ready, and then at once."""

    def __init__(self) -> None:
        self._now = 1000.0
        selector = selectors.DefaultSelector()
        real_select = selector.select

        def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            assert timeout is not None, "the test waits for something that never happens"
            self._now += max(0.0, timeout)
            return real_select(0)

        selector.select = select  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now


def run_virtual(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run `main` in virtual time; an exception in a callback fails it too."""
    lost: list[BaseException] = []

    def keep(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        lost.append(context.get("exception") or AssertionError(context["message"]))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(keep)
        result = runner.run(main())
    if lost:
        raise lost[0]
    return result
