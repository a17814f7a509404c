"""A step that runs out of memory costs that step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import genie
import pytest
import torch
from support import REMOTE

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon import Daemon


@pytest.mark.parametrize("optimiser", ["SGD", "AdamW", "Adam"])
def test_a_smaller_batch_follows_one_that_did_not_fit(
    make_daemon: Callable[..., Daemon], optimiser: str
) -> None:
    genie.connect(make_daemon("--memory", "300MiB").address)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 8))
    before = [p.detach().clone() for p in net.parameters()]
    net.to(REMOTE)
    step = getattr(torch.optim, optimiser)(net.parameters(), lr=0.01)
    tried = []
    loss = torch.tensor(float("nan"))
    for batch in (400_000, 1000):
        tried.append(batch)
        try:
            step.zero_grad()
            loss = net(torch.randn(batch, 64, device=REMOTE)).square().mean()
            loss.backward()
            step.step()
            value = loss.item()
            break
        except torch.OutOfMemoryError:
            assert batch == 400_000
            for parameter, was in zip(net.parameters(), before, strict=True):
                assert torch.equal(parameter.detach().cpu(), was)
    assert tried == [400_000, 1000]
    assert value == value
    for parameter, was in zip(net.parameters(), before, strict=True):
        now = parameter.detach().cpu()
        assert now.isfinite().all()
        assert not torch.equal(now, was)


def test_without_memory_for_a_copy_an_old_value_is_not_written(
    make_daemon: Callable[..., Daemon],
) -> None:
    genie.connect(make_daemon("--memory", "300MiB").address)
    big = torch.ones(45 << 20, device=REMOTE)  # 180 MiB: a second one does not fit
    genie.synchronize()
    failed = torch.empty(45 << 20, device=REMOTE)
    big += 1
    with pytest.raises(torch.OutOfMemoryError):
        failed.sum().item()
    assert big[:3].tolist() == [1, 1, 1]
    big += 1
    assert big[-3:].tolist() == [2, 2, 2]
