"""Mistakes of the program: each raises where a person can see why, and nothing else is lost."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from support import REMOTE, Counted, assert_same
from torch.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.usefixtures("session")


def next_line() -> int:
    """The number of the line after the caller's."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno + 1


def assert_names(message: str, operator: str, line: int) -> None:
    """The message has the operator, this file, and the line."""
    assert operator in message
    assert __file__ in message
    assert f"line {line}" in message


# --- Found locally --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mistake",
    [
        lambda t: t @ t,
        lambda t: t + torch.ones(7, device=REMOTE),
        lambda t: t.view(5, 5),
        lambda t: torch.cat([t, torch.ones(1, device=REMOTE)]),
        lambda t: torch.nn.functional.linear(t, t.t()),
        lambda t: t.reshape(2, 4).sum(3),
    ],
    ids=["matmul", "broadcast", "view", "cat", "linear", "dim"],
)
def test_a_shape_error_comes_at_once_at_the_users_line(
    mistake: Callable[[torch.Tensor], Any],
) -> None:
    tensor = torch.ones(2, 4, device=REMOTE)
    with Counted() as counted, pytest.raises((RuntimeError, IndexError)) as raised:
        mistake(tensor)
    lines = [entry.lineno for entry in raised.traceback if entry.path.samefile(__file__)]
    assert lines[-1] + 1 == mistake.__code__.co_firstlineno
    assert counted.round_trips == 0
    assert_same(tensor + 1, torch.full((2, 4), 2.0))


def test_a_shape_error_reads_like_the_cpus() -> None:
    def message(device: str) -> str:
        with pytest.raises(RuntimeError) as raised:
            torch.ones(2, 4, device=device) @ torch.ones(3, 5, device=device)
        return str(raised.value)

    assert "2x4 and 3x5" in message("cpu")
    assert "2x4 and 3x5" in message(REMOTE)


@pytest.mark.parametrize(
    "mix",
    [
        lambda remote, local: remote + local,
        lambda remote, local: local * remote,
        lambda remote, local: remote @ local,
        lambda remote, local: torch.cat([remote, local]),
        lambda remote, local: remote.add_(local),
        lambda remote, local: local.add_(remote),
        lambda remote, local: torch.where(remote > 0, remote, local),
        lambda remote, local: torch.nn.functional.linear(remote, local),
    ],
    ids=["add", "mul", "matmul", "cat", "add_", "add_ into the CPU", "where", "linear"],
)
def test_cpu_and_remote_tensors_do_not_mix(
    mix: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    remote, local = torch.ones(3, 3, device=REMOTE), torch.ones(3, 3)
    with Counted() as counted, pytest.raises(RuntimeError, match="device"):
        mix(remote, local)
    assert counted.round_trips == 0
    assert_same(remote, torch.ones(3, 3))
    assert torch.equal(local, torch.ones(3, 3))


def test_scalars_on_the_cpu_mix() -> None:
    remote = torch.ones(3, device=REMOTE)
    two = torch.tensor(2.0)
    assert_same(remote + two, torch.full((3,), 3.0))
    assert_same(two * remote, torch.full((3,), 2.0))
    assert_same(torch.where(remote > 0, two, remote), torch.full((3,), 2.0))
    assert_same(remote.add_(torch.tensor(5)), torch.full((3,), 6.0))
    assert_same(remote.float() + torch.tensor(1.0, dtype=torch.float64), torch.full((3,), 7.0))


def test_a_remote_scalar_does_not_mix_into_the_cpu() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3).add_(torch.ones(3, device=REMOTE)[0])


# --- Found on the node ----------------------------------------------------------------------


def test_an_operator_that_fails_on_the_node_names_itself_and_the_users_line() -> None:
    table = torch.ones(2, 3, device=REMOTE)
    index = torch.full((1, 3), 9, device=REMOTE)
    line = next_line()
    chosen = table.gather(0, index)
    later = chosen * 2  # captured before anybody knows
    with pytest.raises(genie.RemoteOperatorError) as raised:
        later.cpu()
    assert_names(str(raised.value), "gather", line)
    assert "out of bounds" in str(raised.value)
    assert isinstance(raised.value, RuntimeError)


