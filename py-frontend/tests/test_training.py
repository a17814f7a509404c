"""Autograd, modules, optimisers, saving and loading: training works as on any device."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from support import REMOTE, Counted, assert_same
from torch import nn

pytestmark = pytest.mark.usefixtures("session")


def small_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 16),
        nn.LayerNorm(16),
        nn.GELU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 3),
    )


class Tied(nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.output = nn.Linear(8, 11, bias=False)
        self.output.weight = self.embedding.weight
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.output(self.embedding(tokens).tanh())


# --- Autograd -------------------------------------------------------------------------------

DIFFERENTIABLE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "arithmetic": lambda t: (t * 3 + t**2 / 2 - t.sin()).sum(),
    "matmul": lambda t: (t @ t.t()).relu().sum(),
    "views": lambda t: (t[1:, ::2].t().reshape(-1) * t.view(-1)[:9]).sum(),
    "in place": lambda t: (t * 1).mul_(t).add_(2)[0].exp_().sum(),
    "softmax and log": lambda t: (t.softmax(1) * t.log_softmax(1)).sum(),
    "layer norm": lambda t: nn.functional.layer_norm(t, (6,)).pow(3).sum(),
    "convolution": lambda t: nn.functional.conv1d(t.view(1, 4, 6), t.view(2, 4, 3)).tanh().sum(),
    "attention": lambda t: nn.functional.scaled_dot_product_attention(
        t.view(1, 2, 2, 6), t.view(1, 2, 2, 6) * 2, t.view(1, 2, 2, 6), is_causal=True
    ).sum(),
    "index": lambda t: (t[torch.tensor([0, 0, 3], device=t.device)] ** 2).sum(),
    "max": lambda t: t.max(1).values.sum(),
    "cat and where": lambda t: torch.cat([torch.where(t > 0, t, t * 0.1), t]).pow(2).sum(),
}


@pytest.mark.parametrize("function", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE.keys())
def test_gradient(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    local = torch.randn(4, 6).requires_grad_()
    remote = local.detach().to(REMOTE).requires_grad_()
    function(local).backward()
    function(remote).backward()
    assert local.grad is not None
    assert_same(remote.grad, local.grad)


def test_gradients_flow_through_copies() -> None:
    local = torch.randn(4, requires_grad=True)
    ((local.to(REMOTE) * 3).cpu() * 2).sum().backward()
    assert local.grad is not None
    assert torch.equal(local.grad, torch.full((4,), 6.0))


def test_gradients_add_up_and_can_be_cleared() -> None:
    remote = torch.ones(3, device=REMOTE, requires_grad=True)
    for _ in range(2):
        (remote * 2).sum().backward()
    assert_same(remote.grad, torch.full((3,), 4.0))
    remote.grad = None
    (remote * 5).sum().backward()
    assert_same(remote.grad, torch.full((3,), 5.0))


def test_second_derivatives() -> None:
    remote = torch.tensor([2.0, 3.0], device=REMOTE, requires_grad=True)
    (first,) = torch.autograd.grad((remote**3).sum(), remote, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), remote)
    assert_same(first.detach(), torch.tensor([12.0, 27.0]))
    assert_same(second, torch.tensor([12.0, 18.0]))


def test_hooks_and_custom_functions() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
            return tensor * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return gradient * 2

    seen: list[torch.Tensor] = []
    remote = torch.ones(2, device=REMOTE, requires_grad=True)
    middle = Double.apply(remote)
    middle.register_hook(seen.append)
    middle.sum().backward()
    assert_same(seen[0], torch.ones(2))
    assert_same(remote.grad, torch.full((2,), 2.0))


def test_a_backward_waits_for_nothing() -> None:
    model = small_model().to(REMOTE)
    inputs = torch.randn(5, 6, device=REMOTE)
    model(inputs).sum().backward()
    genie.synchronize()
    with Counted() as counted:
        model(inputs).sum().backward()
    assert counted.round_trips == 0


def test_no_grad_and_inference_mode() -> None:
    remote = torch.ones(2, device=REMOTE, requires_grad=True)
    with torch.no_grad():
        assert not (remote * 2).requires_grad
    with torch.inference_mode():
        assert_same(remote * 2, torch.full((2,), 2.0))


# --- Modules --------------------------------------------------------------------------------


def test_a_module_moves_there_and_back() -> None:
    local = small_model().eval()
    remote = copy.deepcopy(local).to(REMOTE)
    assert all(parameter.device.type == "remote_accelerator" for parameter in remote.parameters())
    inputs = torch.randn(5, 6)
    assert_same(remote(inputs.to(REMOTE)).detach(), local(inputs).detach())
    back = remote.to("cpu")
    torch.testing.assert_close(back(inputs), local(inputs), rtol=0, atol=0)


def test_tied_weights_stay_tied() -> None:
    local = Tied()
    remote = copy.deepcopy(local).to(REMOTE)
    assert remote.output.weight is remote.embedding.weight
    assert remote.steps.device.type == "remote_accelerator"
    with torch.no_grad():
        remote.embedding.weight.mul_(2)
        local.embedding.weight.mul_(2)
    tokens = torch.tensor([[1, 5, 10]])
    assert_same(remote(tokens.to(REMOTE)).detach(), local(tokens).detach())


def test_deepcopy_is_apart_from_its_original() -> None:
    original = small_model().to(REMOTE)
    copied = copy.deepcopy(original)
    with torch.no_grad():
        copied[0].weight.zero_()
    assert copied[0].weight.abs().sum().item() == 0
    assert original[0].weight.abs().sum().item() > 0
    tensor = torch.ones(2, device=REMOTE)
    assert copy.deepcopy({"a": tensor})["a"] is not tensor


def test_state_dict_goes_from_device_to_device() -> None:
    local = small_model()
    remote = small_model().to(REMOTE)
    remote.load_state_dict(local.state_dict())
    assert_same(dict(remote.state_dict()), dict(local.state_dict()))
    other = small_model()
    other.load_state_dict(remote.state_dict())
    torch.testing.assert_close(dict(other.state_dict()), dict(local.state_dict()), rtol=0, atol=0)


def test_save_and_load() -> None:
    remote = Tied().to(REMOTE)
    file = io.BytesIO()
    torch.save(remote.state_dict(), file)

    file.seek(0)
    on_cpu = torch.load(file, map_location="cpu", weights_only=True)
    assert all(tensor.is_cpu for tensor in on_cpu.values())
    assert_same(dict(remote.state_dict()), on_cpu)

    file.seek(0)
    on_device = torch.load(file, map_location=REMOTE, weights_only=True)
    assert_same(on_device, on_cpu)

    file.seek(0)
    where_it_was = torch.load(file, weights_only=True)
    assert_same(where_it_was, on_cpu)


def test_saved_views_share_their_memory_when_loaded() -> None:
    base = torch.arange(6.0, device=REMOTE)
    file = io.BytesIO()
    torch.save({"base": base, "part": base[2:4]}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    loaded["part"].zero_()
    assert_same(loaded["base"], torch.tensor([0.0, 1, 0, 0, 4, 5]))


def test_parameters_made_on_the_device() -> None:
    layer = nn.Linear(4, 2, device=REMOTE)
    assert layer(torch.zeros(1, 4, device=REMOTE)).shape == (1, 2)
    assert layer.weight.abs().max().item() <= 0.5
    assert layer.weight.std().item() > 0.05


# --- Optimisers -----------------------------------------------------------------------------

OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "AdamW, one parameter at a time": lambda parameters: torch.optim.AdamW(
        parameters, lr=0.01, foreach=False
    ),
}


def train(
    model: nn.Module, make: Callable[[Any], torch.optim.Optimizer], device: str, steps: int
) -> tuple[list[float], dict[str, torch.Tensor]]:
    optimiser = make(model.parameters())
    generator = torch.Generator().manual_seed(2)
    losses = []
    for _ in range(steps):
        inputs = torch.randn(8, 6, generator=generator).to(device)
        targets = torch.randint(3, (8,), generator=generator).to(device)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return losses, dict(model.state_dict())


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS.keys())
def test_training_steps(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    local = small_model()
    remote = copy.deepcopy(local).to(REMOTE)
    local_losses, local_state = train(local, make, "cpu", 8)
    remote_losses, remote_state = train(remote, make, REMOTE, 8)
    assert remote_losses == pytest.approx(local_losses, abs=1e-5)
    assert local_losses[0] != local_losses[-1]
    assert_same(remote_state, local_state)


def test_the_state_of_an_optimiser_is_kept() -> None:
    model = small_model().to(REMOTE)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 6, device=REMOTE)).sum().backward()
    optimiser.step()
    file = io.BytesIO()
    torch.save(optimiser.state_dict(), file)
    file.seek(0)
    other = torch.optim.AdamW(model.parameters())
    other.load_state_dict(torch.load(file, weights_only=True))
    first, second = (next(iter(each.state.values())) for each in (optimiser, other))
    assert_same(second["exp_avg"], first["exp_avg"])
