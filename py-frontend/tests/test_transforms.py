"""What transforms of functions and mixed types ask of single operators, against the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from support import REMOTE, assert_same
from torch import nn

pytestmark = pytest.mark.usefixtures("session")


def attend(x: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize(
    "function",
    [
        torch.vmap(attend),
        torch.vmap(torch.func.grad(lambda x: attend(x).square().sum())),
        torch.func.grad(lambda x: torch.vmap(attend)(x).square().sum()),
    ],
)
def test_attention_in_batches(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    inputs = torch.randn(3, 1, 2, 4, 8)
    assert_same(function(inputs.to(REMOTE)), function(inputs), 1e-5)


def test_attention_that_is_traced_with_its_backward() -> None:
    inputs = torch.randn(1, 2, 4, 8)
    gradients = []
    for device in ("cpu", REMOTE):
        leaf = inputs.clone().to(device).requires_grad_()
        torch.compile(lambda x: attend(x).sum(), backend="aot_eager")(leaf).backward()
        gradients.append(leaf.grad)
    assert_same(gradients[1], gradients[0], 1e-6)


def test_derivatives_with_zeros_that_nobody_made() -> None:
    local = nn.Linear(3, 2)
    remote = copy.deepcopy(local).to(REMOTE)
    ones = torch.ones(1, 3)
    got = torch.func.jvp(remote, (ones.to(REMOTE),), (ones.to(REMOTE),))
    assert_same(got, torch.func.jvp(local, (ones,), (ones,)), 1e-6)
    assert_same(
        torch.func.hessian(lambda x: remote(x).square().sum())(ones.to(REMOTE)),
        torch.func.hessian(lambda x: local(x).square().sum())(ones),
        1e-5,
    )
    zeros = torch._efficientzerotensor((3,), device=REMOTE)  # type: ignore[attr-defined]
    assert (zeros + torch.ones(3, device=REMOTE)).tolist() == [1, 1, 1]
    assert torch._efficientzerotensor((3,)).to(REMOTE).tolist() == [0, 0, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_a_histogram_of_whole_numbers_is_what_cuda_gives(dtype: torch.dtype) -> None:
    experts = torch.tensor([0, 2, 1, 2, 2], dtype=dtype, device=REMOTE)
    counted = torch.histc(experts, bins=3, min=0, max=2)
    assert counted.dtype == dtype
    assert counted.tolist() == [1, 1, 3]
    out = torch.empty(0, dtype=dtype, device=REMOTE)
    assert torch.histc(experts, bins=3, min=0, max=2, out=out).tolist() == [1, 1, 3]


@pytest.mark.parametrize(
    "loss",
    [F.smooth_l1_loss, F.soft_margin_loss, F.binary_cross_entropy_with_logits, F.l1_loss],
)
@pytest.mark.parametrize(
    "types", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)]
)
def test_losses_of_two_types(
    loss: Callable[..., torch.Tensor], types: tuple[torch.dtype, torch.dtype]
) -> None:
    inputs, targets = torch.randn(5).to(types[0]), torch.rand(5).round().to(types[1])
    results = []
    for device in ("cpu", REMOTE):
        leaf = inputs.clone().to(device).requires_grad_()
        value = loss(leaf, targets.to(device))
        value.backward()
        results.append([value.detach(), leaf.grad])
    assert_same(results[1], results[0], 1e-2)


def test_norms_of_weights_in_half_types() -> None:
    direction = torch.randn(4, 3, 2).half()
    size = torch.rand(4, 1, 1).half()
    assert_same(
        torch._weight_norm(direction.to(REMOTE), size.to(REMOTE), 0),
        torch._weight_norm(direction, size, 0),
        1e-2,
    )
