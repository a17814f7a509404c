"""``torch.compile`` of what has remote tensors, against the CPU and against eager capture."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from support import DEVICE, REMOTE, Counted, assert_same, check, pair, to_remote
from torch import nn
from torch._dynamo.utils import counters

pytestmark = pytest.mark.usefixtures("session", "compiled_anew")


def compiled(what: Any, **options: Any) -> Any:
    return torch.compile(what, backend="genie", **options)


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


class Block(nn.Module):
    """A transformer's block, with what a graph is shortened by: dropout and layer norms."""

    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.plain_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.attention(self.norm(x)).chunk(3, -1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.dropout(self.plain_norm(x + self.out(mixed)))


def operators_when_planned(run: Callable[[], Any]) -> int:
    """How many operators a run has; by then it travels by a plan, which takes a moment to come."""
    for _ in range(100):
        with Counted() as counted:
            run()
            genie.synchronize()
        if counted.planned_records >= counted.operators > 0:
            return counted.operators
        time.sleep(0.01)
    raise AssertionError("it travels by no plan")


def test_a_forward_records_what_eager_capture_records() -> None:
    local, remote = pair(nn.Sequential(*(Block() for _ in range(3))).eval())
    x = torch.randn(2, 5, 8)
    there = x.to(REMOTE)
    fast = compiled(remote)
    with torch.no_grad():
        assert_same(fast(there), local(x))
        planned = operators_when_planned(lambda: fast(there))
        assert operators_when_planned(lambda: remote(there)) == planned
    assert graphs() == 1


def test_plans_of_eager_capture_fit_what_is_compiled() -> None:
    model = Block(width=16).eval().to(REMOTE)
    x = torch.randn(2, 5, 16, device=REMOTE)
    fast = compiled(model)
    with torch.no_grad():
        operators_when_planned(lambda: model(x))
        with Counted() as counted:
            fast(x)
            genie.synchronize()
    assert counted.plan_hits == 1
    assert counted.planned_records >= counted.operators > 0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_training(name: str) -> None:
    local, remote = pair(nn.Sequential(Block(), nn.BatchNorm1d(5), Block()))
    x = torch.randn(4, 5, 8)
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    losses: list[list[torch.Tensor]] = []
    for model, run, data in ((local, local, x), (remote, compiled(remote), x.to(REMOTE))):
        optimizer = kinds[name](model.parameters(), lr=1e-2)
        losses.append([])
        for _ in range(3):
            optimizer.zero_grad()
            loss = run(data).square().mean() + run(data).abs().mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.detach())
    assert_same(losses[1], losses[0])
    for wanted, got in zip(local.parameters(), remote.parameters(), strict=True):
        assert_same(got.grad, wanted.grad, 1e-4)
    # The statistics of batch norms are buffers, written in place.
    assert_same(dict(remote.named_buffers()), dict(local.named_buffers()))


def test_second_gradients() -> None:
    def penalty(x: torch.Tensor, run: Callable[..., Any]) -> torch.Tensor:
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(run(x).sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.square().sum(), x)
        return bend

    def cubed(x: torch.Tensor) -> torch.Tensor:
        return x.tanh() * x**2

    x = torch.randn(3, 4)
    assert_same(penalty(x.to(REMOTE), compiled(cubed)), penalty(x, cubed))


def test_shapes_that_change_compile_twice_at_most() -> None:
    local, remote = pair(Block().eval())
    fast = compiled(remote)
    with torch.no_grad():
        for length in range(2, 12):
            x = torch.randn(length % 3 + 2, length, 8)
            assert_same(fast(x.to(REMOTE)), local(x))
    assert graphs() <= 3


