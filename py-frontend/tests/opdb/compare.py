"""Whether what a device gives is what the CPU gives: values, dtypes, shapes and strides."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

_TOLERANCES = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 2e-5,
    torch.complex64: 2e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}


class DifferenceError(AssertionError):
    """What a device gives is not what the CPU gives."""


def copied(tree: Any, device: str) -> Any:
    """The same, with its tensors and devices on a device; leaves of a graph stay leaves."""

    def copy(leaf: Any) -> Any:
        if isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf == "cpu"):
            return torch.device(device)
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return _laid_out(leaf.detach(), device).requires_grad_(leaf.requires_grad)

    return tree_map(copy, tree)


def _laid_out(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """A copy with the strides, the offset and the overlaps of `tensor`."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return tensor.to(device, copy=True)
    if tensor.is_conj():
        return _laid_out(tensor.conj(), device).conj()
    if tensor.is_neg():
        return torch._neg_view(_laid_out(torch._neg_view(tensor), device))
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    whole = tensor.as_strided((count,), (1,), 0).to(device, copy=True)
    return whole.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def check(got: Any, wanted: Any, *, values: bool = True, strides: bool = True) -> None:
    """Raise :class:`DifferenceError` at the first difference."""
    got_leaves, got_tree = tree_flatten(got)
    wanted_leaves, wanted_tree = tree_flatten(wanted)
    if got_tree != wanted_tree:
        raise DifferenceError(f"{got_tree} instead of {wanted_tree}")
    for number, (one, other) in enumerate(zip(got_leaves, wanted_leaves, strict=True)):
        try:
            _check_leaf(one, other, values=values, strides=strides)
        except DifferenceError as error:
            raise DifferenceError(f"result {number}: {error}") from None


def _check_leaf(got: Any, wanted: Any, *, values: bool, strides: bool) -> None:
    if not isinstance(wanted, torch.Tensor):
        if values and type(got) is not type(wanted):
            raise DifferenceError(f"a {type(got).__name__}, not a {type(wanted).__name__}")
        if values and got != wanted and got == got:
            raise DifferenceError(f"{got!r} instead of {wanted!r}")
        return
    if not isinstance(got, torch.Tensor):
        raise DifferenceError(f"{got!r} instead of a tensor")
    for what in ("dtype", "layout", "shape"):
        if getattr(got, what) != getattr(wanted, what):
            raise DifferenceError(f"{what} {getattr(got, what)}, not {getattr(wanted, what)}")
    if strides and wanted.layout == torch.strided and not wanted.is_nested:
        _check_strides(got, wanted)
    if values:
        _check_values(_dense(got), _dense(wanted))


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def _check_strides(got: torch.Tensor, wanted: torch.Tensor) -> None:
    # Of a dimension of one element, and of a tensor without elements, they mean nothing.
    if wanted.numel() == 0:
        return
    for size, one, other in zip(wanted.shape, got.stride(), wanted.stride(), strict=True):
        if size > 1 and one != other:
            raise DifferenceError(
                f"strides {got.stride()}, not {wanted.stride()}, of {tuple(wanted.shape)}"
            )


def _check_values(got: torch.Tensor, wanted: torch.Tensor) -> None:
    tolerance = _TOLERANCES.get(wanted.dtype, 0.0)
    try:
        torch.testing.assert_close(
            got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True, check_stride=False
        )
    except AssertionError as error:
        text = " ".join(str(error).split())
        raise DifferenceError(text[:200]) from None
