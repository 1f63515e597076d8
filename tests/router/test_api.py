"""The real parts fit the faces that the router asks for (mypy proves the types, the test that they are there)."""

from __future__ import annotations

from kv.partition.partition import Replica
from kv.router import api
from kv.router.forward import ForwardLink, GrpcForwarder


def faces(
    replica: Replica, forwarder: GrpcForwarder, link: ForwardLink
) -> tuple[api.Replica, api.Forwarder, api.Forwarder]:
    """Compiles only if the classes implement the protocols."""
    return replica, forwarder, link


def test_the_real_parts_have_the_members_of_the_protocols() -> None:
    """A member that is renamed on one side is missed here, not in production."""
    for protocol, real in ((api.Replica, Replica), (api.Forwarder, ForwardLink)):
        asked = {name for name in vars(protocol) if not name.startswith("_")}
        assert asked
        assert asked <= set(dir(real))
