"""What a program is going to look at, where a call of PyTorch's says so.

Who takes a state dictionary copies its tensors to the CPU, mostly, and one after the other; who
saves does. Their bytes are asked for together as soon as the program begins with the first one
(``dataplane/client/src/engine/ahead.rs``). Nothing is sent before that.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from . import _native
from ._indices import is_remote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_KINDS = {torch.Tensor, nn.Parameter, nn.Buffer}


def teach() -> None:
    """Have PyTorch tell of it."""
    _after_state_dict(nn.Module)
    _after_state_dict(torch.optim.Optimizer)
    _before_saving()


def _after_state_dict(owner: Any) -> None:
    known = owner.state_dict

    @functools.wraps(known)
    def state_dict(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = known(self, *args, **kwargs)
        # A module asks its children for their parts of one dictionary.
        if not args and kwargs.get("destination") is None:
            _expect(_of_dictionary(made))
        return made

    owner.state_dict = state_dict


def _before_saving() -> None:
    known = torch.save

    @functools.wraps(known)
    def save(obj: object, *args: Any, **kwargs: Any) -> None:
        _expect(_of_storages(obj))
        known(obj, *args, **kwargs)

    torch.save = save


def _expect(values: Iterable[tuple[int, int, int]]) -> None:
    # A transform's tensors have no memory of their own; nobody misses what is not asked for.
    with contextlib.suppress(RuntimeError):
        # A storage once, however many share it.
        found = list({value[0]: value for value in values}.values())
        if len(found) > 1:
            _native.expect(found)


def _of_dictionary(made: Any) -> Iterator[tuple[int, int, int]]:
    """The elements of each tensor, as far as they lie together."""
    for tensor in _tensors(made):
        if tensor.is_contiguous():
            at = int(tensor.storage_offset()) * tensor.element_size()
            yield tensor.untyped_storage().data_ptr(), at, tensor.nbytes


def _of_storages(obj: object) -> Iterator[tuple[int, int, int]]:
    """All of each storage, as it is saved."""
    modules = (leaf for leaf in pytree.tree_leaves(obj) if isinstance(leaf, nn.Module))
    inside = [[*module.parameters(), *module.buffers()] for module in modules]
    for tensor in _tensors([obj, inside]):
        storage = tensor.untyped_storage()
        yield storage.data_ptr(), 0, storage.nbytes()


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    for leaf in pytree.tree_leaves(tree):
        # What others make of tensors (of another class) they copy in their own way.
        if type(leaf) in _KINDS and is_remote(leaf) and leaf.layout is torch.strided:
            yield leaf
