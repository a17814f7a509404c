"""LSTMs: on a node's CPU a call for each layer and direction, as PyTorch makes there."""

from __future__ import annotations

import copy
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from support import REMOTE, Counted, assert_same, check, pair, to_remote
from torch import nn

pytestmark = pytest.mark.usefixtures("session")

KINDS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "three layers": {"num_layers": 3},
    "both directions": {"num_layers": 2, "bidirectional": True},
    "without biases": {"bias": False, "num_layers": 2},
    "batch first": {"batch_first": True, "bidirectional": True},
}


def run(model: nn.Module, x: torch.Tensor, state: Any) -> Any:
    x = x.clone().requires_grad_()
    y, (h, c) = model(x, state)
    (y.square().sum() + (h * 3).sum() + c.sum()).backward()
    return y.detach(), h.detach(), c.detach(), x.grad, [p.grad for p in model.parameters()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_what_the_cpu_gives(kind: str, training: bool) -> None:
    local, remote = pair(nn.LSTM(6, 5, **KINDS[kind]).train(training))
    layers = KINDS[kind].get("num_layers", 1) * (2 if KINDS[kind].get("bidirectional") else 1)
    x = torch.randn(7, 3, 6)
    batch = x.shape[0] if KINDS[kind].get("batch_first") else x.shape[1]
    state = (torch.randn(layers, batch, 5), torch.randn(layers, batch, 5))
    assert_same(run(remote, to_remote(x), to_remote(state)), run(local, x, state))
    with torch.no_grad():
        assert_same(remote(to_remote(x)), local(x))
    with torch.inference_mode():
        assert_same(remote(to_remote(x)), local(x))


def test_a_few_records_and_no_round_trip() -> None:
    model = nn.LSTM(8, 8, 2).to(REMOTE)
    x = torch.randn(100, 4, 8, device=REMOTE)

    def step() -> None:
        model(x)[0].sum().backward()

    step()
    with torch.no_grad():
        model(x)
    genie.synchronize()
    with Counted() as counted, torch.no_grad():
        model(x)
    assert counted.round_trips == 0
    assert counted.operators < 10
    with Counted() as counted:
        step()
    assert counted.round_trips == 0
    # 1,206 if each step has its own.
    assert counted.operators < 60


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(6, 5, proj_size=3),
        lambda: nn.LSTM(6, 5).double(),
        lambda: nn.LSTM(6, 5).to(torch.bfloat16),
        lambda: nn.GRU(6, 5, 2, bidirectional=True),
        lambda: nn.RNN(6, 5),
    ],
)
def test_others_are_made_of_steps(make: Any) -> None:
    local, remote = pair(make())
    dtype = next(local.parameters()).dtype
    x = torch.randn(4, 3, 6, dtype=dtype)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert_same(remote(to_remote(x)), local(x), tolerance)


def test_gradients_of_gradients_and_single_sequences() -> None:
    def twice(model: nn.Module, x: torch.Tensor) -> Any:
        x = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(model(x)[0].square().sum(), x, create_graph=True)
        grad.square().sum().backward()
        return grad.detach(), x.grad

    local, remote = pair(nn.LSTM(6, 5))
    x = torch.randn(4, 3, 6)
    assert_same(twice(remote, to_remote(x)), twice(local, x), 1e-4)
    one = torch.randn(4, 6)
    assert_same(remote(to_remote(one)), local(one))
    packed = nn.utils.rnn.pack_sequence([torch.randn(4, 6), torch.randn(2, 6)])
    assert_same(remote(packed.to(REMOTE))[0].data, local(packed)[0].data)
    assert_same(
        torch.func.functional_call(remote, dict(remote.named_parameters()), to_remote(x)),
        local(x),
    )


def test_under_autocast_and_with_dropout() -> None:
    local, remote = pair(nn.LSTM(6, 5, 2, dropout=0.5))
    x = torch.randn(4, 3, 6)
    with torch.autocast("remote_accelerator", dtype=torch.bfloat16):
        y = remote(to_remote(x))[0]
    assert y.shape == (4, 3, 5)
    torch.manual_seed(3)
    first = remote(to_remote(x))[0].cpu()
    torch.manual_seed(3)
    assert torch.equal(first, remote(to_remote(x))[0].cpu())
    assert not torch.equal(first, remote(to_remote(x))[0].cpu())
    remote.eval()
    local.eval()
    assert_same(remote(to_remote(x)), local(x))


def test_compiled_and_replayed() -> None:
    local, remote = pair(nn.LSTM(6, 5, 2))
    x, there = torch.randn(4, 3, 6), to_remote(torch.zeros(4, 3, 6))
    for make in (
        lambda m: torch.compile(m, backend="genie"),
        lambda m: torch.compile(m, backend="eager"),
        genie.replay,
    ):
        torch.compiler.reset()
        fast = make(copy.deepcopy(remote))
        with torch.no_grad():
            there.copy_(x)
            assert_same(fast(there), local(x))
    torch.compiler.reset()


def test_a_trained_model(session: Daemon) -> None:
    def train(model: nn.Module, head: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[float]:
        parameters = [*model.parameters(), *head.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=0.01)
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(head(model(x)[0][-1]), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    local, remote = pair(nn.LSTM(6, 8, 2))
    head, remote_head = pair(nn.Linear(8, 1))
    x, y = torch.randn(20, 4, 6), torch.randn(4, 1)
    found = train(remote, remote_head, to_remote(x), to_remote(y))
    assert found == pytest.approx(train(local, head, x, y), abs=1e-5)


def test_a_workspace_of_another_layer_is_refused() -> None:
    layer = torch.ops.aten.mkldnn_rnn_layer
    x, h = torch.randn(7, 3, 6), torch.zeros(3, 5)
    weights = [torch.randn(20, 6), torch.randn(20, 5), torch.randn(20), torch.randn(20)]

    def call(x: torch.Tensor, h: torch.Tensor, weights: list[torch.Tensor]) -> Any:
        return layer(x, *weights, h, h, False, [], 2, 5, 1, True, False, False, True)

    check(lambda *given: call(given[0], given[1], list(given[2:]))[:3], x, h, *weights)
    there, state, ws = to_remote((x, h, weights))
    y, hy, cy, kept = call(there, state, ws)
    assert kept.dtype == torch.uint8

    def backward(kept: torch.Tensor) -> Any:
        return torch.ops.aten.mkldnn_rnn_layer_backward(
            there, *ws, state, state, y, hy, cy, y, None, None, False, 2, 5, 1, True, True, False,
            [], False, kept,
        )  # fmt: skip

    assert backward(kept)[0].shape == x.shape
    genie.synchronize()
    with pytest.raises(ValueError, match="a workspace of another layer"):
        backward(kept[:64].clone())[0].cpu()
    with pytest.raises(ValueError, match=r"hx_\.size0 == input"):
        call(there, state[:2], ws)[0].cpu()
