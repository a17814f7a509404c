"""A node and a gateway whose DPDK runs on huge pages, as on any real host."""

from __future__ import annotations

from pathlib import Path

import genie
import torch
from huge import PAGE_MIB, free_pages, pool, reserved_pages, touched_mib
from linked import make_linked
from support import REMOTE, check, wait_until

# What DPDK is given for a port (LINK_MEMORY_MIB of dataplane/poll), and a client's memory.
LINK_MIB = 96
ARENA_MIB = 256
# DPDK may take a page more than it asked for.
SPARE_MIB = 32
END_SECONDS_MAX = 10.0


def test_tensors_cross_on_huge_pages(tmp_path: Path) -> None:
    """DPDK's memory at both ends and the client's: all huge, and each byte arrives."""
    found = pool("nr") - pool("surplus")
    with reserved_pages((2 * LINK_MIB + ARENA_MIB + SPARE_MIB) // PAGE_MIB):
        before = free_pages()
        linked = make_linked(tmp_path)
        try:
            ends = {"node": linked.node, "gateway": linked.gateway}
            for name, end in ends.items():
                assert touched_mib(end.pid) >= LINK_MIB, f"{name}: {end.log()}"
            genie.connect(linked.gateway.address)
            assert genie.stats()["transport"] == "dpdk", linked.gateway.log()
            for count in (1, 4096, 65537, (8 << 20) + 13, (40 << 20) + 1):
                sent = torch.randint(0, 256, (count,), dtype=torch.uint8)
                assert torch.equal(sent.to(REMOTE).cpu(), sent), f"{count} bytes"
            check(lambda x: (x @ x.T).relu(), torch.randn(300, 300))
            # What the client wrote lies in pages that its gateway has, too.
            assert touched_mib("self") > 0
            assert touched_mib(linked.gateway.pid) > LINK_MIB
            for name, end in ends.items():
                assert end.running, f"{name}: {end.log()}"
                assert "ordinary pages" not in end.log(), f"{name}: {end.log()}"
        finally:
            genie.disconnect()
            linked.stop()
        wait_until(lambda: free_pages() == before, END_SECONDS_MAX, "every page is back")
    assert pool("nr") - pool("surplus") == found, "the pool is as it was found"
