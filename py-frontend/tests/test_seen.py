"""What was looked at and not written since: it costs no round trip, and is never out of date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from support import REMOTE, at_once, counted


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("size", [3, 100, 1000])
def test_elements_of_a_small_tensor_cost_one_round_trip(size: int) -> None:
    x = torch.arange(float(size), device=REMOTE)
    for look in (
        lambda: [x[i].item() for i in range(size)],
        lambda: [float(one) for one in x],
        lambda: [x[size - i :].tolist() for i in range(1, size + 1)],
        lambda: [repr(one) for one in x[:50]],
    ):
        _, count = counted(look)
        assert count.round_trips <= 1
    assert [x[i].item() for i in range(size)] == list(range(size))


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("step", [1, -1, 7])
def test_elements_of_a_large_tensor_come_in_windows(step: int) -> None:
    x = torch.arange(200_000, device=REMOTE)
    at = list(range(200_000))[::step][:8000]
    found, count = counted(lambda: [x[i].item() for i in at])
    assert found == at
    # 64 KiB are 8,192 of them.
    assert count.round_trips <= 2 + 8000 * abs(step) // 8000
    assert count.bytes_received < 8 * 8192 * count.round_trips + 10_000


@pytest.mark.usefixtures("session")
def test_what_was_seen_and_is_written_is_seen_anew() -> None:
    x = torch.zeros(8, device=REMOTE)
    y = x.view(2, 4)
    changes: list[Callable[[], Any]] = [
        lambda: x.add_(1),
        lambda: y[1].mul_(3),
        lambda: x.copy_(torch.arange(8.0)),
        lambda: torch.add(y, 1, out=y),
        lambda: torch._foreach_add_([y[0], y[1]], 2),
        lambda: x.set_(torch.full((8,), 7.0, device=REMOTE).untyped_storage()),
        lambda: x.resize_(16)[8:].zero_(),
        lambda: setattr(x, "data", torch.ones(8, device=REMOTE)),
        lambda: x.index_put_((torch.tensor([1], device=REMOTE),), torch.tensor(5.0)),
    ]
    local = torch.zeros(8)
    for number, change in enumerate(changes):
        before = [one.item() for one in x]
        assert before == [one.item() for one in local]
        change()
        local = x.cpu()
        assert [one.item() for one in x] == local.tolist()
        assert local.tolist() != before, number


@pytest.mark.usefixtures("session")
def test_a_failure_is_raised_where_something_was_seen_before() -> None:
    x = torch.arange(4.0, device=REMOTE)
    assert x[0].item() == 0
    torch.zeros(4, device=REMOTE)[torch.tensor([9], device=REMOTE)]
    with pytest.raises(IndexError, match="out of bounds"):
        x[1].item()
    assert x[1].item() == 1


@pytest.mark.usefixtures("session")
def test_views_of_what_was_seen() -> None:
    x = torch.arange(24.0).reshape(4, 6)
    z = torch.complex(x, -x)
    for make in (
        lambda t: t[1, 2],
        lambda t: t.T[1, 2],
        lambda t: t[::2, 1:3],
        lambda t: t.view(torch.int32)[3],
        lambda t: t[2].to(torch.float16)[1],
        lambda t: t[3] > 20,
    ):
        there = x.to(REMOTE)
        there[0, 0].item()
        assert torch.equal(make(there).cpu(), make(x))
    there = z.to(REMOTE)
    there[0, 0].item()
    for make in (lambda t: t.conj()[1, 1], lambda t: t.imag[2, 2], lambda t: t.conj().imag[1]):
        assert torch.equal(make(there).cpu(), make(z))


@pytest.mark.usefixtures("session")
def test_threads_that_write_and_look() -> None:
    x = torch.zeros(16, device=REMOTE)

    def work(number: int) -> None:
        mine = x[number]
        for turn in range(1, 40):
            mine.fill_(turn)
            assert mine.item() == turn

    at_once(work, range(8))


def test_each_device_has_its_own(three_devices: Daemon) -> None:
    genie.disconnect()
    genie.connect(three_devices.address)
    all_of = [torch.full((4,), float(i), device=f"remote_accelerator:{i}") for i in range(3)]
    found, count = counted(lambda: [one.item() for tensor in all_of for one in tensor])
    assert found == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert count.round_trips == 3
    moved = all_of[1].to("remote_accelerator:2")
    moved[0] = 9
    assert [one.item() for one in moved] == [9.0, 1, 1, 1]
    assert [one.item() for one in all_of[1]] == [1.0] * 4
    genie.disconnect()
