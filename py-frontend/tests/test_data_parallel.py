"""``torch.nn.DataParallel`` over the devices of a session."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from torch import nn

D = "remote_accelerator"
FIRST, SECOND = torch.device(D, 0), torch.device(D, 1)


@pytest.fixture(scope="module")
def session(three_devices: Daemon) -> Iterator[None]:
    """This process connected to three devices."""
    genie.connect(three_devices.address)
    yield
    genie.disconnect()


class Complex(nn.Module):
    """Takes complex weights, and gives a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.weight = nn.Parameter(torch.randn(6, 4, dtype=torch.complex64))

    def forward(self, x: torch.Tensor, scale: float = 1) -> dict[str, torch.Tensor]:
        return {"y": self.linear(x).to(torch.complex64) @ self.weight * scale}


@pytest.mark.parametrize("devices", [None, [0, 1], [f"{D}:0", f"{D}:2"]])
@pytest.mark.parametrize("place", ["cpu", FIRST, SECOND])
@pytest.mark.usefixtures("session")
def test_it_gives_what_the_model_alone_gives(devices: Any, place: Any) -> None:
    alone = Complex()
    model = nn.DataParallel(copy.deepcopy(alone).to(FIRST), device_ids=devices)
    x = torch.randn(7, 6)
    ours, theirs = model(x.to(place), scale=2)["y"], alone(x, scale=2)["y"]
    assert ours.device == FIRST
    torch.testing.assert_close(ours.cpu(), theirs)
    for result in (ours, theirs):
        result.abs().sum().backward()
    for one, other in zip(model.module.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one.grad.cpu(), other.grad)
    gathered = nn.parallel.data_parallel(model.module, x, [0, 1, 2], output_device=1)
    assert gathered["y"].device == SECOND
