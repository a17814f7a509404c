"""One sample of one operator, on the CPU and on the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from support import DEVICE
from torch.utils._pytree import tree_leaves, tree_map_only

from .compare import DifferenceError, check, copied
from .database import name_of

#: Operators whose values are drawn, or not defined: only dtypes, shapes and strides are compared.
_DRAWN = (
    "alpha_dropout", "bernoulli", "cauchy", "dropout", "empty", "exponential",
    "fractional_max_pool", "geometric", "log_normal", "multi_head_attention_forward",
    "multinomial", "new_empty", "normal", "pca_lowrank", "rand", "rrelu",
    "scaled_dot_product_attention", "svd_lowrank", "uniform",
)  # fmt: skip
#: Operators whose decompositions are not unique: a vector and its opposite are both right.
_FREE = ("eig", "eigh", "svd", "qr", "geqrf", "householder", "lobpcg")


class NothingToCompare(Exception):  # noqa: N818
    """The CPU can't do it either."""


def tried(
    every: Iterable[tuple[Any, ...]],
    attempt: Callable[..., None],
    name: Callable[..., str],
) -> tuple[list[str], int]:
    """Try all: a line for each that fails, and how many there were to compare."""
    failures, compared = [], 0
    for one in every:
        try:
            attempt(*one)
        except NothingToCompare:
            continue
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            failures.append(f"{name(*one)}: {type(error).__name__}: {text}")
            # The session lives.
            torch.ones(1, device=DEVICE).item()
        compared += 1
    return failures, compared


def is_drawn(operator: Any) -> bool:
    """Whether two runs on one machine give different numbers."""
    name = str(operator.name).removeprefix("nn.functional.").removeprefix("torch.")
    return any(name.startswith(word) or f"_{word}" in name for word in _DRAWN)


def attempt(operator: Any, sample: Any, variant: str) -> None:
    """Run it on both and compare; raise what the device raises, or a DifferenceError."""
    call = _call(operator, sample, variant)
    values = not is_drawn(operator) and not (variant == "out" and _is_free(operator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = (sample.input, sample.args, sample.kwargs)
        remote = copied(arguments, DEVICE)
        try:
            torch.manual_seed(0)
            wanted = call(*copied(arguments, "cpu"))
        except Exception as error:
            raise NothingToCompare(str(error)) from error
        torch.manual_seed(0)
        got = call(*remote)
        # How gradients of gradients lie nobody goes by.
        check(got, wanted, values=values, strides=variant != "second")


def _is_free(operator: Any) -> bool:
    return any(word in name_of(operator) for word in _FREE)


def _call(operator: Any, sample: Any, variant: str) -> Callable[[Any, Any, Any], Any]:
    match variant:
        case "inplace":
            inplace = operator.get_inplace()
            return lambda first, rest, options: inplace(first, *rest, **options)
        case "out":
            return lambda first, rest, options: _with_out(operator, first, rest, options)
        case "gradient" | "second":
            order = 1 if variant == "gradient" else 2
            return lambda *arguments: _gradients(operator, sample, arguments, order)
    return lambda first, rest, options: operator.op(first, *rest, **options)


def _with_out(operator: Any, first: Any, rest: Any, options: Any) -> Any:
    """Into tensors of the right shape, and into ones without elements."""
    plain = operator.op(first, *rest, **options)
    makers: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        torch.empty_like,
        lambda result: result.new_empty(0),
    )
    given = []
    for maker in makers:
        out = tree_map_only(torch.Tensor, maker, plain)
        operator.op(first, *rest, **options, out=tuple(out) if isinstance(out, tuple) else out)
        given.append(out)
    if not any(leaf.device.type == DEVICE for leaf in tree_leaves(plain)):
        # Some kernels leave what they are given unwritten, on the CPU.
        try:
            check(given[0], plain, strides=False)
        except DifferenceError as error:
            if not is_drawn(operator):
                raise NothingToCompare(str(error)) from error
    return given


def _gradients(operator: Any, sample: Any, arguments: Any, order: int) -> Any:
    first, rest, options = arguments
    leaves = _differentiable(arguments)
    results = operator.op(first, *rest, **options)
    process = sample.output_process_fn_grad
    if process is not None:
        results = process(results)
    outputs = _differentiable(results)
    if not outputs or not leaves:
        raise NothingToCompare("nothing needs a gradient")
    total = sum(_weighed(output) for output in outputs)
    found = torch.autograd.grad(total, leaves, create_graph=order == 2, allow_unused=True)
    if order == 1:
        return found
    total = sum(_weighed(one) for one in found if one is not None and one.requires_grad)
    if not isinstance(total, torch.Tensor):
        raise NothingToCompare("no second gradient")
    return torch.autograd.grad(total, leaves, allow_unused=True)


def _differentiable(tree: Any) -> list[torch.Tensor]:
    tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))
    return [tensor for tensor in tensors if tensor.requires_grad]


def _weighed(tensor: torch.Tensor) -> torch.Tensor:
    """A real number in which each element counts differently."""
    count = max(tensor.numel(), 1)
    weights = torch.linspace(0.5, 1.5, count, dtype=torch.float64)
    dtype = tensor.dtype if not tensor.dtype.is_complex else tensor.real.dtype
    weights = weights.to(dtype).reshape(tensor.shape).to(tensor.device)
    weighed = (tensor.real + tensor.imag if tensor.dtype.is_complex else tensor) * weights
    return weighed.sum()
