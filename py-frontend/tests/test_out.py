"""Results that the caller gives (`out=`): right, empty, of another shape, not contiguous."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import REMOTE, assert_same

pytestmark = pytest.mark.usefixtures("session")

Outs = tuple[torch.Tensor, ...]


def matrix() -> torch.Tensor:
    """Symmetric, and far from singular."""
    torch.manual_seed(5)
    square = torch.randn(4, 4)
    return square @ square.t() + 4 * torch.eye(4)


# What is called, and of which of its results signs or order are the implementation's.
CALLS: dict[str, Callable[..., Any]] = {
    "qr": torch.linalg.qr,
    "eig": torch.linalg.eig,
    "eigvals": torch.linalg.eigvals,
    "eigh": torch.linalg.eigh,
    "eigvalsh": torch.linalg.eigvalsh,
    "svd": torch.linalg.svd,
    "svdvals": torch.linalg.svdvals,
    "inv": torch.linalg.inv,
    "inv_ex": torch.linalg.inv_ex,
    "det": torch.linalg.det,
    "slogdet": torch.linalg.slogdet,
    "lu": torch.linalg.lu,
    "lu_factor": torch.linalg.lu_factor,
    "lu_factor_ex": torch.linalg.lu_factor_ex,
    "ldl_factor": torch.linalg.ldl_factor,
    "cholesky": torch.linalg.cholesky,
    "cholesky_ex": torch.linalg.cholesky_ex,
    "solve": lambda a, out: torch.linalg.solve(a, a + 1, out=out),
    "solve_ex": lambda a, out: torch.linalg.solve_ex(a, a + 1, out=out),
    "matrix_power": lambda a, out: torch.linalg.matrix_power(a, 3, out=out),
    "sort": torch.sort,
    "max": lambda a, out: torch.max(a, 1, out=out),
    "topk": lambda a, out: torch.topk(a, 2, out=out),
    "median": lambda a, out: torch.median(a, 1, out=out),
    "cummax": lambda a, out: torch.cummax(a, 1, out=out),
    "aminmax": lambda a, out: torch.aminmax(a, dim=1, out=out),
    "frexp": torch.frexp,
    "geqrf": torch.geqrf,
    "add": lambda a, out: torch.add(a, a, out=out),
    "mm": lambda a, out: torch.mm(a, a, out=out),
    "cat": lambda a, out: torch.cat([a, a], out=out),
}


def outs(call: Callable[..., Any], kind: str, device: str) -> Outs:
    """As the call gives them, or otherwise."""
    given = call(matrix(), out=None)
    plain = given if isinstance(given, tuple) else (given,)
    made = []
    for one in plain:
        if kind == "empty":
            made.append(torch.empty(0, dtype=one.dtype, device=device))
        elif kind == "another":
            made.append(torch.zeros(3, 5, dtype=one.dtype, device=device))
        elif kind == "strided" and one.dim() > 0:
            wide = torch.zeros([2 * size for size in one.shape], dtype=one.dtype).to(device)
            made.append(wide[tuple(slice(None, None, 2) for _ in one.shape)])
        else:
            made.append(torch.zeros_like(one, device=device))
    return tuple(made)


@pytest.mark.parametrize("kind", ["right", "empty", "another", "strided"])
@pytest.mark.parametrize("name", CALLS)
def test_out_as_on_the_cpu(name: str, kind: str) -> None:
    call = CALLS[name]
    results = []
    for device in ("cpu", REMOTE):
        into = outs(call, kind, device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(matrix().to(device), out=into if len(into) > 1 else into[0])
        results.append(into)
    for local, remote in zip(*results, strict=True):
        assert local.shape == remote.shape
        assert_same(remote, local, 1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_into_results(training: bool) -> None:
    results = []
    torch.manual_seed(1)
    x, weight, bias = torch.randn(6, 3, 4), torch.rand(3), torch.rand(3)
    for device in ("cpu", REMOTE):
        mean, variance = torch.zeros(3, device=device), torch.ones(3, device=device)
        into = tuple(torch.empty(0, device=device) for _ in range(3))
        given = [tensor.to(device) for tensor in (x, weight, bias)]
        torch.ops.aten.native_batch_norm.out(
            *given,
            mean,
            variance,
            training,
            0.1,
            1e-5,
            out=into[0],
            save_mean=into[1],
            save_invstd=into[2],
        )
        # Evaluation saves nothing.
        results.append((*(into if training else into[:1]), mean, variance))
    for local, remote in zip(*results, strict=True):
        assert_same(remote, local, 1e-5)
