"""Programs of several processes: each has a session of its own, and values go between them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from support import REMOTE
from torch.utils.data import DataLoader, Dataset

D = "remote_accelerator"


@pytest.fixture(scope="module", autouse=True)
def session(three_devices: Daemon) -> Iterator[Daemon]:
    """This process connected to three devices."""
    genie.connect(three_devices.address)
    yield three_devices
    genie.disconnect()


def doubled(x: torch.Tensor) -> tuple[str, torch.Tensor, torch.Tensor]:
    """Runs in another process: where it found `x`, and a result there and one here."""
    return str(x.device), x * 2, (x * 2).cpu()


def fails(_: Any) -> None:
    """Runs in another process."""
    torch.linalg.cholesky(-torch.eye(3, device=REMOTE)).cpu()


def uses(_: Any) -> float:
    """Runs in another process."""
    return torch.ones(2, device=REMOTE).sum().item()


def test_a_pool_of_spawned_processes(session: Daemon) -> None:
    spawn = multiprocessing.get_context("spawn")
    sent = [torch.arange(3.0, device=f"{D}:{index}") for index in range(3)]
    with ProcessPoolExecutor(
        2, mp_context=spawn, initializer=genie.connect, initargs=(session.address,)
    ) as pool:
        for x, (device, there, here) in zip(sent, pool.map(doubled, sent), strict=True):
            assert there.device == x.device == torch.device(device)
            assert there.tolist() == here.tolist() == [0, 2, 4]
            assert here.device.type == "cpu"
        with pytest.raises(torch.linalg.LinAlgError):
            pool.submit(fails, None).result()
        # Neither that process nor this one is the worse for it.
        assert list(pool.map(uses, range(4))) == [2] * 4
    assert sent[2].tolist() == [0, 1, 2]


def test_a_pool_of_forked_processes_is_told(session: Daemon) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        with pytest.raises(genie.ForkError, match="spawn"):
            pool.submit(uses, None).result()
        assert pool.submit(len, "as CUDA has it").result() == 14
    assert uses(None) == 2


def from_the_environment(rank: int, x: torch.Tensor, results: Any) -> None:
    """Runs in another process, which never asked for a session."""
    assert x.device == torch.device(D, 1)
    results.put((rank, (x + rank).tolist()))


def test_torch_spawns_processes_with_the_address_in_the_environment(
    session: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import multiprocessing as torch_multiprocessing

    monkeypatch.setenv("GENIE_ADDRESS", session.address)
    results = torch_multiprocessing.get_context("spawn").SimpleQueue()
    x = torch.zeros(2, device=f"{D}:1")
    torch_multiprocessing.spawn(from_the_environment, (x, results), nprocs=2)
    assert sorted(results.get() for _ in range(2)) == [(0, [0, 0]), (1, [1, 1])]
    assert x.tolist() == [0, 0]


def test_a_process_without_a_session_is_told_when_it_receives_a_tensor(session: Daemon) -> None:
    from multiprocessing.reduction import ForkingPickler

    sent = bytes(ForkingPickler.dumps(torch.ones(2, device=REMOTE)))
    genie.disconnect()
    try:
        with pytest.raises(genie.NotConnectedError, match=r"set GENIE_ADDRESS.*tensor\.cpu"):
            ForkingPickler.loads(sent)
    finally:
        genie.connect(session.address)


class Computed(Dataset[torch.Tensor]):
    """Its items are computed on the device, by whoever loads them."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return (torch.full((2,), float(index), device=REMOTE) + 1).cpu()


def test_workers_of_a_data_loader_with_sessions_of_their_own(
    session: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENIE_ADDRESS", session.address)
    loader = DataLoader(
        Computed(), batch_size=4, num_workers=2, multiprocessing_context="spawn", timeout=60,
        pin_memory=True, persistent_workers=True,
    )  # fmt: skip
    for _ in range(2):
        batches = list(loader)
        assert [batch.is_pinned() for batch in batches] == [True, True]
        moved = [batch.to(REMOTE, non_blocking=True) for batch in batches]
        assert [batch.sum().item() for batch in moved] == [20, 52]
