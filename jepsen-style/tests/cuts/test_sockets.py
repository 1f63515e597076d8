"""Whose socket it is."""

from __future__ import annotations

import os
import socket

import pytest

from kv_jepsen.cuts import sockets

pytestmark = pytest.mark.skipif(not sockets.offered(), reason="this machine does not tell")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_is_found_by_its_ends(family: socket.AddressFamily) -> None:
    """The dialling end of a connection is the socket of that inode, also where the dialler uses an IPv6 socket; held by us."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as link:
        port = server.getsockname()[1]
        link.connect(("127.0.0.1" if family is socket.AF_INET else "::ffff:127.0.0.1", port))
        accepted, peer = server.accept()
        inode = sockets.inode_of(peer, accepted.getsockname())
        accepted.close()
        assert inode == os.fstat(link.fileno()).st_ino
        assert inode is not None
        assert sockets.holds(os.getpid(), inode)
        assert not sockets.holds(os.getppid(), inode)


def test_what_is_gone_is_nobody_s() -> None:
    """A connection that there is not has no inode, and a process that there is not holds nothing."""
    assert sockets.inode_of(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    assert not sockets.holds(2**22 + 1, 1)
