"""Kinds of graphs that Genie's backend gets: bit for bit what eager capture gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import REMOTE
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.usefixtures("session", "compiled_anew")

Function = Callable[..., Any]


def compiled(function: Function, **options: Any) -> Function:
    return torch.compile(function, backend="genie", **options)


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> torch.Tensor:
        return 2 * ctx.saved_tensors[0] * slope


def dropouts(x: torch.Tensor) -> torch.Tensor:
    kept = functional.dropout(x, training=False) + functional.dropout(x, 0.5, False, True)
    return kept + functional.dropout(input=kept, p=0.3, training=True)


#: Each is one graph.
GRAPHS: dict[str, Function] = {
    "dropouts": dropouts,
    "layer norm": lambda x: functional.layer_norm(x, normalized_shape=(4,), eps=0.1),
    "gradient": torch.func.grad(lambda x: x.sin().sum()),
    "vmap": torch.vmap(lambda x: x.sin().sum()),
    "branches": lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)),
    "random": lambda x: torch.rand_like(x) + x * torch.randn(3, 4, device=REMOTE),
    "complex": lambda x: torch.fft.rfft(x).abs(),
    "function": Squared.apply,
    "lists": lambda x: [row * 2 for row in x.unbind(0)],
    "recomputed": lambda x: checkpoint(torch.sin, x * 2, use_reentrant=False),
    # More than one function of the lines takes.
    "long": lambda x: [x := x * 1.01 + n for n in range(60)],
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_graph(name: str, dynamic: bool) -> None:
    x = torch.randn(3, 4, device=REMOTE)
    found = []
    for run in (GRAPHS[name], compiled(GRAPHS[name], fullgraph=True, dynamic=dynamic)):
        torch.manual_seed(2)
        leaf = x.clone().requires_grad_()
        results = pytree.tree_leaves(run(leaf))
        sum(one.sum() for one in results).backward()
        found.append([one.detach().cpu() for one in (*results, leaf.grad)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_sizes_that_a_graph_takes_and_frees() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        return x.view(-1, x.shape[0]) * x.shape[1] + x.numel()

    fast = compiled(run, dynamic=True, fullgraph=True)
    for rows in (3, 5, 7):
        x = torch.randn(rows, 4)
        assert torch.equal(fast(x.to(REMOTE)).cpu(), run(x))


def test_an_optimiser() -> None:
    found = []
    for wrap in (lambda step: step, compiled):
        torch.manual_seed(4)
        layer = nn.Linear(4, 4).to(REMOTE)
        optimizer = torch.optim.Adam(layer.parameters())
        step = wrap(optimizer.step)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.randn(3, 4).to(REMOTE)).square().sum().backward()
            step()
        found.append(layer.weight.detach().cpu())
    # Compiled, PyTorch's optimisers reckon with steps in float32.
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)
