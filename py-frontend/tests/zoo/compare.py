"""Whether what the device gives is what the CPU gives."""

from __future__ import annotations

from typing import Any

import torch
from support import DEVICE
from torch.utils import _pytree as pytree

#: In float32, of the largest magnitude.
TOLERANCE = 1e-5
#: Gradients and parameters are compared with the largest of all, as single ones may be nothing but
#: rounding (a key's bias has no gradient), and losses with the largest of the steps.
_TOGETHER = {"losses", "gradients", "parameters"}


class DiffersError(AssertionError):
    """The device gives something else."""


def largest_error(remote: Any, local: Any, tolerance: float, device: str = DEVICE) -> float:
    """The largest difference, over the largest magnitude; raises if it is more than rounding.

    Both are dictionaries of what was computed, by its kind.
    """
    if remote.keys() != local.keys():
        raise DiffersError(f"{list(remote)} instead of {list(local)}")
    found = 0.0
    for kind, expected in local.items():
        ours, theirs = _leaves(remote[kind]), _leaves(expected)
        if list(ours) != list(theirs):
            raise DiffersError(f"{kind}: {list(ours)} instead of {list(theirs)}")
        scale = max((_magnitude(leaf) for leaf in theirs.values()), default=0.0)
        if kind == "losses" and tolerance > TOLERANCE:
            # A small loss is a difference of logits, which are rounded as what they are.
            scale = max(scale, 1.0)
        for name, other in theirs.items():
            one = ours[name]
            where = f"{kind}{name}"
            if not torch.is_tensor(other):
                if one != other:
                    raise DiffersError(f"{where}: {one} instead of {other}")
                continue
            size = scale if kind in _TOGETHER else _magnitude(other)
            if one.device.type != device:
                raise DiffersError(f"{where} is on {one.device}")
            error = _difference(one, other, where) / (size or 1.0)
            if not error <= tolerance:
                raise DiffersError(f"{where}: {error:.1e} of the largest magnitude")
            found = max(found, error)
    return found


def _leaves(tree: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, leaf in pytree.tree_leaves_with_path(tree):
        where = pytree.keystr(path)
        if hasattr(leaf, "__dict__") and not torch.is_tensor(leaf):
            # A cache of keys and values, say.
            found |= {where + inner: part for inner, part in _leaves(vars(leaf)).items()}
        elif torch.is_tensor(leaf) or isinstance(leaf, bool | int | float | str):
            found[where] = leaf
    return found


def _magnitude(value: Any) -> float:
    if not torch.is_tensor(value) or not value.is_floating_point() or not value.numel():
        return 0.0
    return torch.nan_to_num(value.detach().float(), 0.0, 0.0, 0.0).abs().max().item()


def _difference(one: torch.Tensor, other: torch.Tensor, where: str) -> float:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        raise DiffersError(
            f"{where}: {one.dtype} {tuple(one.shape)} instead of {other.dtype} {tuple(other.shape)}"
        )
    one, other = one.detach().cpu(), other.detach()
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    if not one.is_floating_point():
        if not torch.equal(one, other):
            raise DiffersError(f"{where}: {_some(one)} instead of {_some(other)}")
        return 0.0
    one, other = one.double(), other.double()
    # Masked scores are infinite on both sides.
    same = (one == other) | (one.isnan() & other.isnan())
    return (
        (one - other).abs().masked_fill(same, 0.0).nan_to_num(float("inf")).amax().item()
        if (one.numel())
        else 0.0
    )


def _some(tensor: torch.Tensor) -> list[Any]:
    return tensor.flatten()[:24].tolist()
