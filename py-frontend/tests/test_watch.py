"""What stands still, or never ends, on a node: noticed, and nobody else's trouble."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import genie
import pytest
import torch
from daemon import Daemon, is_running
from support import REMOTE

SOON_SECONDS = 5.0


def test_an_executor_that_is_stopped_ends_its_session(make_daemon: Callable[..., Daemon]) -> None:
    """The client hears it, and may go on in another session."""
    node = make_daemon()
    genie.connect(node.address)
    assert torch.ones(2, device=REMOTE).sum().item() == 2
    (executor,) = node.executors()
    os.kill(executor, signal.SIGSTOP)
    deadline = time.monotonic() + SOON_SECONDS
    with pytest.raises(genie.GenieError, match="stopped"):
        while time.monotonic() < deadline:
            torch.ones(2, device=REMOTE).sum().item()
    assert time.monotonic() < deadline
    genie.disconnect()
    genie.connect(node.address)
    assert torch.ones(2, device=REMOTE).sum().item() == 2
    while is_running(executor) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(executor)


def test_a_zygote_that_is_stopped_serves_again(make_daemon: Callable[..., Daemon]) -> None:
    """A new session begins soon after, and one that was there goes on."""
    node = make_daemon()
    genie.connect(node.address)
    kept = torch.ones(2, device=REMOTE)
    assert kept.sum().item() == 2
    zygote = min(node.zygotes())
    os.kill(zygote, signal.SIGSTOP)
    assert kept.sum().item() == 2
    genie.disconnect()
    began = time.monotonic()
    genie.connect(node.address)
    assert torch.ones(2, device=REMOTE).sum().item() == 2
    assert time.monotonic() - began < SOON_SECONDS


def test_an_operator_has_the_time_that_was_set(make_daemon: Callable[..., Daemon]) -> None:
    """One that takes longer ends its session; many short ones take as long as they like."""
    node = make_daemon("--operator-timeout-seconds", "1")
    genie.connect(node.address)
    some = torch.ones(400, 400, device=REMOTE)
    for _ in range(3):
        some = some @ some / 400
        assert some[0, 0].item() == pytest.approx(1)
    # In one message, too: seconds of work, and no operator of it takes long.
    some = torch.ones(1200, 1200, device=REMOTE)
    for _ in range(80):
        some = some @ some / 1200
    assert some[0, 0].item() == pytest.approx(1)
    large = torch.ones(9000, 9000, device=REMOTE)
    with pytest.raises(genie.GenieError, match="operator_timeout_seconds"):
        for _ in range(20):
            large = torch.linalg.matrix_power(large, 1 << 20)
            large[0, 0].item()
