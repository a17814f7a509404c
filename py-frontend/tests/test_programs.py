"""What programs do beside single operators, each for its kind, against the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import REMOTE, assert_same
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import rnn

pytestmark = pytest.mark.usefixtures("session")


def test_packed_sequences_with_lengths_on_the_cpu() -> None:
    local = nn.LSTM(4, 5, batch_first=True)
    remote = copy.deepcopy(local).to(REMOTE)
    sequences, lengths = torch.randn(3, 6, 4), torch.tensor([4, 6, 2])

    def run(model: nn.LSTM, inputs: torch.Tensor) -> torch.Tensor:
        packed = rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(model(packed)[0], batch_first=True)[0]

    there = sequences.to(REMOTE).requires_grad_()
    here = sequences.clone().requires_grad_()
    got, wanted = run(remote, there), run(local, here)
    assert_same(got, wanted)
    got.sum().backward()
    wanted.sum().backward()
    assert_same(there.grad, here.grad)
    packed = rnn.pack_sequence([torch.ones(3, 2, device=REMOTE), torch.ones(2, 2, device=REMOTE)])
    assert packed.batch_sizes.tolist() == [2, 2, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
def test_grouped_products(dtype: torch.dtype) -> None:
    rows, weights = torch.randn(8, 16, dtype=dtype), torch.randn(2, 16, 32, dtype=dtype)
    ends = torch.tensor([3, 8], dtype=torch.int32)
    leaves = [rows.clone().requires_grad_(), weights.clone().requires_grad_()]
    there = [leaf.detach().to(REMOTE).requires_grad_() for leaf in leaves]
    wanted = torch._grouped_mm(*leaves, offs=ends)
    got = torch._grouped_mm(*there, offs=ends.to(REMOTE))
    assert got.stride() == wanted.stride()
    assert_same(got.float(), wanted.float(), 2e-2)
    wanted.square().sum().backward()
    got.square().sum().backward()
    for one, other in zip(there, leaves, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert_same(one.grad.float(), other.grad.float(), 0.5)


def test_batch_norm_in_eval_when_it_is_taken_apart() -> None:
    local = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    remote = copy.deepcopy(local).to(REMOTE)
    images = torch.randn(2, 3, 8, 8)
    assert_same(torch.compile(remote, backend="aot_eager")(images.to(REMOTE)), local(images))
    exported = torch.export.export(remote, (images.to(REMOTE),)).run_decompositions()
    assert_same(exported.module()(images.to(REMOTE)), local(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("is_half", [True, False])
def test_batch_norm_of_half_types(dtype: torch.dtype, is_training: bool, is_half: bool) -> None:
    local = nn.BatchNorm2d(4).train(is_training)
    local = local.to(dtype) if is_half else local
    remote = copy.deepcopy(local).to(REMOTE)
    images = torch.randn(2, 4, 5, 5, dtype=dtype)
    got, wanted = remote(images.to(REMOTE)), local(images)
    assert got.dtype == wanted.dtype
    assert_same(got.float(), wanted.float(), 2e-2)


def test_forward_derivatives() -> None:
    x, v = torch.randn(3, 3), torch.randn(3, 3)

    def tangent(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, v)
            found = forward_ad.unpack_dual(torch.tanh(dual @ x)).tangent
            assert found is not None
            return found

    assert_same(tangent(x.to(REMOTE), v.to(REMOTE)), tangent(x, v))
    functions: list[Callable[[torch.Tensor], Any]] = [
        torch.func.jacfwd(lambda q: nn.functional.layer_norm(q, (3,))),
        torch.func.hessian(lambda q: (q.sin() @ q).sum()),
        lambda q: torch.func.jvp(lambda p: p.sin().sum(), (q,), (torch.ones_like(q),))[1],
    ]
    for function in functions:
        assert_same(function(x.to(REMOTE)), function(x), 1e-4)


def test_windows_and_splits() -> None:
    for arguments in ((10,), (10, False), (10, True, 5.0)):
        assert_same(torch.kaiser_window(*arguments, device=REMOTE), torch.kaiser_window(*arguments))
    row = torch.arange(10.0)
    for where in (torch.tensor([3, 7]), torch.tensor(3)):
        parts = torch.tensor_split(row.to(REMOTE), where.to(REMOTE))
        for got, wanted in zip(parts, torch.tensor_split(row, where), strict=True):
            assert_same(got, wanted)
    leaf = row.to(REMOTE).requires_grad_()
    torch.tensor_split(leaf, torch.tensor([3], device=REMOTE))[1].sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [0] * 3 + [1] * 7


def test_scatters_of_views_and_their_gradients() -> None:
    scatters: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [
        lambda x, s: torch.slice_scatter(x, s[:2], 0, 0, 2),
        lambda x, s: torch.select_scatter(x, s[0], 0, 1),
        lambda x, s: torch.diagonal_scatter(x, s.diagonal().clone()),
    ]
    for scatter in scatters:
        here = [torch.randn(4, 4, requires_grad=True) for _ in range(2)]
        there = [leaf.detach().to(REMOTE).requires_grad_() for leaf in here]
        scatter(*here).square().sum().backward()
        scatter(*there).square().sum().backward()
        for one, other in zip(there, here, strict=True):
            assert_same(one.grad, other.grad)
