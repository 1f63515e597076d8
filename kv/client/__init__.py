"""The client of a cluster: `AsyncClient` for asyncio, `Client` for everything else.

    async with AsyncClient.from_url("kv://127.0.0.1:7001") as client:
        reply = await client.put(b"user7", b"Ada")
        item = await client.get(b"user7")

How it works: `aio` has the methods, `core` joins concurrent calls into requests and
drives them, `retry` decides what follows a failure, `session` makes a retried write
safe, `levels` says what a read or a write asks for, `directory` and `replicas` know where
to send, `connection` is the only gRPC.

Promises: a write is applied at most once, whatever is lost on the way; an error says
whether nothing was applied (`definite`) or that nobody knows (`UnknownOutcome`), and then
`outcome` tells; one timeout covers all attempts; each reply says in its evidence who served
it and at which level.

Given up: order between concurrent calls (await one before the next if it matters);
a session per partition costs one round trip at the first write there.
"""

from kv.client.aio import AsyncClient
from kv.client.levels import Level, LevelLike, Preference, PreferenceKind, PreferenceLike, WriteLevelLike
from kv.client.limits import Limits
from kv.client.sync import Client
from kv.client.types import (
    Append,
    AppendReply,
    Compare,
    Delete,
    DeleteReply,
    Evidence,
    Get,
    Increment,
    IncrementReply,
    Item,
    Op,
    Outcome,
    OutcomeState,
    Put,
    PutReply,
    Reading,
    ReadLevel,
    Relation,
    Result,
    ScanPage,
    Txn,
    TxnOp,
    TxnReply,
    WriteLevel,
)
from kv.client.url import ClientOptions, parse_url
from kv.outcome import OutcomeToken

__all__ = [
    "Append",
    "AppendReply",
    "AsyncClient",
    "Client",
    "ClientOptions",
    "Compare",
    "Delete",
    "DeleteReply",
    "Evidence",
    "Get",
    "Increment",
    "IncrementReply",
    "Item",
    "Level",
    "LevelLike",
    "Limits",
    "Op",
    "Outcome",
    "OutcomeState",
    "OutcomeToken",
    "Preference",
    "PreferenceKind",
    "PreferenceLike",
    "Put",
    "PutReply",
    "ReadLevel",
    "Reading",
    "Relation",
    "Result",
    "ScanPage",
    "Txn",
    "TxnOp",
    "TxnReply",
    "WriteLevel",
    "WriteLevelLike",
    "parse_url",
]
