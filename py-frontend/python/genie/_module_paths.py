"""Which module made a tensor: calls of modules say so, as long as somebody wants to know."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from . import _annotate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._native import Annotating


def paths_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name a model's modules, itself first: ``Model``, ``Model.layers.0``."""
    root = type(model).__name__
    for path, module in model.named_modules():
        yield f"{root}.{path}" if path else root, module


#: Calls that are kept.
CALLS_MAX = 1 << 20


class ModuleCall(NamedTuple):
    """A call of a module, as a profile has it: in seconds since its start.

    >>> model = torch.nn.Linear(2, 2).to("remote_accelerator:0")
    >>> with genie.profile() as profile:
    ...     y = model(torch.ones(1, 2, device="remote_accelerator:0"))
    >>> [call.module for call in profile.calls]
    ['Linear']
    """

    module: str
    #: As ``threading.get_native_id()``.
    thread: int
    began: float
    ended: float


class _Path:
    """A module, and what its calls say."""

    def __init__(self, module: nn.Module, name: str, site: str) -> None:
        # Another may come to be at the place of one that is gone.
        self.module = weakref.ref(module)
        self.name = name
        self._said = {"module": _annotate.Annotation(name, site, time.time())}
        self._last: tuple[Annotating | None, Annotating] = (None, self._saying(None))

    def inside(self, outside: Annotating | None) -> Annotating:
        """What is said inside, if that is said outside. Mostly it is what was said there last."""
        last, inside = self._last
        if last is not outside:
            inside = self._saying(outside)
            self._last = outside, inside
        return inside

    def _saying(self, outside: Annotating | None) -> Annotating:
        return _annotate.saying(self._said, outside)


class ModulePaths:
    """What notes the paths of modules: until the end of a ``with`` block, or ``remove``.

    ``model`` is the one whose are noted; ``None``: all that are called, each by the outermost one's
    class. ``calls`` gets when each call began and ended, in nanoseconds.
    """

    def __init__(
        self, model: nn.Module | None, site: str, calls: list[ModuleCall] | None = None
    ) -> None:
        self._site = site
        self._calls = calls
        self._takes_all = model is None
        self._paths: dict[int, _Path] = {}
        if model is not None:
            self._add(model)
        # Hooks of PyTorch's would do, and take a call five times as long.
        self._known = nn.Module.__call__
        self._ours = self._call(self._known)
        nn.Module.__call__ = self._ours  # type: ignore[method-assign]

    def remove(self) -> None:
        """Note them no more. What was noted stays with its tensors."""
        if nn.Module.__call__ is self._ours:
            nn.Module.__call__ = self._known  # type: ignore[method-assign]
        # Otherwise somebody has put theirs before ours, which now does nothing.
        self._takes_all = False
        self._paths.clear()

    def _add(self, model: nn.Module) -> None:
        for name, module in paths_of(model):
            self._paths[id(module)] = _Path(module, name, self._site)

    def _find(self, module: nn.Module) -> _Path | None:
        """Name a module that is not known by now."""
        if not self._takes_all:
            return None
        around = _annotate.said_here().get("module")
        if around is None:
            self._add(module)
        else:
            # One that its parent does not know is named by its class.
            name = f"{around.value}.{type(module).__name__}"
            self._paths[id(module)] = _Path(module, name, self._site)
        return self._paths[id(module)]

    def _call(self, known: Callable[..., Any]) -> Callable[..., Any]:
        current, known_path, find = _annotate.current, self._paths.get, self._find
        is_compiling, calls = torch.compiler.is_compiling, self._calls

        @functools.wraps(known)
        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path = known_path(id(module))
            if path is None or path.module() is not module:
                path = find(module)
            if path is None or is_compiling():
                return known(module, *args, **kwargs)
            outside = current.get()
            current.set(path.inside(outside))
            began = 0 if calls is None else time.perf_counter_ns()
            try:
                return known(module, *args, **kwargs)
            finally:
                current.set(outside)
                if calls is not None and len(calls) < CALLS_MAX:
                    ended, thread = time.perf_counter_ns(), threading.get_native_id()
                    calls.append(ModuleCall(path.name, thread, began, ended))

        return call

    def __enter__(self) -> ModulePaths:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


def module_paths(model: nn.Module) -> ModulePaths:
    """Note of each remote tensor that a forward of ``model`` makes in which module it was made.

    :func:`genie.inspect` shows it as the annotation ``module``: ``Model.layers.0.norm``. It takes
    some microseconds for each call of a module, and nothing when it has ended. A graph of
    ``torch.compile`` has no modules any more, and is left alone.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2)).to("remote_accelerator:0")
    >>> with genie.module_paths(model):
    ...     y = model(torch.ones(1, 2, device="remote_accelerator:0"))
    >>> genie.inspect(y).annotations["module"].value
    'Sequential.0'
    """
    return ModulePaths(model, _annotate.site_of_caller())
