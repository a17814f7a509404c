"""A node and a gateway, joined by a DPDK link (memif)."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon import Daemon, Gateway, link_arguments


class Linked:
    """A node and a gateway of one's own."""

    def __init__(self, folder: Path, *node_arguments: str) -> None:
        self.folder = folder
        self.node = Daemon(
            *link_arguments(folder, "server"), *node_arguments, log=folder / "node.log"
        ).start()
        self.gateway = Gateway(self.node, folder).start()

    def stop(self) -> None:
        """Ends both."""
        self.gateway.stop()
        self.node.stop()


def make_linked(folder: Path, *node_arguments: str) -> Linked:
    """A pair over DPDK; skips where there is none."""
    linked = Linked(folder, *node_arguments)
    reason = linked.gateway.transport()[1]
    if "no DPDK" in reason and not linked.gateway.wait_for("dpdk", 0.5):
        linked.stop()
        pytest.skip(reason)
    assert linked.gateway.wait_for("dpdk"), linked.gateway.log()
    return linked