def test_a_cache_that_grows() -> None:
    def decode(cache: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cache = torch.cat([cache, token], 1)
        return cache, (token @ cache.transpose(1, 2)).softmax(-1) @ cache

    cache, token = torch.randn(1, 2, 4), torch.randn(1, 1, 4)
    there, step = cache.to(REMOTE), compiled(decode)
    for _ in range(8):
        cache, wanted = decode(cache, token)
        there, got = step(there, token.to(REMOTE))
        assert_same(got, wanted)
    assert graphs() <= 2


def test_graph_breaks_and_looks() -> None:
    def looks(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        if y.sum().item() > 0:
            y = y + y.max().cpu().item()
        found = y[y > 0]
        return torch.cat([found, y.flatten()]) + y.nonzero().shape[0]

    for seed in range(4):
        torch.manual_seed(seed)
        check(compiled(looks), torch.randn(3, 4))


def test_inputs_and_views_written_in_place() -> None:
    def write(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        view = x.view(-1)[2:6]
        view.mul_(3)
        x[0] = y
        y += x.sum(0)
        y.t_() if y.dim() == 2 else y.neg_()
        return x, y, view, x.transpose(0, 1)

    x, y = torch.randn(3, 4), torch.randn(4)
    there = to_remote((x, y))
    got, wanted = compiled(write)(*there), write(x, y)
    assert_same(got, wanted)
    assert_same(there, (x, y))
    assert got[0] is there[0]
    assert got[2].data_ptr() == there[0].data_ptr() + 8


def test_dropout_repeats_with_its_seed_and_is_eager_captures() -> None:
    model = Block(dropout=0.5).to(REMOTE)
    x = torch.randn(2, 5, 8, device=REMOTE)
    fast = compiled(model)
    fast(x)
    found = []
    for run in (model, fast, fast):
        torch.manual_seed(3)
        found.append(run(x).detach().cpu())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert (found[0] == 0).any()
    assert not torch.equal(found[0], fast(x).detach().cpu())
    # Another mode is another graph.
    model.eval()
    assert torch.equal(fast(x).cpu(), model(x).cpu())
    assert (fast(x).cpu() != 0).all()


def test_autocast_inside_and_around() -> None:
    local, remote = pair(Block())

    def inside(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            y = model(x)
        return y + model(x)

    x = torch.randn(2, 5, 8)
    got = compiled(inside)(remote, x.to(REMOTE))
    assert_same(got, inside(remote, x.to(REMOTE)).cpu(), 0)
    assert_same(got, inside(local, x), 3e-2)
    fast = compiled(remote)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(DEVICE, dtype=dtype):
            assert_same(fast(x.to(REMOTE)), remote(x.to(REMOTE)).cpu(), 0)
    assert_same(fast(x.to(REMOTE)), local(x))


def test_nothing_compiled_stays_of_a_parameter_that_is_replaced() -> None:
    local, remote = pair(nn.Linear(4, 3))
    fast, x = compiled(remote), torch.randn(2, 4)
    assert_same(fast(x.to(REMOTE)), local(x))
    for model, device in ((local, "cpu"), (remote, REMOTE)):
        model.weight = nn.Parameter(torch.full((3, 4), 2.0, device=device))
    assert_same(fast(x.to(REMOTE)), local(x))


def test_an_error_names_the_users_line() -> None:
    index = torch.full((1, 1), 9, device=REMOTE)

    def beyond(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        return torch.gather(y, 1, index) + 1

    line = beyond.__code__.co_firstlineno + 2
    with pytest.raises(genie.RemoteOperatorError) as raised:
        compiled(beyond)(torch.ones(2, 4, device=REMOTE)).cpu()
    assert f'"{__file__}", line {line}' in str(raised.value)


@pytest.mark.filterwarnings("default")
def test_the_default_backend_says_what_it_does() -> None:
    local, remote = pair(Block().eval())
    x = torch.randn(2, 5, 8)
    from genie import _compile

    _compile._say_once.cache_clear()
    with pytest.warns(UserWarning, match='backend="genie"'), torch.no_grad():
        assert_same(torch.compile(remote)(x.to(REMOTE)), local(x))


def test_what_is_not_remote_runs_too() -> None:
    model = Block()
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(compiled(model)(x), model(x), rtol=0, atol=0)
    mixed = compiled(lambda a, b: (a + 1).to(REMOTE) * b)
    assert_same(mixed(x, x.to(REMOTE)), (x + 1) * x)


def test_a_backend_by_name_in_a_list() -> None:
    assert "genie" in torch.compiler.list_backends()


def test_importing_genie_imports_no_dynamo() -> None:
    code = "import sys, torch, genie; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_two_sessions_one_after_the_other(make_client: Callable[..., Any], session: Any) -> None:
    client = make_client(
        f"""
        from torch import nn
        def run(x): return (x.sin() @ x.t()).relu()
        fast = torch.compile(run, backend="genie")
        for _ in range(2):
            genie.connect({session.address!r})
            x = torch.randn(3, 4)
            stale = x.to("{REMOTE}")
            assert torch.allclose(fast(stale).cpu(), run(x), atol=1e-6)
            genie.disconnect()
        try:
            fast(stale).cpu()
        except (genie.StaleTensorError, genie.NotConnectedError) as error:
            print("raised", type(error).__name__)
        """
    )
    client.expect("raised")
    client.finish()