def test_the_first_cause_is_raised_again_and_again() -> None:
    table = torch.ones(2, 3, device=REMOTE)
    line = next_line()
    poisoned = table.gather(0, torch.full((1, 3), 9, device=REMOTE))
    for use in (
        lambda: poisoned.cpu(),
        lambda: (poisoned + table).sum().item(),
        lambda: print(poisoned.view(3)),
        lambda: torch.cat([table, poisoned]).tolist(),
    ):
        with pytest.raises(genie.RemoteOperatorError) as raised:
            use()
        assert_names(str(raised.value), "gather", line)


def test_what_does_not_depend_on_the_failure_lives() -> None:
    table = torch.ones(2, 3, device=REMOTE)
    before = table * 3
    poisoned = table.gather(0, torch.full((1, 3), 9, device=REMOTE))
    after = table * 4
    with pytest.raises(genie.RemoteOperatorError):
        before.cpu()  # the next look, whatever it looks at
    assert_same(before, torch.full((2, 3), 3.0))
    assert_same(after, torch.full((2, 3), 4.0))
    with pytest.raises(genie.RemoteOperatorError):
        poisoned.cpu()
    assert_same(before + after, torch.full((2, 3), 7.0))


def test_a_failure_in_place_is_raised_and_its_target_is_as_it_was() -> None:
    target = torch.ones(2, 3, device=REMOTE)
    alias = target.view(6)
    for look in (target, alias, target.t()):
        line = next_line()
        target.scatter_(0, torch.full((1, 3), 9, device=REMOTE), 5.0)
        with pytest.raises(genie.RemoteOperatorError) as raised:
            (look + 1).cpu()
        assert_names(str(raised.value), "scatter", line)
        assert_same(look, torch.ones(look.shape))


def test_overwriting_a_poisoned_tensor_heals_it() -> None:
    target = torch.ones(2, 3, device=REMOTE).gather(0, torch.full((2, 3), 9, device=REMOTE))
    with pytest.raises(genie.RemoteOperatorError):
        target.cpu()
    target.copy_(torch.zeros(2, 3))
    assert_same(target, torch.zeros(2, 3))


def test_a_failure_reaches_through_a_backward() -> None:
    table = torch.ones(2, 3, device=REMOTE, requires_grad=True)
    line = next_line()
    chosen = table.gather(0, torch.full((1, 3), 9, device=REMOTE))
    chosen.pow(2).sum().backward()
    with pytest.raises(genie.RemoteOperatorError) as raised:
        table.grad.cpu()
    assert_names(str(raised.value), "gather", line)


def test_an_index_out_of_range_is_an_index_error() -> None:
    table = torch.ones(2, 3, device=REMOTE)
    line = next_line()
    rows = torch.nn.functional.embedding(torch.tensor([9], device=REMOTE), table)
    with pytest.raises(IndexError, match="out of range") as raised:
        rows.cpu()
    assert_names(str(raised.value), "embedding", line)


def test_a_failure_is_raised_where_somebody_looks_first_and_no_value_is_wrong() -> None:
    # So many that threads meet wherever one holds a lock.
    rounds = 2000
    results: list[bool] = []

    def look(tensor: torch.Tensor) -> float:
        while True:
            try:
                return tensor.sum().item()
            except genie.RemoteOperatorError:  # of the other thread
                continue

    def fine() -> None:
        for number in range(rounds):
            results.append(look(torch.full((3,), number, device=REMOTE) * 2) == number * 6)

    thread = threading.Thread(target=fine, daemon=True)
    thread.start()
    table = torch.ones(2, 3, device=REMOTE)
    for _ in range(rounds):
        with pytest.raises(genie.RemoteOperatorError):
            table.gather(0, torch.full((1, 3), 9, device=REMOTE)).cpu()
    thread.join(60)
    assert not thread.is_alive()
    assert results == [True] * rounds


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("mkldnn", lambda t: t.to_mkldnn()),
        ("fbgemm", lambda t: torch.ops.aten.fbgemm_pack_gemm_matrix_fp16(t)),
    ],
    ids=["opaque", "packed"],
)
def test_an_operator_outside_the_allow_list_is_refused_by_name(
    name: str, call: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    tensor = torch.ones(2, 2, device=REMOTE)
    with pytest.raises((genie.RemoteOperatorError, NotImplementedError), match=name):
        call(tensor).cpu()
    assert_same(tensor + 1, torch.full((2, 2), 2.0))


def test_ctrl_c_interrupts_a_wait(session: Any) -> None:
    """A signal handler runs, and its exception is raised, while a result is waited for."""
    big = torch.randn(1500, 1500, device=REMOTE)
    for _ in range(60):
        big = big @ big * 1e-3

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            big.sum().item()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, previous)
    # The session goes on.
    assert torch.ones(2, device=REMOTE).sum().item() == 2.0


