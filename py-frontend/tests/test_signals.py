"""Handlers of signals use tensors, wherever the program is when they run."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from daemon import Daemon
from support import REMOTE, Client

pytestmark = pytest.mark.usefixtures("session")


@contextmanager
def every(seconds: float, handler: Callable[[], None]) -> Iterator[list[int]]:
    """Runs `handler` so often while the block runs; counts its runs."""
    runs = [0]
    inside = [False]

    def handle(*_: object) -> None:
        if inside[0]:
            return
        inside[0] = True
        try:
            runs[0] += 1
            handler()
        finally:
            inside[0] = False

    previous = signal.signal(signal.SIGVTALRM, handle)
    main = threading.main_thread().ident
    assert main is not None
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(seconds):
            signal.pthread_kill(main, signal.SIGVTALRM)

    beater = threading.Thread(target=beat)
    beater.start()
    try:
        yield runs
    finally:
        stop.set()
        beater.join()
        signal.signal(signal.SIGVTALRM, previous)


def handler_that(wrong: list[Any], gradients: bool = True) -> Callable[[], None]:
    """Makes, computes, fetches, and has gradients.

    Not so where a shape is inferred by PyTorch's own Python code: autograd is off there, and the
    interpreter itself lets handlers run.
    """
    held = torch.arange(10.0, device=REMOTE)

    def handler() -> None:
        made = torch.full((3, 5), 2.0, device=REMOTE)
        got = (made @ torch.ones(5, 2, device=REMOTE) + held[:2]).cpu().tolist()
        if got != [[10.0, 11.0]] * 3:
            wrong.append(got)
        w = torch.ones(4, device=REMOTE, requires_grad=True)
        loss = (w * w * 3).sum()
        if gradients and not loss.requires_grad:
            wrong.append("no gradient")

    return handler


def test_while_it_records() -> None:
    wrong: list[Any] = []
    with every(0.001, handler_that(wrong)) as runs:
        x = torch.zeros(16, device=REMOTE)
        y = torch.zeros(16)
        for i in range(6000):
            x = x * 0.5 + i
            y = y * 0.5 + i
            if i % 1000 == 0:
                assert torch.equal(x.cpu(), y)
        assert torch.equal(x.cpu(), y)
    assert wrong == []
    assert runs[0] > 20


def test_while_it_waits_for_room() -> None:
    """The node is slower than the program, so records wait for their window.

    A handler that looks waits for all of it, so how often one runs is the node's to say.
    """
    wrong: list[Any] = []
    a, turns = torch.randn(192, 192), 0
    with every(0.001, handler_that(wrong)) as runs:
        remote = a.to(REMOTE)
        total = torch.zeros(192, 192, device=REMOTE)
        while turns < 5000 or (runs[0] <= 5 and turns < 50_000):
            total = total * 0.5 + remote * turns
            turns += 1
        result = total.cpu()
    expected = torch.zeros(192, 192)
    for i in range(turns):
        expected = expected * 0.5 + a * i
    assert wrong == []
    torch.testing.assert_close(result, expected)
    assert runs[0] > 5


def test_while_it_uploads_and_fetches_much() -> None:
    wrong: list[Any] = []
    with every(0.001, handler_that(wrong)) as runs:
        for n in (5_000, 70_000, 3_000_000, 12_000_000):
            source = torch.randint(0, 1 << 30, (n,), dtype=torch.int32)
            for _ in range(3):
                there = source.to(REMOTE)
                assert torch.equal(there.cpu(), source)
                assert int((there == source.to(REMOTE)).sum()) == n
    assert wrong == []
    assert runs[0] > 20


def test_while_results_come_from_the_node() -> None:
    """Operators whose shapes only the node can tell, and shapes that were never seen."""
    wrong: list[Any] = []
    with every(0.001, handler_that(wrong, gradients=False)) as runs:
        for n in range(2, 200):
            x = torch.arange(n, device=REMOTE)
            assert (x % 2 == 0).nonzero().shape == ((n + 1) // 2, 1)
            assert torch.unique(x // 2).shape == ((n + 1) // 2,)
            assert int(x.view(1, n).expand(3, n).sum()) == 3 * n * (n - 1) // 2
    assert wrong == []
    assert runs[0] > 5


def test_while_it_learns() -> None:
    """Gradients of the program and of its handler do not mix."""
    wrong: list[Any] = []
    plain = handler_that(wrong)

    def handler() -> None:
        plain()
        w = torch.full((3,), 2.0, device=REMOTE, requires_grad=True)
        (w**3).sum().backward()
        if w.grad.tolist() != [12.0] * 3:
            wrong.append(w.grad)

    with every(0.005, handler):
        x = torch.ones(64, device=REMOTE, requires_grad=True)
        for _ in range(300):
            y = (x * 2).tanh().sum()
            y.backward()
            y.item()
        expected = 300 * 2 * (1 - torch.tanh(torch.tensor(2.0)) ** 2)
        torch.testing.assert_close(x.grad.cpu(), expected.expand(64), rtol=1e-4, atol=1e-4)
    assert wrong == []


def test_finalizers_at_odd_moments() -> None:
    """A collection may run in the midst of a call; what it frees and computes is right."""
    wrong: list[Any] = []

    class Cycle:
        def __init__(self, n: int) -> None:
            self.me = self
            self.tensor = torch.full((n,), float(n), device=REMOTE)

        def __del__(self) -> None:
            n = self.tensor.numel()
            if (self.tensor + 1).sum().item() != n * (n + 1):
                wrong.append(n)

    gone: list[int] = []
    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        x = torch.zeros(8, device=REMOTE)
        y = torch.zeros(8)
        for i in range(300):
            cycle = Cycle(i % 7 + 1)
            weakref.finalize(cycle, gone.append, i)
            del cycle
            x = x * 0.5 + i
            y = y * 0.5 + i
        assert torch.equal(x.cpu(), y)
    finally:
        gc.set_threshold(*before)
        gc.collect()
    assert wrong == []
    assert len(gone) == 300


@pytest.mark.parametrize("wait", ["item", "synchronize", "upload", "record"])
def test_a_handler_ends_any_wait_with_its_own_exception(
    make_daemon: Any, make_client: Any, wait: str
) -> None:
    """A node that is stopped (and so takes and says nothing) does not keep the program."""
    node: Daemon = make_daemon()
    client: Client = make_client(
        f"""
        import signal
        class Stop(Exception): pass
        device = "remote_accelerator:0"
        x = torch.ones(4, device=device)
        x.sum().item()
        def handler(*_): raise Stop("enough")
        signal.signal(signal.SIGALRM, handler)
        WAITS = {{
            "item": lambda: x.sum().item(),
            "synchronize": lambda: genie.synchronize(),
            "upload": lambda: torch.ones(1 << 24).to(device),
            "record": lambda: [x * 2 for _ in range(100_000)],
        }}
        print("READY", flush=True)
        sys.stdin.readline()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        began = time.monotonic()
        try:
            WAITS[{wait!r}]()
            print("RESULT none", flush=True)
        except Stop as stop:
            print("RESULT", str(stop), time.monotonic() - began < 1.2, flush=True)
        except BaseException as error:
            print("RESULT", type(error), error, flush=True)
        sys.stdin.readline()
        print("LIVES", genie.is_connected(), (x + 1).sum().item(), flush=True)
        """,
        address=node.address,
    )
    client.expect("READY")
    with stopped(node):
        client.tell("go")
        assert client.expect("RESULT") == "enough True", client.output()
    client.tell("on")
    assert client.expect("LIVES") == "True 8.0", client.output()
    client.finish()


@contextmanager
def stopped(node: Daemon) -> Iterator[None]:
    os.kill(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        time.sleep(0.1)
        os.kill(node.pid, signal.SIGCONT)
