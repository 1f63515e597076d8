"""HTTP in front of the node's own router, for people and programs without gRPC.

`app` is the ASGI application, `codec` what its requests look like, `replies` what it answers, `server` runs it
inside the node's event loop. The gateway decides nothing about data: it turns one HTTP request into one batch of one
operation and hands that to the router through a port (`Executor`).
"""

from __future__ import annotations

from kv.gateway.app import Executor, Readiness, make_app
from kv.gateway.server import HttpServer

__all__ = ["Executor", "HttpServer", "Readiness", "make_app"]
