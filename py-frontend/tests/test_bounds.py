"""Nothing that an ordinary program does in large numbers makes the two ends wait for each other."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import genie
import pytest
import torch

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
    wrong: list[int] = []

    def work(seed: int) -> None:
        source = torch.full((nbytes,), seed, dtype=torch.uint8)
        copies = [source.to(DEVICE) for _ in range(1000)]
        if not torch.equal(copies[-1].cpu(), source):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread waits for ever"
    assert wrong == []


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
