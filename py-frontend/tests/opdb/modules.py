"""PyTorch's database of modules: forward, backward, other layouts, saving."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from support import DEVICE
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from .attempt import NothingToCompare
from .compare import check, copied
from .database import internal

#: Of these two runs on one machine give other numbers while they train.
_DRAWN = ("Dropout", "RReLU", "FractionalMaxPool", "Transformer")

Found = dict[str, Any]


def modules() -> list[Any]:
    """All entries."""
    return list(internal("common_modules").module_db)


def name_of(entry: Any) -> str:
    return str(entry.name)


def inputs(entry: Any, dtype: torch.dtype, training: bool) -> Iterator[Any]:
    """What a module is made of and called with, on the CPU, the same in each run."""
    torch.manual_seed(0)
    yield from entry.module_inputs_func(
        entry, device="cpu", dtype=dtype, requires_grad=True, training=training
    )


def _made(entry: Any, given: Any, dtype: torch.dtype, training: bool) -> nn.Module:
    torch.manual_seed(1)
    module = entry.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs)
    return module.to(dtype).train(training)


def _call(module: nn.Module, arguments: Any) -> Found:
    args, kwargs = arguments
    torch.manual_seed(2)
    result = module(*args, **kwargs)
    outputs = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
    if any(one.requires_grad for one in outputs):
        sum((one * one.detach().cos()).sum() for one in outputs if one.requires_grad).backward()
    leaves = [one for one in tree_leaves(arguments) if isinstance(one, torch.Tensor)]
    return {
        "result": result,
        "inputs": [one.grad for one in leaves if one.requires_grad],
        "parameters": {name: one.grad for name, one in module.named_parameters()},
        "buffers": dict(module.named_buffers()),
    }


def parity(module: nn.Module, arguments: Any) -> tuple[Any, Any]:
    """Results, gradients and buffers."""
    there = copy.deepcopy(module).to(DEVICE), copied(arguments, DEVICE)
    return _call(*there), _call(module, copied(arguments, "cpu"))


def non_contiguous(module: nn.Module, arguments: Any) -> tuple[Any, Any]:
    """The same for inputs that lie otherwise."""

    def other(one: torch.Tensor) -> torch.Tensor:
        wide = one.detach().repeat_interleave(2, -1)[..., ::2] if one.dim() else one.detach()
        return wide.requires_grad_(one.requires_grad)

    return parity(module, tree_map_only(torch.Tensor, other, arguments))


def saved(module: nn.Module, arguments: Any) -> tuple[Any, Any]:
    """Saved there and loaded here, whole and as a dictionary."""
    there = copy.deepcopy(module).to(DEVICE)
    _call(there, copied(arguments, DEVICE))
    _call(module, copied(arguments, "cpu"))
    file = io.BytesIO()
    torch.save([there, there.state_dict()], file)
    file.seek(0)
    whole, state = torch.load(file, map_location="cpu", weights_only=False)
    wanted = dict(module.state_dict())
    return [dict(whole.state_dict()), dict(state)], [wanted, wanted]


WAYS: dict[str, Callable[[nn.Module, Any], tuple[Any, Any]]] = {
    "parity": parity,
    "non_contiguous": non_contiguous,
    "saved": saved,
}


def attempt(entry: Any, given: Any, dtype: torch.dtype, training: bool, way: str) -> None:
    """Do it on both and compare; raise what the device raises, or a DifferenceError."""
    forward = given.forward_input
    if entry.is_lazy or forward is None:
        raise NothingToCompare("it is made by its first call")
    module = _made(entry, given, dtype, training)
    arguments = [list(forward.args), dict(forward.kwargs)]
    try:
        _call(copy.deepcopy(module), copied(arguments, "cpu"))
    except Exception as error:
        raise NothingToCompare(str(error)) from error
    got, wanted = WAYS[way](module, arguments)
    drawn = training and any(word in name_of(entry) for word in _DRAWN)
    check(got, wanted, values=not drawn, strides=False)
