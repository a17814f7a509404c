"""Which module made a tensor: hooks that annotate with module paths, as long as they are there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from . import _annotate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn
    from torch.utils.hooks import RemovableHandle


def paths_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name a model's modules, itself first: ``Model``, ``Model.layers.0``."""
    root = type(model).__name__
    for path, module in model.named_modules():
        yield f"{root}.{path}" if path else root, module


class ModulePaths:
    """The hooks on a model's modules; removed at the end of a ``with`` block, or by ``remove``."""

    def __init__(self, model: nn.Module, site: str) -> None:
        self._handles: list[RemovableHandle] = []
        for name, module in paths_of(model):
            enter, leave = _hooks(_annotate.Annotation(name, site, time.time()))
            self._handles += (
                module.register_forward_pre_hook(enter, prepend=True),
                # Also when a forward raises.
                module.register_forward_hook(leave, always_call=True),
            )

    def remove(self) -> None:
        """Take the hooks away. What was noted stays with its tensors."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> ModulePaths:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def module_paths(model: nn.Module) -> ModulePaths:
    """Note of each remote tensor that a forward of ``model`` makes in which module it was made.

    :func:`genie.inspect` shows it as the annotation ``module``: ``Model.layers.0.norm``. Without
    these hooks nothing is noted, and with them a forward takes the time of :func:`genie.annotate`
    for each operator. A graph of ``torch.compile`` has no modules any more, and is left alone.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2)).to("remote_accelerator:0")
    >>> with genie.module_paths(model):
    ...     y = model(torch.ones(1, 2, device="remote_accelerator:0"))
    >>> genie.inspect(y).annotations["module"].value
    'Sequential.0'
    """
    return ModulePaths(model, _annotate.site_of_caller())


def _hooks(annotation: _annotate.Annotation) -> tuple[Callable[..., None], Callable[..., None]]:
    """What begins and ends a module's forward. Forwards of one module may lie in one another."""
    said = {"module": annotation}

    def enter(_module: nn.Module, _args: Any) -> None:
        if not torch.compiler.is_compiling():
            _annotate.begin(said)

    def leave(_module: nn.Module, _args: Any, _result: Any) -> None:
        if not torch.compiler.is_compiling():
            _annotate.end(said)

    return enter, leave
