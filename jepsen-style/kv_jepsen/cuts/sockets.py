"""Whose socket it is: Linux only, no privileges needed.

The kernel's socket diagnostics (`sock_diag(7)`) tell the inode of one connection by its ends, and `/proc` which process
holds it. The tables in `/proc/net` would tell as much, and cost the walk of all of the kernel's hash table each time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_ANY_STATE: Final = 0xFFFFFFFF
_NO_COOKIE: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")
_ANSWER_BYTES_MAX: Final = 8192
_INODE_OFFSET: Final = 16 + 4 + 48 + 16
"""Of `idiag_inode` in the answer: behind the header, four bytes of state, the ends, and four numbers."""


def offered() -> bool:
    """Whether this machine can tell: asked for a connection of our own, since containers may forbid the question."""
    if not hasattr(socket, "AF_NETLINK"):
        return False
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as link,
    ):
        try:
            inode = inode_of(link.getsockname(), link.getpeername())
        except OSError:
            return False
        return inode is not None and holds(os.getpid(), inode)


def inode_of(local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """Return the inode of the TCP socket of this machine with these ends (IPv4); None if it is gone."""
    ends = struct.pack(">HH", local[1], remote[1])
    ends += socket.inet_aton(local[0]).ljust(16, b"\0") + socket.inet_aton(remote[0]).ljust(16, b"\0")
    ends += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, _ANY_STATE) + ends
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(header + body)
        answer = kernel.recv(_ANSWER_BYTES_MAX)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        return None
    inode: int = struct.unpack_from("=I", answer, _INODE_OFFSET)[0]
    return inode or None


def holds(pid: int, inode: int) -> bool:
    """Whether a process has the socket open; False if it is gone, or another user's."""
    wanted = f"socket:[{inode}]"
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed while we look
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") == wanted:
                    return True
    return False
