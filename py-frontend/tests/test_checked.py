"""What plain programs do with operators whose arguments the node checks before it runs them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import REMOTE, assert_same, check
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("session")

Function = Callable[..., Any]


def with_gradients(function: Function) -> Function:
    """Its result and the gradients of the inputs that can have one."""

    def run(*inputs: torch.Tensor) -> Any:
        leaves = [i.detach().requires_grad_(i.is_floating_point()) for i in inputs]
        out = function(*leaves)
        out = out[0] if isinstance(out, tuple) else out
        out.sum().backward()
        return out.detach(), [leaf.grad for leaf in leaves if leaf.requires_grad]

    return run


def bag(mode: str, weighted: bool = False) -> Function:
    """An embedding bag over three bags, one of them empty."""

    def run(weight: torch.Tensor, indices: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        offsets = torch.tensor([0, 3, 3], device=weight.device)
        per_sample = rest[0] if weighted else None
        return functional.embedding_bag(
            indices, weight, offsets, mode=mode, per_sample_weights=per_sample
        )

    return run


def ctc(targets: torch.Tensor, lengths: list[int]) -> Function:
    """Of two sequences of eight steps."""

    def run(logits: torch.Tensor) -> torch.Tensor:
        of = targets.to(logits.device)
        return functional.ctc_loss(
            logits.log_softmax(2), of, torch.tensor([8, 7]), torch.tensor(lengths)
        )

    return run


def symmetric(a: torch.Tensor) -> torch.Tensor:
    return a @ a.t() + 3 * torch.eye(a.shape[0], device=a.device)


INDICES = torch.tensor([1, 0, 4, 2, 2])
CASES: dict[str, tuple[Function, tuple[torch.Size | tuple[int, ...] | torch.Tensor, ...]]] = {
    "bag, sum": (bag("sum"), ((5, 3), INDICES)),
    "bag, mean": (bag("mean"), ((5, 3), INDICES)),
    "bag, max": (bag("max"), ((5, 3), INDICES)),
    "bag, weighted": (bag("sum", True), ((5, 3), INDICES, (5,))),
    "embedding": (lambda w, i: functional.embedding(i, w), ((5, 3), INDICES)),
    "ctc, padded": (ctc(torch.tensor([[1, 2, 3], [2, -1, -1]]), [3, 1]), ((8, 2, 5),)),
    "ctc, flat": (ctc(torch.tensor([1, 2, 3, 2]), [3, 1]), ((8, 2, 5),)),
    "max_pool1d": (lambda x: functional.max_pool1d(x, 2), ((2, 3, 8),)),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 3, 2, 1), ((2, 3, 8, 8),)),
    "max_pool2d, one": (lambda x: functional.max_pool2d(x, 2), ((3, 8, 8),)),
    "max_pool2d, ceil": (lambda x: functional.max_pool2d(x, 3, 2, ceil_mode=True), ((1, 2, 7, 7),)),
    "max_pool3d": (lambda x: functional.max_pool3d(x, 2), ((2, 3, 4, 4, 4),)),
    "adaptive_max_pool2d": (lambda x: functional.adaptive_max_pool2d(x, 3), ((2, 3, 8, 8),)),
    "adaptive_max_pool3d": (lambda x: functional.adaptive_max_pool3d(x, 2), ((2, 3, 4, 4, 4),)),
    "adaptive_avg_pool1d": (lambda x: functional.adaptive_avg_pool1d(x, 3), ((2, 3, 8),)),
    "adaptive_avg_pool2d": (lambda x: functional.adaptive_avg_pool2d(x, 3), ((2, 3, 8, 8),)),
    "adaptive_avg_pool3d": (lambda x: functional.adaptive_avg_pool3d(x, 2), ((2, 3, 4, 4, 4),)),
    "max_unpool2d": (
        lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
        ((2, 3, 8, 8),),
    ),
    "reflection": (lambda x: functional.pad(x, (1, 2, 2, 1), "reflect"), ((2, 3, 5, 5),)),
    "replication": (
        lambda x: functional.pad(x, (1, 2, 2, 1, 1, 1), "replicate"),
        ((2, 3, 4, 4, 4),),
    ),
    "bilinear, antialias": (
        lambda x: functional.interpolate(x, scale_factor=0.4, mode="bilinear", antialias=True),
        ((1, 2, 11, 11),),
    ),
    "bicubic, antialias": (
        lambda x: functional.interpolate(x, (5, 7), mode="bicubic", antialias=True),
        ((1, 2, 11, 11),),
    ),
    "batch_norm": (
        lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True),
        ((4, 3, 5), (3,), (3,)),
    ),
    "batch_norm, eval": (
        lambda x, w, b: functional.batch_norm(x, torch.zeros_like(w), torch.ones_like(w), w, b),
        ((4, 3), (3,), (3,)),
    ),
    "group_norm": (lambda x, w, b: functional.group_norm(x, 2, w, b), ((2, 4, 5), (4,), (4,))),
    "instance_norm": (lambda x: functional.instance_norm(x), ((2, 4, 5),)),
    "layer_norm": (lambda x, w, b: functional.layer_norm(x, (5,), w, b), ((2, 4, 5), (5,), (5,))),
    "weight_norm": (lambda v, g: torch._weight_norm(v, g, 0), ((4, 5), (4, 1))),
    "cdist": (lambda a, b: torch.cdist(a, b), ((2, 4, 3), (2, 5, 3))),
    "cdist, p": (lambda a, b: torch.cdist(a, b, p=1.5), ((4, 3), (5, 3))),
    "pdist": (lambda a: functional.pdist(a), ((5, 3),)),
    "eigvals": (lambda a: torch.linalg.eigvals(symmetric(a)).abs(), ((4, 4),)),
    "cummax": (lambda a: a.cummax(1), ((4, 6),)),
    "logcumsumexp": (lambda a: a.logcumsumexp(1), ((4, 6),)),
    "rfft": (lambda a: torch.fft.rfftn(a, dim=(-2, -1)).abs(), ((3, 4, 6),)),
    "irfft": (lambda a: torch.fft.irfft(a), ((3, 6),)),
    "cholesky_solve": (
        lambda a, b: torch.cholesky_solve(b, torch.linalg.cholesky(symmetric(a))),
        ((4, 4), (4, 2)),
    ),
    "lu_solve": (
        lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(symmetric(a)), b),
        ((4, 4), (4, 2)),
    ),
    "smooth_l1": (lambda a, b: functional.smooth_l1_loss(a, b), ((4, 3), (4, 3))),
    "segments": (
        lambda a: torch.segment_reduce(a, "sum", lengths=torch.tensor([2, 3], device=a.device)),
        ((5, 2),),
    ),
    "attention": (
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        ((2, 2, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)),
    ),
    "stack": (lambda a, b: torch.stack([a, b]), ((3, 2), (3, 2))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_plain_call_passes(name: str) -> None:
    function, shapes = CASES[name]
    inputs = [s if isinstance(s, torch.Tensor) else torch.randn(s) for s in shapes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(with_gradients(function), *inputs, tolerance=1e-4)


def test_the_median_of_what_is_expanded() -> None:
    # libtorch reads behind it: there is no right answer to compare with but this.
    row = torch.tensor([[3.0, 1.0, 2.0]])
    middle = row.to(REMOTE).expand(4, 3).median(0).values
    assert middle.tolist() == row[0].tolist()


def test_pivots_of_an_indefinite_matrix() -> None:
    a = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
    factor, pivots = torch.linalg.ldl_factor(a)
    assert (pivots < 0).any(), "a block of two rows"
    wanted = torch.linalg.ldl_solve(factor, pivots, torch.ones(3, 1))
    remote = torch.linalg.ldl_solve(
        *(t.to(REMOTE) for t in (factor, pivots)), torch.ones(3, 1, device=REMOTE)
    )
    assert_same(remote, wanted, 1e-5)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_fused_optimisers(kind: Any, amsgrad: bool) -> None:
    results = []
    for device in ("cpu", REMOTE):
        torch.manual_seed(2)
        model = torch.nn.Linear(4, 3).to(device)
        optimiser = kind(model.parameters(), lr=0.1, fused=True, amsgrad=amsgrad)
        for _ in range(3):
            optimiser.zero_grad()
            model(torch.ones(2, 4, device=device)).sum().backward()
            optimiser.step()
        results.append([p.detach() for p in model.parameters()])
    assert_same(results[1], results[0], 1e-5)


def test_a_hostile_call_is_an_exception_and_the_session_lives() -> None:
    indices = torch.tensor([[[[10**9]]]], device=REMOTE)
    grad = torch.ones(1, 1, 1, 1, device=REMOTE)
    image = torch.ones(1, 1, 2, 2, device=REMOTE)
    with pytest.raises(ValueError, match="values indices"):
        torch.ops.aten.max_pool2d_with_indices_backward(
            grad, image, [2, 2], [2, 2], [0, 0], [1, 1], False, indices
        ).cpu()
    assert image.sum().item() == 4.0
