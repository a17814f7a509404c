"""One sample of one operator, on the CPU and on the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from .compare import DEVICE, DifferenceError, check, to_device
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
        remote = to_device(arguments)
        try:
            torch.manual_seed(0)
            wanted = call(*tree_map(_clone, arguments))
        except Exception as error:
            raise NothingToCompare(str(error)) from error
        torch.manual_seed(0)
        got = call(*remote)
        # How gradients of gradients lie nobody goes by.
        check(got, wanted, values=values, strides=variant != "second")


def _is_free(operator: Any) -> bool:
    return any(word in name_of(operator) for word in _FREE)


def _clone(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.layout != torch.strided or leaf.is_quantized or leaf.is_nested:
        return leaf.detach().clone().requires_grad_(leaf.requires_grad)
    with torch.no_grad():
        bare = leaf.detach()
        whole = torch.empty(0, dtype=torch.uint8).set_(bare.untyped_storage()).clone()
        is_conj, is_neg = bare.is_conj(), bare.is_neg()
        bare = bare.conj() if is_conj else bare
        bare = torch._neg_view(bare) if is_neg else bare
        clone = torch.empty(0, dtype=bare.dtype).set_(
            whole.untyped_storage(), bare.storage_offset(), bare.size(), bare.stride()
        )
        clone = clone.conj() if is_conj else clone
        clone = torch._neg_view(clone) if is_neg else clone
    return clone.requires_grad_(leaf.requires_grad)


def _call(operator: Any, sample: Any, variant: str) -> Callable[[Any, Any, Any], Any]:
    match variant:
        case "inplace":
            inplace = operator.get_inplace()
            return lambda first, rest, options: inplace(first, *rest, **options)
        case "out":
            return lambda first, rest, options: _with_out(operator, first, rest, options)
        case "gradient":
            return lambda first, rest, options: _gradients(
                operator, sample, (first, rest, options), 1
            )
        case "second":
            return lambda first, rest, options: _gradients(
                operator, sample, (first, rest, options), 2
            )
    return lambda first, rest, options: operator.op(first, *rest, **options)


def _with_out(operator: Any, first: Any, rest: Any, options: Any) -> Any:
    """Into tensors of the right shape, and into ones without elements."""
    plain = operator.op(first, *rest, **options)
    given = []
    for shape in ("same", "none"):
        like = (
            torch.empty_like if shape == "same" else (lambda t: t.new_empty(0))  # type: ignore[misc]
        )
        out = tree_map(lambda t: like(t) if isinstance(t, torch.Tensor) else t, plain)  # noqa: B023
        out = tuple(out) if isinstance(out, tuple) else out
        operator.op(first, *rest, **options, out=out)
        given.append(out)
    if not any(leaf.device.type == DEVICE for leaf in tree_flatten(plain)[0]):
        # Some kernels leave what they are given unwritten, on the CPU.
        try:
            check(tree_flatten(given[0])[0], tree_flatten(plain)[0], strides=False)
        except DifferenceError as error:
            if not is_drawn(operator):
                raise NothingToCompare(str(error)) from error
    return given


def _gradients(operator: Any, sample: Any, arguments: Any, order: int) -> Any:
    first, rest, options = arguments
    leaves = [
        leaf
        for leaf in tree_flatten(arguments)[0]
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad
    ]
    results = operator.op(first, *rest, **options)
    process = sample.output_process_fn_grad
    if process is not None:
        results = process(results)
    outputs = [
        leaf
        for leaf in tree_flatten(results)[0]
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad
    ]
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


def _weighed(tensor: torch.Tensor) -> torch.Tensor:
    """A real number in which each element counts differently."""
    count = max(tensor.numel(), 1)
    weights = torch.linspace(0.5, 1.5, count, dtype=torch.float64)
    dtype = tensor.dtype if not tensor.dtype.is_complex else tensor.real.dtype
    weights = weights.to(dtype).reshape(tensor.shape).to(tensor.device)
    weighed = (tensor.real + tensor.imag if tensor.dtype.is_complex else tensor) * weights
    return weighed.sum()


__all__ = ["DifferenceError", "NothingToCompare", "attempt", "is_drawn"]
