"""A node and a gateway, joined by a DPDK link (memif)."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, Gateway, link_arguments

# A client of a gateway has mapped what it was sent.
MAPPED = b"M"


class Linked:
    """A node and a gateway of one's own."""

    def __init__(self, folder: Path, *node_arguments: str, **node_options: Any) -> None:
        self.folder = folder
        arguments = (*link_arguments(folder, "server"), *node_arguments)
        self.node = Daemon(*arguments, log=folder / "node.log", **node_options).start()
        self.gateway = Gateway(self.node, folder).start()

    def stop(self) -> None:
        """Ends both."""
        self.gateway.stop()
        self.node.stop()


def make_linked(folder: Path, *node_arguments: str, **node_options: Any) -> Linked:
    """A pair over DPDK; skips where there is none. Options as of Daemon."""
    linked = Linked(folder, *node_arguments, **node_options)
    reason = linked.gateway.transport()[1]
    if "no DPDK" in reason and not linked.gateway.wait_for("dpdk", 0.5):
        linked.stop()
        pytest.skip(reason)
    assert linked.gateway.wait_for("dpdk"), linked.gateway.log()
    return linked


def forged_offer(peer: str, port: int) -> bytes:
    """A request for a connection that no node has offered."""
    body = os.urandom(8) + struct.pack("<I", 1) + os.urandom(32) + b"\x01"
    body += socket.inet_aton(peer) + struct.pack("<HH", port, 8900)
    return b"GENIEGW1" + bytes([2, 2]) + struct.pack("<H", len(body)) + body
