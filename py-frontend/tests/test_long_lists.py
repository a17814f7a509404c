"""Calls with more tensors than one record holds are several records, or refused alone."""

from __future__ import annotations

import copy
from typing import Any

import genie
import pytest
import torch
from support import REMOTE

pytestmark = pytest.mark.usefixtures("session")

COUNTS = (5_000, 20_000)


def tensors(n: int, *shape: int) -> list[torch.Tensor]:
    whole = torch.arange(float(n * max(1, torch.Size(shape).numel()))).view(n, *shape)
    return list(whole)


def remote(local: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same, of one upload."""
    return list(torch.stack(local).to(REMOTE).unbind())


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_stack_and_cat(n: int, dim: int) -> None:
    local = tensors(n, 3, 2)
    there = remote(local)
    assert torch.equal(torch.stack(there, dim).cpu(), torch.stack(local, dim))
    assert torch.equal(torch.cat(there, dim).cpu(), torch.cat(local, dim))


@pytest.mark.parametrize("n", COUNTS)
def test_their_gradients(n: int) -> None:
    def run(device: str) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.arange(float(n * 2)).view(n, 2).to(device).requires_grad_()
        rows = list(x.unbind())
        y = torch.stack(rows).pow(2).sum() + torch.cat(rows).mul(3).sum()
        y.backward()
        return y.detach().cpu(), x.grad.cpu()

    for there, here in zip(run(REMOTE), run("cpu"), strict=True):
        torch.testing.assert_close(there, here)


def test_lists_of_mixed_types_and_empty_tensors() -> None:
    local: list[torch.Tensor] = []
    for i in range(5_000):
        local.append(torch.full((i % 3,), i, dtype=torch.int32 if i < 4_500 else torch.float64))
    there = [t.to(REMOTE) for t in local]
    joined = torch.cat(there)
    assert joined.dtype is torch.float64
    assert torch.equal(joined.cpu(), torch.cat(local))


def test_into_a_given_tensor() -> None:
    local = tensors(5_000, 2)
    there = remote(local)
    for call in (torch.stack, torch.cat):
        out = torch.empty(0, device=REMOTE)
        assert call(there, out=out) is out
        assert torch.equal(out.cpu(), call(local))


def test_what_does_not_fit_together_says_so_as_ever() -> None:
    there = remote(tensors(5_000, 2))
    with pytest.raises(RuntimeError, match="equal size"):
        torch.stack([*there, torch.ones(3, device=REMOTE)])
    with pytest.raises(RuntimeError, match=r"same device|Expected all tensors"):
        torch.stack([*there, torch.ones(2)])
    assert torch.stack(there[:3]).shape == (3, 2)


@pytest.mark.parametrize("n", COUNTS)
def test_foreach(n: int) -> None:
    local = [t.clone() for t in tensors(n, 2)]
    there = [t.clone() for t in remote(local)]
    scalars = [float(i % 7) for i in range(n)]
    for made, expected in (
        (torch._foreach_add(there, there), torch._foreach_add(local, local)),
        (torch._foreach_mul(there, scalars), torch._foreach_mul(local, scalars)),
        (torch._foreach_norm(there), torch._foreach_norm(local)),
    ):
        torch.testing.assert_close(torch.stack(list(made)).cpu(), torch.stack(list(expected)))
    for items in (there, local):
        torch._foreach_mul_(items, 0.5)
        torch._foreach_addcdiv_(items, items, [t + 1 for t in items], value=2.0)
        torch._foreach_add_(items, scalars)
        torch._foreach_sqrt_(items)
    torch.testing.assert_close(torch.stack(there).cpu(), torch.stack(local))


def test_unscaling_and_clipping() -> None:
    n = 5_000
    local = [t.clone() for t in tensors(n, 2)]
    there = [t.clone() for t in remote(local)]
    found = torch.zeros(1, device=REMOTE)
    torch._amp_foreach_non_finite_check_and_unscale_(
        there, found, torch.full((1,), 0.5, device=REMOTE)
    )
    assert found.item() == 0
    torch._foreach_mul_(local, 0.5)
    torch.testing.assert_close(torch.stack(there).cpu(), torch.stack(local))
    there[4_900][0] = float("inf")
    torch._amp_foreach_non_finite_check_and_unscale_(there, found, torch.ones(1, device=REMOTE))
    assert found.item() == 1
    for device in ("cpu", REMOTE):
        parameters = [torch.nn.Parameter(torch.ones(2, device=device)) for _ in range(n)]
        for parameter in parameters:
            parameter.grad = torch.full((2,), 3.0, device=device)
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        assert norm.item() == pytest.approx(3 * (2 * n) ** 0.5, rel=1e-4)
        assert parameters[-1].grad[0].item() == pytest.approx(1 / (2 * n) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {}], ids=str)
@pytest.mark.parametrize("shape", [(2,), (1, 2, 1, 1)], ids=str)
def test_optimizers_of_many_parameters(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    n = 2_000
    starts = [torch.full(shape, 1 + i / n) for i in range(n)]

    def run(device: str) -> torch.Tensor:
        whole = torch.stack(starts).to(device)
        parameters = [torch.nn.Parameter(t.clone()) for t in whole.unbind()]
        optimizer = torch.optim.AdamW(parameters, lr=0.1, **options)
        for _ in range(2):
            grads = (torch.stack([p.detach() for p in parameters]) * 2).unbind()
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad.clone()
            optimizer.step()
        return torch.stack([p.detach() for p in parameters]).cpu()

    torch.testing.assert_close(run(REMOTE), run("cpu"))


def test_many_copies_of_parts() -> None:
    parts = torch.unbind_copy(torch.arange(5_000.0, device=REMOTE).reshape(5_000, 1))
    assert parts[4_999].tolist() == [4_999.0]
    parts = torch.split_with_sizes_copy(torch.arange(9_000.0, device=REMOTE), [1] * 9_000)
    assert parts[8_999].tolist() == [8_999.0]


def test_what_can_not_be_taken_apart_is_refused_alone() -> None:
    there = remote(tensors(5_000, 1))
    with pytest.raises(RuntimeError, match="5000 items"):
        torch.block_diag(*there)
    assert genie.is_connected()
    assert copy.copy(there[3]).item() == 3.0
