"""Runs a scan: page after page, at one node. Another one is asked only while no item was given out.

Each partition's share of one call is read at one index. To go on in another call would break that promise, so
a scan that fails half way ends with SNAPSHOT_GONE, unless its caller has asked to go on all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from kv.client.directory import Directory
from kv.client.retry import Action, backoff_s, deadline_error, decide
from kv.client.scan import ScanCursor
from kv.client.transport import Transport
from kv.client.types import ScanPage
from kv.errors import KVError, SnapshotGone, Unavailable
from kv.v1 import kv_pb2

EXPIRED_S = 0.001
"""What an attempt gets whose time is up: enough to fail by the ordinary way."""


class Scanner:
    """One scan under way."""

    def __init__(
        self,
        cursor: ScanCursor,
        directory: Directory,
        transport: Transport,
        *,
        timeout_s: float,
        silence_s: float,
        jitter: Callable[[], float],
        resume: bool,
        on_page: Callable[[ScanPage], None],
        first: Callable[[], Sequence[str]],
    ) -> None:
        """Read what `cursor` says.

        Args:
            cursor: the range and how far it was read.
            directory: the addresses.
            transport: the network.
            timeout_s: how long it may go without progress.
            silence_s: how long one node may be silent before another is asked.
            jitter: returns uniform numbers in [0, 1).
            resume: go on after the last key, at another index, if the scan breaks half way.
            on_page: is told of each page before it is given out.
            first: returns the addresses to prefer.
        """
        self._cursor = cursor
        self._directory = directory
        self._transport = transport
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._jitter = jitter
        self._resume = resume
        self._on_page = on_page
        self._first = first
        self._begun = False

    async def pages(self) -> AsyncGenerator[ScanPage, None]:
        """Iterate over the pages that are not empty; of a scan that found nothing the one that says so."""
        loop = asyncio.get_running_loop()
        deadline, failures, address = loop.time() + self._timeout_s, 0, None
        while not self._cursor.done:
            addresses = self._addresses(loop.time())
            address = _after(addresses, address) if failures else addresses[0]
            empty: ScanPage | None = None
            try:
                async with aclosing(self._attempt(address, deadline - loop.time())) as pages:
                    async for page in pages:
                        items = self._cursor.take(page)
                        self._on_page(items)
                        if items:  # an attempt that fails after empty pages made no progress
                            deadline, failures, self._begun = loop.time() + self._timeout_s, 0, True
                            yield items
                        else:
                            empty = items
            except KVError as error:
                failures += 1
                await self._pause(error, failures, deadline)
                continue
            if empty is not None and not self._begun:
                yield empty
            return

    def _addresses(self, now: float) -> list[str]:
        """Return every known address, the preferred ones first among those that work."""
        first = self._first()
        known = self._directory.known_addresses(now)
        return [*(one for one in first if one in known), *(one for one in known if one not in first)]

    async def _attempt(self, address: str, seconds: float) -> AsyncGenerator[kv_pb2.ScanResponse, None]:
        """Run the rest of the scan at one node; end it if the node is silent for too long."""
        pages = self._transport.scan(address, self._cursor.request(), max(seconds, EXPIRED_S))
        async with aclosing(pages):
            while True:
                try:
                    page = await asyncio.wait_for(anext(pages), self._silence_s)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise Unavailable(f"no page from {address} within {self._silence_s} s") from None
                yield page

    async def _pause(self, error: KVError, failures: int, deadline: float) -> None:
        """Wait before the next attempt; raise if there is none."""
        loop = asyncio.get_running_loop()
        decision = decide(error, write=False, indefinite=False, failures=failures, jitter=self._jitter())
        goes_on = self._resume and isinstance(error, SnapshotGone)
        if decision.action is Action.FAIL and not goes_on:
            assert decision.error is not None, "a failure has a reason"
            raise decision.error
        if self._begun and not self._resume:
            raise SnapshotGone(
                f"the scan broke half way with {error.reason}: {error.message}",
                metadata={"cause": error.reason},
            ) from error
        delay = max(decision.delay_s, backoff_s(failures, self._jitter()))
        if loop.time() + delay >= deadline:
            raise deadline_error(write=False, indefinite=False, cause=error)
        await asyncio.sleep(delay)


def _after(addresses: Sequence[str], last: str | None) -> str:
    """Return the address after `last`, the first after the end."""
    if last not in addresses:
        return addresses[0]
    return addresses[(addresses.index(last) + 1) % len(addresses)]
