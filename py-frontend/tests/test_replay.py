"""Graphs as native programs: what becomes one, and that it is what the graph was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from support import DEVICE, REMOTE, Counted, assert_same, at_once, pair
from torch import nn
from watched import Block, compiled, plans, programs

pytestmark = pytest.mark.usefixtures("session", "compiled_anew")


def python_calls() -> list[str]:
    """What the graphs still call by Python."""
    return [name for plan in plans for name in plan.programs.python]


def test_a_transformer_is_one_program() -> None:
    local, remote = pair(nn.Sequential(Block(), nn.GELU(), Block()).eval())
    x = torch.randn(2, 5, 8)
    fast = compiled(remote)
    with torch.no_grad():
        assert_same(fast(x.to(REMOTE)), local(x))
    assert len(programs()) == 1
    assert python_calls() == []


@pytest.mark.parametrize("dynamic", [None, True])
def test_sizes_are_computed(dynamic: bool | None) -> None:
    local, remote = pair(nn.Sequential(Block(), Block()).eval())
    # With everything dynamic a module's numbers are, too, and Dynamo reads them from tensors.
    numbers = {"size", "item", "add"} if dynamic else set()
    fast = compiled(remote, dynamic=dynamic)
    with torch.no_grad():
        for rows, length in ((2, 5), (3, 7), (4, 2), (2, 9), (5, 5)):
            x = torch.randn(rows, length, 8)
            assert_same(fast(x.to(REMOTE)), local(x))
    assert set(python_calls()) <= numbers
    assert len(plans) <= 3


def test_sizes_that_come_out() -> None:
    def padded(x: torch.Tensor, to: int) -> tuple[torch.Tensor, int, torch.Tensor]:
        more = torch.zeros(x.shape[0], to - x.shape[1], device=x.device)
        y = torch.cat([x, more], 1)
        return y.reshape(-1, 2), y.shape[1] * 3 - x.shape[1] // 2, x.expand(4, *x.shape)

    fast = compiled(padded, dynamic=True)
    for rows, length, to in ((2, 5, 8), (3, 6, 10), (4, 4, 14)):
        x = torch.randn(rows, length)
        assert_same(fast(x.to(REMOTE), to), padded(x, to))
    assert python_calls() == []


def test_a_whole_size_that_python_takes() -> None:
    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = ((x + 1) * 2).relu().tanh()
        return y, torch.tensor([1.0], device=x.device).expand(y.size())

    fast = compiled(run, dynamic=True)
    for length in (5, 6, 7):
        x = torch.randn(3, length)
        assert_same(fast(x.to(REMOTE)), run(x))
    assert programs() == [4]
    assert python_calls() == ["tensor", "size", "expand"]


def test_sizes_as_tensors() -> None:
    """As arguments of an operator of tensors a size is a number, and no constant."""

    def run(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (y * x.shape[0] - x.shape[1]).sqrt() / x.shape[1] + x.sum() ** x.shape[0]

    fast = compiled(run, dynamic=True)
    for rows, columns in ((2, 5), (3, 6), (4, 4)):
        x, y = torch.rand(rows, columns), torch.rand(()) + 9
        assert_same(fast(x.to(REMOTE), y.to(REMOTE)), run(x, y))
    assert python_calls() == []


def test_a_cache_that_grows_is_one_program() -> None:
    def step(cache: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cache = torch.cat([cache, token], 1)
        scores = (token @ cache.transpose(1, 2)) / cache.shape[1] ** 0.5
        return cache, scores.softmax(-1) @ cache

    fast = compiled(step)
    here, there = torch.randn(1, 3, 4), None
    there = here.to(REMOTE)
    for _ in range(8):
        token = torch.randn(1, 1, 4)
        here, wanted = step(here, token)
        there, got = fast(there, token.to(REMOTE))
        assert_same((there, got), (here, wanted))
    assert len(plans) <= 2


def test_training_is_the_same_to_the_last_bit() -> None:
    models = [Block(dropout=0.3).to(REMOTE)]
    models.append(copy.deepcopy(models[0]))
    x = torch.randn(2, 5, 8, device=REMOTE)
    losses = []
    for model, run in zip(models, (models[0], compiled(models[1])), strict=True):
        torch.manual_seed(3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            loss = run(x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[:3] == losses[3:]
    assert python_calls() == []
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert_same(other, one.cpu(), 0)


def test_writes_in_place() -> None:
    def run(x: torch.Tensor, cache: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache[:, 1] = x.sum(1)
        cache[0] += 1
        y = x.mul(2).add_(1).clamp_(-1)
        view = y[:, :1]
        view.zero_()
        return y, view, cache, x

    here = torch.randn(2, 3), torch.zeros(2, 4)
    there = tuple(one.to(REMOTE) for one in here)
    versions = [one._version for one in there]
    wanted = run(*here)
    got = compiled(run)(*there)
    assert_same(got, wanted)
    assert_same(there, here)
    assert got[2] is there[1]
    assert got[3] is there[0]
    assert there[0]._version == versions[0]
    assert there[1]._version > versions[1]
    # A view shares its memory.
    got[1].fill_(5)
    assert_same(got[0][:, 0], torch.full((2,), 5.0))


def test_python_between_programs() -> None:
    local, remote = pair(nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))))

    def run(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = (model[0](x) * 2).tanh() + x
        with torch.no_grad():
            scale = (y.abs().mean() + 1).sqrt() * y.std()
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            z = model[1](y).relu() * scale + model[2](y)
        return z.float() * scale, scale

    x = torch.randn(3, 4)
    fast = compiled(run)
    wanted, got = run(local, x), fast(remote, x.to(REMOTE))
    assert_same(got, wanted, 3e-2)
    assert not got[1].requires_grad
    wanted[0].sum().backward()
    got[0].sum().backward()
    for one, other in zip(local.parameters(), remote.parameters(), strict=True):
        assert_same(other.grad, one.grad, 3e-2)
    assert len(programs()) >= 2
    assert not torch.is_autocast_enabled(DEVICE)


def test_numbers_of_the_programs_own_stay_python() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        y = x + torch.tensor([1.0, 2.0, 3.0], device=x.device)
        y = y * torch.as_tensor([[2.0]], device=x.device) + y.new_tensor([4.0])
        y[0] = 3.5
        y[1, 1:] = torch.tensor(7.0)
        return y.relu() + torch.empty_like(x).fill_(2.5) - x.new_full((3,), 1.5)

    x = torch.randn(2, 3)
    for _ in range(3):
        assert_same(compiled(run)(x.to(REMOTE)), run(x))
        torch.testing.assert_close(compiled(run)(x), run(x))
        # Memory that was freed has other numbers in it now.
        torch.full((64,), 9.75).clone()
    assert programs()


def test_transforms() -> None:
    def loss(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return ((x @ weight).tanh() * 2 - x.sum()).square().mean()

    def run(weight: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slopes = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, x)
        return slopes.mean(0), torch.func.vmap(loss, in_dims=(None, 0))(weight, x)

    weight, x = torch.randn(4, 2), torch.randn(5, 4)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            got = compiled(run)(weight.to(REMOTE), x.to(REMOTE))
        assert_same(got, run(weight, x))


def test_tangents_pass_without_a_graph() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        return ((x * x).sin() + 1).exp() * 3

    x, tangent = torch.randn(4), torch.randn(4)
    fast = compiled(run)

    def slope(x: torch.Tensor, tangent: torch.Tensor, run: Callable[..., Any]) -> torch.Tensor:
        with torch.no_grad(), torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, tangent)
            found = torch.autograd.forward_ad.unpack_dual(run(dual)).tangent
            assert found is not None
            return found

    assert_same(slope(x.to(REMOTE), tangent.to(REMOTE), fast), slope(x, tangent, run))


def test_memory_is_freed_when_it_was_used_last() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        for _ in range(20):
            x = (x + 1).tanh()
        return x

    x = torch.zeros(1 << 18, device=REMOTE)
    fast = compiled(run)
    peaks = []
    with torch.no_grad():
        fast(x)
        for one in (run, fast):
            genie.synchronize()
            torch.accelerator.reset_peak_memory_stats()
            before = torch.accelerator.memory_allocated()
            one(x)
            peaks.append(torch.accelerator.max_memory_allocated() - before)
    assert peaks[1] <= peaks[0] <= 3 * x.nbytes


def test_what_is_recorded_is_what_eager_capture_records() -> None:
    model = nn.Sequential(Block(), Block()).eval().to(REMOTE)
    x = torch.randn(2, 5, 8, device=REMOTE)
    fast = compiled(model)
    with torch.no_grad():
        fast(x)
        counts = []
        for run in (model, fast):
            genie.synchronize()
            with Counted() as counted:
                run(x)
                genie.synchronize()
            counts.append((counted.operators, counted.round_trips))
    assert counts[0] == counts[1]


def test_threads_run_one_program() -> None:
    local, remote = pair(nn.Sequential(Block(), Block()).eval())
    inputs = [torch.randn(2, 5, 8) for _ in range(4)]
    fast = compiled(remote)
    with torch.no_grad():
        fast(inputs[0].to(REMOTE))

    def work(x: torch.Tensor) -> None:
        with torch.no_grad():
            for _ in range(5):
                assert_same(fast(x.to(REMOTE)), local(x))

    at_once(work, inputs)


def test_an_error_on_the_node_names_the_line() -> None:
    def run(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        y = (x + 1) * 2
        y = y.tanh()
        y = y[at]  # the line
        return y + 1

    fast = compiled(run)
    x = torch.zeros(4, device=REMOTE)
    fast(x, torch.tensor([1], device=REMOTE))
    with pytest.raises(IndexError, match=r"test_replay\.py\", line \d+, in run"):
        fast(x, torch.tensor([9], device=REMOTE)).cpu()
    assert programs()
    # What the program is at is forgotten with it.
    with pytest.raises(IndexError, match="in test_an_error_on_the_node_names_the_line"):
        x[torch.tensor([9], device=REMOTE)].cpu()


def test_replay_is_the_module_and_says_what_became_of_it() -> None:
    local, remote = pair(nn.Sequential(Block(), Block()).eval())
    fast = genie.replay(remote)
    assert fast.report().graphs == 0
    with torch.no_grad():
        for length in (5, 5, 7, 8):
            x = torch.randn(2, length, 8)
            assert_same(fast(x.to(REMOTE)), local(x))
    report = fast.report()
    assert (report.calls, report.graphs, report.programs, report.python) == (4, 2, 2, {})
    assert report.operators > 20
    assert report.graph_seconds > 0
    assert report.outside_seconds > 0
    assert "4 calls; 2 graphs with 2 programs" in str(report)
    assert [name for name, _ in fast.named_parameters()] == [
        name for name, _ in local.named_parameters()
    ]
    with pytest.raises(AttributeError):
        fast.no_such_thing


def test_replay_repeats_what_was_done_to_python_and_guards_what_was_read() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.scale = 2
            self.seen: list[int] = []
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.seen.append(x.shape[0])
            y = self.linear(x) * self.scale
            return (y.relu() + 1) * len(self.seen)

    local, remote = pair(Counting())
    fast = genie.replay(remote)
    for rows in (2, 2, 3, 2):
        x = torch.randn(rows, 4)
        assert_same(fast(x.to(REMOTE)), local(x))
        if rows == 3:
            local.scale = remote.scale = 5
            remote.linear.weight.data.mul_(2)
            local.linear.weight.data.mul_(2)
    assert (remote.calls, remote.seen) == (local.calls, local.seen)


def test_replay_of_what_cannot_be_traced() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        y = (x + 1).relu() * 2 - x
        if y.sum() > 0:
            y = y.sqrt() + y * y - 1
        return y.tolist(), y

    fast = genie.replay(run)
    for x in (torch.rand(3), -torch.rand(3), torch.rand(3)):
        assert_same(fast(x.to(REMOTE))[1], run(x)[1])
    assert fast.report().graphs == 2
    with pytest.raises(Exception, match=r"(?i)data-dependent"):
        genie.replay(run, fullgraph=True)(torch.rand(3, device=REMOTE))
    with pytest.raises(TypeError, match="a module or a function"):
        genie.replay(3)  # type: ignore[arg-type]


def test_replay_of_methods_and_errors() -> None:
    class Model(nn.Module):
        def score(self, x: torch.Tensor, *, by: float) -> torch.Tensor:
            """Score."""
            return ((x * by).sin() + 1).log() * 2

    model, x = Model(), torch.rand(3)
    fast = genie.replay(model.score)
    assert fast.__doc__ == "Score."
    assert_same(fast(x.to(REMOTE), by=2.0), model.score(x, by=2.0))
    with pytest.raises(TypeError, match="by"):
        fast(x.to(REMOTE))
    # An error in the midst leaves nothing behind.
    assert_same(fast(x.to(REMOTE), by=3.0), model.score(x, by=3.0))