def _random(*sizes: int, device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*sizes).to(device, dtype)


HALF = torch.float16
WRONG: dict[str, Callable[[str], object]] = {
    "mm": lambda d: _random(2, 3, device=d, dtype=HALF) @ _random(3, 2, device=d),
    "bmm": lambda d: torch.bmm(_random(1, 2, 3, device=d, dtype=HALF), _random(1, 3, 2, device=d)),
    "mv": lambda d: _random(2, 3, device=d) @ _random(3, device=d, dtype=HALF),
    "dot": lambda d: torch.dot(_random(3, device=d), _random(4, device=d)),
    "linear": lambda d: F.linear(_random(2, 3, device=d), _random(2, 4, device=d)),
    "conv": lambda d: F.conv2d(_random(1, 3, 8, 8, device=d), _random(4, 3, 3, 3, device=d).half()),
    "conv_bias": lambda d: F.conv2d(
        _random(1, 3, 8, 8, device=d), _random(4, 3, 3, 3, device=d), _random(5, device=d)
    ),
    "dilation": lambda d: F.conv1d(
        _random(1, 2, 8, device=d), _random(2, 2, 3, device=d), dilation=0
    ),
    "layer_norm": lambda d: F.layer_norm(
        _random(2, 3, device=d), (3,), _random(3, device=d, dtype=HALF)
    ),
    "target": lambda d: F.cross_entropy(
        _random(2, 3, device=d), torch.zeros(2, dtype=torch.int32, device=d)
    ),
    "index": lambda d: torch.index_select(_random(2, 3, device=d), 0, _random(2, device=d)),
    "index_put": lambda d: torch.zeros(2, 3, device=d).index_put_(
        (torch.zeros(1, dtype=torch.int64, device=d),), _random(1, 3, device=d, dtype=HALF)
    ),
    "rows": lambda d: torch.zeros(2, 3, device=d).index_copy_(
        0, torch.zeros(1, dtype=torch.int64, device=d), _random(2, 3, device=d)
    ),
    "mask": lambda d: _random(2, device=d).masked_fill(_random(2, device=d), 0),
    "softmax": lambda d: torch.zeros(3, dtype=torch.int64, device=d).softmax(0),
    "empty": lambda d: torch.zeros(0, device=d).max(),
    "sort": lambda d: _random(3, device=d).sort(3),
    "bits": lambda d: _random(2, device=d) & _random(2, device=d),
    "roll": lambda d: torch.roll(_random(2, device=d), (1, 2), (0,)),
    "bucketize": lambda d: torch.bucketize(_random(2, device=d), _random(2, 2, device=d)),
    "multinomial": lambda d: torch.multinomial(torch.ones(3, device=d), 5),
    "normal": lambda d: torch.zeros(3, device=d).normal_(0, -1),
    "uniform": lambda d: torch.zeros(3, device=d).uniform_(2, 1),
    "gelu": lambda d: F.gelu(_random(3, device=d), approximate="sometimes"),
    "pixels": lambda d: F.pixel_shuffle(_random(1, 3, 2, 2, device=d), 2),
    "grid": lambda d: F.grid_sample(_random(1, 1, 2, 2, device=d), _random(1, 2, 2, 3, device=d)),
    "cholesky": lambda d: torch.linalg.cholesky(_random(2, 3, device=d)),
    "stack": lambda d: torch.stack([_random(2, 3, device=d), _random(2, 4, device=d)]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_raised_by_the_call_itself(name: str) -> None:
    """In the CPU's words; and nothing is left to be raised later."""
    wrong = WRONG[name]
    with pytest.raises(Exception) as local:
        wrong("cpu")
    for _ in range(2):
        with pytest.raises((RuntimeError, IndexError, ValueError)) as remote:
            wrong("remote_accelerator")
        assert str(remote.value).startswith(str(local.value).split("\n")[0])
        genie.synchronize()


def test_more_dimensions_than_a_node_takes() -> None:
    """Most kernels of PyTorch take 64; a session does not end over it."""
    many = torch.zeros(1, device="remote_accelerator").view([1] * 65)
    for use in (lambda: many + 1, many.cpu, lambda: many.aminmax(dim=64), lambda: many.add_(1)):
        with pytest.raises(RuntimeError, match="at most 64 dimensions, and this one has 65"):
            use()
    assert (many.view(1) + 1).tolist() == [1]
