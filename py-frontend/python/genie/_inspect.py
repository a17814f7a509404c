"""What this process knows of a remote tensor, and waiting for some to be computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

import genie

from . import _annotate, _places, _trees
from ._indices import is_remote

if TYPE_CHECKING:
    from ._annotate import Annotation

_Tree = TypeVar("_Tree")


@dataclass(frozen=True)
class Inspection:
    """What this process knows of a remote tensor. Finding out costs no message.

    >>> known = genie.inspect(torch.ones(2, 3, device="remote_accelerator:0"))
    >>> known.shape, known.stride, known.nbytes, known.state
    (torch.Size([2, 3]), (3, 1), 24, 'pending')
    """

    #: ``materialised`` if :func:`genie.materialize` has waited for it and nothing was written into
    #: it since; else ``pending``, though the node may long have computed it.
    state: str
    #: Where its elements are, and why: ``place.device.node`` is the address of their node.
    place: genie.Place
    dtype: torch.dtype
    #: Of a strided nested tensor -1 where what it is made of differs.
    shape: torch.Size
    #: In elements, as all strides; none where the layout has none.
    stride: tuple[int, ...]
    #: What its elements take, and the indices of a sparse one.
    nbytes: int
    #: What the memory takes that it shares with its views.
    storage_nbytes: int
    #: What :func:`genie.annotate` said of it, by key.
    annotations: dict[str, Annotation]


#: The versions of what was waited for.
_waited: Any = WeakTensorKeyDictionary()


def inspect(tensor: torch.Tensor) -> Inspection:
    """Tell what this process knows of a remote tensor, without asking a node.

    Raises :class:`TypeError` for another tensor, and :class:`StaleTensorError` for one of an
    earlier session.

    >>> genie.inspect(torch.ones(2, device="remote_accelerator:0")).place.device.name
    'host:0'
    """
    place = genie.where(tensor)
    version = _version(tensor)
    parts = _trees.parts(tensor)
    held = (part.untyped_storage() for part in parts)
    storages = {storage.data_ptr(): storage.nbytes() for storage in held}
    is_known = version is not None and _waited.get(tensor) == version
    return Inspection(
        state="materialised" if is_known else "pending",
        place=place,
        dtype=tensor.dtype,
        shape=_shape(tensor),
        stride=() if parts[0] is not tensor else tensor.stride(),
        nbytes=sum(part.numel() * part.element_size() for part in parts),
        storage_nbytes=sum(storages.values()),
        annotations=_annotate.of(tensor),
    )


def _shape(tensor: torch.Tensor) -> torch.Size:
    """The sizes; of a nested tensor without a shape -1 where its tensors differ."""
    if tensor.layout != torch.strided or not tensor.is_nested:
        return tensor.shape
    sizes = tensor._nested_tensor_size()
    rows: list[set[int]] = [set(column) for column in sizes.t().tolist()]
    return torch.Size([len(sizes), *(row.pop() if len(row) == 1 else -1 for row in rows)])


def materialize(tree: _Tree) -> _Tree:
    """Wait until the remote tensors of a tree are computed; give the tree back.

    The tree is a tensor, or lists, tuples and dictionaries of them. It takes one round trip however
    many there are, and none without a remote tensor. What failed on the way raises here.

    >>> x = torch.ones(2, device="remote_accelerator:0") + 1
    >>> genie.inspect(genie.materialize({"x": x})["x"]).state
    'materialised'
    """
    tensors = [leaf for leaf in pytree.tree_leaves(tree) if is_remote(leaf)]
    if not tensors:
        return tree
    versions = [_version(tensor) for tensor in tensors]
    for tensor in tensors:
        _places.find(tensor)
    genie.synchronize()
    for tensor, version in zip(tensors, versions, strict=True):
        _waited[tensor] = version
    return tree


def _version(tensor: torch.Tensor) -> int | None:
    """How often it was written into; tensors of inference mode don't count that."""
    return None if tensor.is_inference() else tensor._version
