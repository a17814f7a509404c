"""Tensors in what a program hands over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

if TYPE_CHECKING:
    from collections.abc import Iterator


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a value."""
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))


def parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors with elements that a tensor of any layout is made of, its values first."""
    wrapper: Any = tensor
    if is_traceable_wrapper_subclass(wrapper):
        names, _context = wrapper.__tensor_flatten__()
        return tuple(part for name in names for part in parts(getattr(wrapper, name)))
    if tensor.is_nested:
        return (torch.ops.genie.elements(tensor),)
    match tensor.layout:
        case torch.sparse_coo:
            return tensor._values(), tensor._indices()
        case torch.sparse_csr | torch.sparse_bsr:
            return tensor.values(), tensor.crow_indices(), tensor.col_indices()
        case torch.sparse_csc | torch.sparse_bsc:
            return tensor.values(), tensor.ccol_indices(), tensor.row_indices()
    return (tensor,)
