"""Runs a scan: page after page, from node to node until the range is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from kv.client.directory import Directory
from kv.client.retry import Action, backoff_s, deadline_error, decide
from kv.client.scan import ScanCursor
from kv.client.transport import Transport
from kv.client.types import Item
from kv.errors import KVError, Unavailable
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
    ) -> None:
        """Read what `cursor` says.

        Args:
            cursor: the range and how far it was read.
            directory: the addresses.
            transport: the network.
            timeout_s: how long it may go without progress.
            silence_s: how long one node may be silent before another is asked.
            jitter: returns uniform numbers in [0, 1).
        """
        self._cursor = cursor
        self._directory = directory
        self._transport = transport
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._jitter = jitter

    async def pages(self) -> AsyncGenerator[list[Item], None]:
        """Iterate over the pages that are not empty."""
        loop = asyncio.get_running_loop()
        deadline, failures, address = loop.time() + self._timeout_s, 0, None
        while not self._cursor.done:
            addresses = self._directory.known_addresses(loop.time())
            address = _after(addresses, address) if failures else addresses[0]
            try:
                async with aclosing(self._attempt(address, deadline - loop.time())) as pages:
                    async for page in pages:
                        items = self._cursor.take(page)
                        if items:  # an attempt that fails after empty pages made no progress
                            deadline, failures = loop.time() + self._timeout_s, 0
                            yield items
                return
            except KVError as error:
                failures += 1
                await self._pause(error, failures, deadline)

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
        if decision.action is Action.FAIL:
            assert decision.error is not None, "a failure has a reason"
            raise decision.error
        delay = max(decision.delay_s, backoff_s(failures, self._jitter()))
        if loop.time() + delay >= deadline:
            raise deadline_error(write=False, indefinite=False, cause=error)
        await asyncio.sleep(delay)


def _after(addresses: Sequence[str], last: str | None) -> str:
    """Return the address after `last`, the first after the end."""
    if last not in addresses:
        return addresses[0]
    return addresses[(addresses.index(last) + 1) % len(addresses)]
