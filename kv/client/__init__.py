"""The client of a cluster: `AsyncClient` for asyncio, `Client` for everything else.

    async with AsyncClient.from_url("kv://127.0.0.1:7001") as client:
        reply = await client.put(b"user7", b"Ada")
        item = await client.get(b"user7")

How it works: `aio` has the methods, `core` joins concurrent calls into requests and
drives them, `retry` decides what follows a failure, `session` makes a retried write
safe, `directory` knows where to send, `connection` is the only gRPC.

Promises: a write is applied at most once, whatever is lost on the way; an error says
whether nothing was applied (`definite`) or that nobody knows (`UnknownOutcome`); one
timeout covers all attempts.

Given up: order between concurrent calls (await one before the next if it matters);
a session per partition costs one round trip at the first write there.
"""

from kv.client.aio import AsyncClient
from kv.client.lane import Limits
from kv.client.sync import Client
from kv.client.types import (
    Compare,
    Delete,
    DeleteReply,
    Evidence,
    Get,
    Item,
    Op,
    Put,
    PutReply,
    ReadLevel,
    Relation,
    Result,
    TxnReply,
)
from kv.client.url import ClientOptions, parse_url

__all__ = [
    "AsyncClient",
    "Client",
    "ClientOptions",
    "Compare",
    "Delete",
    "DeleteReply",
    "Evidence",
    "Get",
    "Item",
    "Limits",
    "Op",
    "Put",
    "PutReply",
    "ReadLevel",
    "Relation",
    "Result",
    "TxnReply",
    "parse_url",
]
