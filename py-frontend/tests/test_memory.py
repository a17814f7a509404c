"""The node's memory: sessions share it, and who finds none left is told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import genie
import pytest
import torch
from daemon import Daemon
from support import REMOTE, Client

MIB_200 = 50 << 20
SOON_SECONDS = 10.0


def _first() -> float:
    made = torch.ones(MIB_200, device=REMOTE)
    return float(made[-1].item())


def test_sessions_share_what_the_node_has(
    make_daemon: Callable[..., Daemon], make_client: Callable[..., Client]
) -> None:
    """One that finds none left is out of memory and goes on; what is given back others have."""
    node = make_daemon("--node-memory", "400MiB")
    other = make_client(
        f"""
        kept = torch.ones({MIB_200}, device="{REMOTE}")
        print("holds", kept[-1].item())
        sys.stdin.readline()
        print("still", kept[-1].item())
        del kept
        print("freed", torch.ones(1, device="{REMOTE}").item())
        sys.stdin.readline()
        """,
        address=node.address,
    )
    assert other.expect("holds") == "1.0"
    genie.connect(node.address)
    with pytest.raises(torch.OutOfMemoryError):
        _first()
    with pytest.raises(torch.OutOfMemoryError):
        torch.ones(MIB_200).to(REMOTE)[-1].item()
    assert torch.ones(2, device=REMOTE).sum().item() == 2
    other.tell("free")
    assert other.expect("still") == "1.0"
    other.expect("freed")
    deadline = time.monotonic() + SOON_SECONDS
    while True:
        try:
            assert _first() == 1
            break
        except torch.OutOfMemoryError:
            assert time.monotonic() < deadline, "what was given back nobody has"
            time.sleep(0.1)
    other.tell("end")


def test_very_many_empty_tensors_are_no_way_around_a_budget(
    make_daemon: Callable[..., Daemon],
) -> None:
    """Each takes memory of the node, bytes or none."""
    make = make_daemon("--memory", "64MiB")
    genie.connect(make.address)
    kept = []
    with pytest.raises(torch.OutOfMemoryError):
        for _ in range(300):
            kept += [torch.empty(0, device=REMOTE) for _ in range(1000)]
            torch.ones(1, device=REMOTE).item()
            kept.append(torch.ones(1, device=REMOTE))
        kept[-1].item()
    kept.clear()
    assert torch.ones(2, device=REMOTE).sum().item() == 2


def test_the_kernel_ends_executors_first(make_daemon: Callable[..., Daemon]) -> None:
    """Zygotes and executors are likelier to go than the daemon, whoever it runs as."""
    node = make_daemon()
    genie.connect(node.address)
    assert torch.ones(1, device=REMOTE).item() == 1
    pids = [*node.executors(), min(node.zygotes())]
    assert len(pids) == 2
    assert {_score(pid) for pid in pids} == {800}
    assert _score(node.pid) in (-500, _score(os.getpid()))


def _score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
