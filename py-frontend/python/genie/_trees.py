"""Tensors in what a program hands over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Iterator


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a value."""
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor))
