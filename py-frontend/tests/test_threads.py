"""Threads and asyncio: what is a thread's own is so, and what is the session's is right."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from support import Client

D = "remote_accelerator"
THREADS = 8


@pytest.fixture(scope="module", autouse=True)
def session(three_devices: Daemon) -> Iterator[None]:
    """This process connected to three devices."""
    genie.connect(three_devices.address)
    yield
    genie.disconnect()


def module() -> Any:
    """The device module."""
    return torch.remote_accelerator  # type: ignore[attr-defined]


def elsewhere(function: Callable[[], Any]) -> Any:
    """What `function` gives in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def takes_long(index: int = 0) -> torch.Tensor:
    """A result that the device has only after a good while."""
    x = factor = torch.rand(1200, 1200, device=f"{D}:{index}")
    for _ in range(20):
        x = x @ factor / 600
    return x


# ---- threads ------------------------------------------------------------------------------------


def test_each_thread_has_a_device_and_a_stream_of_its_own() -> None:
    together = threading.Barrier(THREADS)

    def work(index: int) -> tuple[int | None, float]:
        mine, next_one = index % 3, (index + 1) % 3
        module().set_device(mine)
        together.wait()
        with module().stream(module().Stream(mine)):
            x = torch.full((4,), float(index), device=D)
            for _ in range(50):
                x = (x + 1).to(f"{D}:{next_one}").to(D)
                assert module().current_device() == mine
            module().current_stream().synchronize()
        return x.device.index, x[0].item()

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(THREADS)))
    assert found == [(index % 3, index + 50) for index in range(THREADS)]
    assert module().current_device() == 0


def test_what_is_a_threads_own_begins_anew() -> None:
    def state() -> tuple[Any, ...]:
        x = torch.ones(2, 2, device=D, requires_grad=True)
        product = x @ x
        made_on = torch.ones(1).device.type
        current = module().current_device()
        return current, made_on, product.requires_grad, product.dtype, product.is_inference()

    fresh = (0, "cpu", True, torch.float32, False)
    module().set_device(2)
    torch.set_default_device(f"{D}:1")
    try:
        with torch.no_grad(), torch.autocast(D, torch.bfloat16):
            assert state() == (2, D, False, torch.bfloat16, False)
            assert elsewhere(state) == fresh
        with torch.inference_mode():
            assert elsewhere(state) == fresh
    finally:
        torch.set_default_device(None)
        module().set_device(0)
    assert state() == fresh


def test_backward_from_threads() -> None:
    weight = torch.ones(3, device=f"{D}:1", requires_grad=True)
    loss = (weight.to(f"{D}:2") * 3).sum()
    elsewhere(loss.backward)
    assert weight.grad is not None
    assert weight.grad.tolist() == [3, 3, 3]
    weight.grad = None

    def work(index: int) -> None:
        for _ in range(10):
            (weight * index).sum().backward()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert weight.grad.tolist() == [280, 280, 280]


def test_a_pool_whose_threads_chose_a_device_and_what_fails_there() -> None:
    def work(index: int) -> torch.Tensor:
        x = torch.eye(3, device=D) * (1 if index else -1)
        return torch.linalg.cholesky(x)

    with ThreadPoolExecutor(2, initializer=lambda: module().set_device(1)) as pool:
        good, bad = pool.submit(work, 1), pool.submit(lambda: work(0).cpu())
        assert good.result().device.index == 1
        with pytest.raises(torch.linalg.LinAlgError):
            bad.result()
    assert torch.equal(good.result().cpu(), torch.eye(3))


def test_threads_that_ask_first_get_one_session(
    three_devices: Daemon, make_client: Callable[..., Client]
) -> None:
    code = """
    import threading
    together = threading.Barrier(8)
    found = []
    def work(index):
        together.wait()
        found.append((torch.ones(2, device=f"remote_accelerator:{index % 3}") + index).sum().item())
    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(sorted(found), flush=True)
    input()
    """
    before = len(three_devices.sessions())
    client = make_client(code, GENIE_ADDRESS=three_devices.address)
    client.expect(str([2.0 * (index + 1) for index in range(8)]))
    # One of each device that it used.
    assert len(three_devices.sessions()) - before == 3
    client.tell("")
    client.finish()


def test_a_program_ends_while_its_thread_waits(
    three_devices: Daemon, make_client: Callable[..., Client]
) -> None:
    code = """
    import threading
    x = torch.rand(2000, 2000, device="remote_accelerator:0")
    for _ in range(40): y = x @ x
    threading.Thread(target=y.cpu, daemon=True).start()
    time.sleep(0.2)
    print("ends", flush=True)
    """
    client = make_client(code, address=three_devices.address)
    client.expect("ends")
    began = time.monotonic()
    client.finish()
    assert time.monotonic() - began < 5


# ---- asyncio ------------------------------------------------------------------------------------


def test_tasks_take_turns_between_operators() -> None:
    async def task(index: int) -> float:
        x = torch.full((3,), float(index), device=f"{D}:{index % 3}")
        for _ in range(20):
            x = x + 1
            await asyncio.sleep(0)
        return (await asyncio.to_thread(x.cpu))[0].item()

    async def tasks() -> list[float]:
        return await asyncio.gather(*(task(index) for index in range(10)))

    wanted = [index + 20.0 for index in range(10)]
    assert asyncio.run(tasks()) == wanted
    with ThreadPoolExecutor(3) as pool:
        loops = [pool.submit(lambda: asyncio.run(tasks())) for _ in range(3)]
        assert [loop.result() for loop in loops] == [wanted] * 3


def test_the_loop_turns_while_a_thread_waits_and_a_task_may_give_up() -> None:
    async def main() -> int:
        x = takes_long()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(x.cpu), 0.05)
        # Another device, and another thread, meanwhile.
        other = await asyncio.to_thread((torch.ones(2, device=f"{D}:1") + 1).tolist)
        assert other == [2, 2]
        look = asyncio.create_task(asyncio.to_thread(x.sum().item))
        turns = 0
        while not look.done():
            await asyncio.sleep(0.005)
            turns += 1
        assert look.result() == pytest.approx(x.cpu().sum().item(), rel=1e-4)
        return turns

    assert asyncio.run(main()) > 3
    assert (torch.ones(2, device=D) + 1).tolist() == [2, 2]


def test_a_cancelled_task_leaves_the_session_as_it_was() -> None:
    async def main() -> None:
        x, kept = takes_long(), torch.ones(2, device=D)
        looks = [asyncio.create_task(asyncio.to_thread(x.cpu)) for _ in range(4)]
        await asyncio.sleep(0.02)
        for look in looks:
            look.cancel()
        for result in await asyncio.gather(*looks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError)
        assert (kept + 1).tolist() == [2, 2]
        assert x.isfinite().all().item()

    asyncio.run(main())
