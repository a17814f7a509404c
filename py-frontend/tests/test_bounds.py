"""Nothing that an ordinary program does in large numbers makes the two ends wait for each other."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import genie
import pytest
import torch
from support import at_once

DEVICE = "remote_accelerator:0"
SIZES = (1, 7, 100, 1000, 4000, 8192, 16_000, 16_384, 16_385, 30_000, 65_536)


@pytest.mark.parametrize("nbytes", SIZES)
def test_a_thousand_uploads_of_a_size(session: Any, nbytes: int) -> None:
    source = torch.arange(nbytes, dtype=torch.int64).to(torch.uint8)
    copies = [(source + i).to(DEVICE) for i in range(1000)]
    for i in (0, 1, 499, 999):
        assert torch.equal(copies[i].cpu(), source + i)


@pytest.mark.parametrize("nbytes", [100, 16_000, 65_536])
def test_a_thousand_uploads_from_each_of_eight_threads(session: Any, nbytes: int) -> None:
    def work(seed: int) -> None:
        source = torch.full((nbytes,), seed, dtype=torch.uint8)
        copies = [source.to(DEVICE) for _ in range(1000)]
        assert torch.equal(copies[-1].cpu(), source)

    at_once(work, range(8))


def test_a_flood_of_frees(session: Any) -> None:
    many = [torch.zeros(2, device=DEVICE) for _ in range(300_000)]
    genie.synchronize()
    many.clear()
    gc.collect()
    assert (torch.ones(2, device=DEVICE) + 1).tolist() == [2, 2]


def test_one_tensor_that_takes_long_to_prepare(session: Any) -> None:
    started = time.monotonic()
    big = torch.ones(int(1.6 * 2**30) // 4).to(DEVICE)
    assert big[-5:].tolist() == [1.0] * 5
    assert time.monotonic() - started < 60


def test_code_that_a_program_makes_as_it_runs_goes_again(session: Any) -> None:
    """Lines are remembered for errors, and so is whose they are, but not all for ever."""
    made = []
    x = torch.ones(2, device=DEVICE)
    for number in range(10_000):
        names: dict[str, Any] = {}
        exec(compile("def f(x):\n    return x + 1", f"/user/made_{number}.py", "exec"), names)
        names["f"](x)
        made.append(weakref.ref(names["f"].__code__))
    del names
    gc.collect()
    alive = [number for number, code in enumerate(made) if code() is not None]
    assert len(alive) < 5000
    assert 0 not in alive
    # What comes after is told by its own line, whatever address its code has.
    names = {}
    index = torch.tensor([7_000_000], device=DEVICE)
    exec(compile("def h(x, i):\n\n    return x[i]", "/user/last.py", "exec"), names)
    failed = names["h"](x, index)
    with pytest.raises(IndexError, match=r'"/user/last.py", line 3, in h'):
        failed.cpu()
