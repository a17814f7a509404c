"""What a program says its tensors are for: ``with genie.annotate(phase="prefill")``.

Outside of such blocks nothing here runs. Inside of one the backend asks, for each tensor that it
makes, what the running task has said (a context variable), and keeps the number of that beside the
tensor (shim/annotations.h, src/annotations.rs).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from . import _native
from ._indices import DEVICE_NAME
from ._trees import parts

#: What a key may say, where there is a list: the phases and modalities of the SRG.
KNOWN: dict[str, tuple[str, ...]] = {
    "phase": (
        "prefill", "decode", "forward", "backward", "optimizer", "embedding", "encode", "fusion",
        "initialization", "sampling", "vision_encode", "vision_decode",
    ),
    "modality": ("text", "vision", "audio", "video", "tabular", "graph", "multimodal"),
}  # fmt: skip

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Annotation:
    """What was said of a tensor, by whom and when.

    >>> with genie.annotate(phase="decode"):
    ...     made = torch.ones(2, device="remote_accelerator:0")
    >>> genie.inspect(made).annotations["phase"].value
    'decode'
    """

    value: str
    #: The line of the program whose block says so.
    site: str
    #: When the block began, in seconds since the epoch.
    time: float


Annotations = Mapping[str, Annotation]


@dataclass(frozen=True)
class _Said:
    """What a task says, by all blocks that it is in, and what it said before the last of them."""

    all: Annotations
    before: _native.Annotating | None


#: Read by the backend for each tensor that it makes, as long as anything was said.
current: ContextVar[_native.Annotating | None] = ContextVar("genie_annotations", default=None)
_native.annotate_by(current)


def of(tensor: torch.Tensor) -> dict[str, Annotation]:
    """What was said of a tensor, or of its values."""
    # A view made here would be nobody's: the backend looks for the values where they lie.
    whole: Any = tensor
    elements = parts(tensor)[0] if is_traceable_wrapper_subclass(whole) else tensor
    return dict(_native.annotation(torch.ops.genie.annotation(elements)) or {})


def said_here() -> Annotations:
    """What the running task says."""
    annotating = current.get()
    said: Annotations = annotating.said.all if annotating else {}
    return said


def saying(added: Annotations, before: _native.Annotating | None) -> _native.Annotating:
    """Say this, and what was said before."""
    said = {**before.said.all, **added} if before else added
    return _native.Annotating(_Said(said, before), said)


def begin(added: Annotations) -> None:
    """Say this, too, of what this task makes from here on."""
    current.set(saying(added, current.get()))


def end() -> None:
    """Take back what was said last."""
    annotating = current.get()
    # A block that ends in another context than it began in (a test's fixture) said nothing here.
    current.set(annotating.said.before if annotating else None)


class annotate(contextlib.ContextDecorator):  # noqa: N801 (as torch.no_grad)
    """Say what the remote tensors are for that are made inside: as a block, or of a function.

    ``phase`` and ``modality`` are of the lists in ``KNOWN``; ``role`` and any other name is a
    string of the program's own. Blocks in one another merge, and the inner one decides.
    :func:`genie.inspect` shows what was said. It stays in this process: the node is not told.

    It counts for the task or thread that enters it. Gradients are made by a thread of autograd's
    own, and are not annotated; nor is a strided nested tensor that is made of a list. It costs a
    tenth of a microsecond for each tensor that is made inside.

    >>> with genie.annotate(phase="prefill", role="encoder"):
    ...     x = torch.ones(2, 2, device="remote_accelerator:0") * 3
    >>> sorted(genie.inspect(x).annotations)
    ['phase', 'role']
    """

    def __init__(
        self,
        *,
        phase: str | None = None,
        role: str | None = None,
        modality: str | None = None,
        **more: str,
    ) -> None:
        given = {"phase": phase, "role": role, "modality": modality, **more}
        self._values = {key: value for key, value in given.items() if value is not None}
        if not self._values:
            raise ValueError('nothing to annotate with: say phase="prefill" or the like')
        for key, value in self._values.items():
            _check(key, value)
        self._site = ""

    def __enter__(self) -> annotate:
        site, now = self._site or site_of_caller(), time.time()
        begin({key: Annotation(value, site, now) for key, value in self._values.items()})
        return self

    def __exit__(self, *exception: object) -> None:
        end()

    def __call__(self, function: _Function) -> _Function:
        """Annotate what each call of a function makes."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a generator's caller runs between its parts: use a block inside of it")
        code = inspect.unwrap(function).__code__ if hasattr(function, "__code__") else None
        site = f"{code.co_filename}:{code.co_firstlineno}" if code else site_of_caller()

        def block() -> annotate:
            made = annotate(**self._values)
            made._site = site
            return made

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def inside(*args: Any, **kwargs: Any) -> Any:
                with block():
                    return await function(*args, **kwargs)
        else:

            @functools.wraps(function)
            def inside(*args: Any, **kwargs: Any) -> Any:
                with block():
                    return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


def hook_overhead(operators: int = 2000) -> float:
    """Measure what an operator takes longer inside of :func:`annotate`, in seconds.

    It records additions of small tensors, and needs a session. Outside of such blocks, and without
    :func:`genie.module_paths`, there is no hook, and it is 0.

    >>> 0 <= genie.hook_overhead(200) < 0.01
    True
    """
    x = torch.ones(2, 2, device=DEVICE_NAME)

    def seconds() -> float:
        torch.ops.genie.synchronize()
        start = time.perf_counter()
        for _ in range(operators):
            x + x
        return time.perf_counter() - start

    taken = []
    for _ in range(3):
        without = seconds()
        with annotate(role="overhead"):
            taken.append(seconds() - without)
    return max(0.0, sorted(taken)[1] / operators)


def _check(key: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"an annotation is a string: {key} is a {type(value).__name__}")
    allowed = KNOWN.get(key)
    if allowed is not None and value not in allowed:
        raise ValueError(f"{key} is one of {', '.join(allowed)}, and not {value!r}")


def site_of_caller() -> str:
    """The line of the program that calls this one's caller."""
    frame = sys._getframe(2)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
