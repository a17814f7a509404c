"""``genie.capture()``: what a program would record, without running any of it."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as modules
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from . import _annotate, _inner
from ._classes import classify_copy, is_metadata, is_view
from ._indices import is_remote
from ._module_paths import paths_of
from ._trees import tensors

#: Operators of one capture; what comes after is counted, and not kept.
OPERATORS_MAX = 1 << 20

#: Is told of each operator, and says what else it is for.
Hook = Callable[["CapturedOperator"], Mapping[str, str] | None]


@dataclass(frozen=True)
class CapturedTensor:
    """A view of a value, as an operator takes or gives it.

    >>> with genie.capture() as captured:
    ...     y = torch.ones(2, 3, device="remote_accelerator:0").T + 1
    >>> captured.operators[-1].inputs[0]
    CapturedTensor(value=0, dtype='float32', shape=(3, 2), strides=(1, 3), offset=0)
    """

    #: Which value: a storage of its own.
    value: int
    dtype: str
    shape: tuple[int, ...]
    #: In elements, as the offset.
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class CapturedOperator:
    """An operator that would have been recorded.

    >>> with genie.capture() as captured:
    ...     y = torch.ones(2, 3, device="remote_accelerator:0") @ torch.ones(3, 2).to(
    ...         "remote_accelerator:0"
    ...     )
    >>> captured.operators[-1].name, captured.operators[-1].classes
    ('aten::mm', ('compute',))
    """

    #: With its overload, as the dispatcher has it: ``aten::add.Tensor``.
    name: str
    classes: tuple[str, ...]
    inputs: tuple[CapturedTensor, ...]
    outputs: tuple[CapturedTensor, ...]
    #: The values that it writes into.
    written: tuple[int, ...]
    #: Its other arguments, as text, by their names.
    arguments: dict[str, str]
    #: Of the innermost module whose forward it is in: ``Model.layers.0.norm``; empty in none.
    module: str
    #: The line of the program.
    site: str
    #: What ``genie.annotate`` and the hook say.
    annotations: dict[str, str] = field(default_factory=dict)


class Capture:
    """What was captured; see :func:`capture`.

    >>> with genie.capture() as captured:
    ...     y = torch.ones(2, device="remote_accelerator:0") * 2
    >>> len(captured), captured.dropped, captured.values()[0]
    (2, 0, 8)
    """

    def __init__(self) -> None:
        #: In the program's order.
        self.operators: list[CapturedOperator] = []
        #: Those beyond the first million.
        self.dropped = 0
        self._bytes: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.operators)

    def __iter__(self) -> Iterator[CapturedOperator]:
        return iter(self.operators)

    def values(self) -> dict[int, int]:
        """Give the bytes of each value, by its number.

        >>> with genie.capture() as captured:
        ...     y = torch.ones(3, device="remote_accelerator:0")
        >>> captured.values()
        {0: 12}
        """
        return dict(self._bytes)

    def json(self) -> str:
        """Write it all down: operators, values and their bytes.

        >>> with genie.capture() as captured:
        ...     y = torch.ones(2, device="remote_accelerator:0")
        >>> captured.json()[:40]
        '{"version": 1, "values": {"0": 8}, "oper'
        """
        operators = [dataclasses.asdict(one) for one in self.operators]
        return json.dumps(
            {
                "version": 1,
                "values": self._bytes,
                "operators": operators,
                "dropped": self.dropped,
            }
        )

    def __repr__(self) -> str:
        return f"<capture of {len(self)} operators on {len(self._bytes)} values>"


class capture:  # noqa: N801 (as torch.no_grad)
    """Note what a program records, and run none of it: a block, which gives a :class:`Capture`.

    Inside, tensors have shapes, dtypes and devices, and no elements: no node is asked, and none is
    needed. Tensors that were there before are taken as they are, and never written into; a module
    that is moved to a device, and gradients, are what they were when the block ends. What only
    elements decide (``.item()``, a branch, a shape that depends on data) raises PyTorch's
    ``DataDependentOutputException`` or ``DynamicOutputShapeException``. What was made inside is of
    no use outside.

    ``hook`` is told of each operator, and may give annotations to add, as strings by name. The path
    of modules, the line, and what :func:`annotate` says are noted without one.

    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU())
    >>> with genie.capture() as captured:
    ...     y = model.to("remote_accelerator:0")(torch.ones(2, 8, device="remote_accelerator:0"))
    >>> [(one.name, one.module) for one in captured][-2:]
    [('aten::addmm', 'Sequential.0'), ('aten::relu', 'Sequential.1')]
    """

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook
        self._entered: list[Any] = []

    def __enter__(self) -> Capture:
        import genie  # noqa: PLC0415

        genie._register()
        if self._entered:
            raise RuntimeError("this capture is under way: make another with genie.capture()")
        # Slow to import, and seldom needed.
        from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415

        found = Capture()
        paths, leaves = _Paths(), _Leaves()
        fakes = FakeTensorMode(allow_non_fake_inputs=True)
        mode = _Mode(found, paths, leaves, fakes, self._hook)
        for one in (_Conversions(), leaves, paths, fakes, mode):
            one.__enter__()
            self._entered.append(one)
        return found

    def __exit__(self, *exception: object) -> None:
        while self._entered:
            self._entered.pop().__exit__(*exception)


class _Paths:
    """Of the modules whose forwards run now: each by its path from the outermost one."""

    def __init__(self) -> None:
        self._owner = threading.get_ident()
        self._running: list[str] = []
        self._paths: dict[int, str] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        self._handles = [
            modules.register_module_forward_pre_hook(self._begin),
            modules.register_module_forward_hook(self._end, always_call=True),
        ]

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def here(self) -> str:
        return self._running[-1] if self._running else ""

    def _begin(self, module: nn.Module, _args: Any) -> None:
        # Other threads' forwards run as ever.
        if threading.get_ident() != self._owner:
            return
        if not self._running:
            self._paths = {id(one): name for name, one in paths_of(module)}
        # One that its parent does not know is named by its class.
        name = self._paths.get(id(module))
        if name is None:
            name = f"{self.here()}.{type(module).__name__}"
        self._running.append(name)

    def _end(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        if threading.get_ident() == self._owner and self._running:
            self._running.pop()


class _Conversions:
    """Modules that are moved or cast inside (``Module.to`` and its kin) get their own back."""

    def __init__(self) -> None:
        self._were: list[tuple[Any, dict[str, Any]]] = []
        self._known: Any = None

    def __enter__(self) -> None:
        known = self._known = nn.Module._apply
        were, owner = self._were, threading.get_ident()

        def _apply(module: nn.Module, change: Callable[..., Any], recurse: bool = True) -> Any:
            if threading.get_ident() != owner:
                return known(module, change, recurse)
            changed: dict[int, Any] = {}

            def once(tensor: Any, *, is_parameter: bool) -> Any:
                if tensor is not None and id(tensor) not in changed:
                    with torch.no_grad():
                        made = change(tensor)
                    if is_parameter:
                        made = nn.Parameter(made, tensor.requires_grad)
                    changed[id(tensor)] = (made, tensor)
                return tensor if tensor is None else changed[id(tensor)][0]

            for one in module.modules() if recurse else (module,):
                # Recurrent ones have their weights once more, in a list.
                flat = one.__dict__.get("_flat_weights")
                tables: list[Any] = [one._parameters, one._buffers]
                if flat:
                    tables.append(one.__dict__)
                were.extend((table, dict(table)) for table in tables)
                for table, is_parameter in ((tables[0], True), (tables[1], False)):
                    for name, tensor in table.items():
                        table[name] = once(tensor, is_parameter=is_parameter)
                if flat:
                    one.__dict__["_flat_weights"] = [
                        getattr(one, name, None) for name in one.__dict__["_flat_weights_names"]
                    ]
            return module

        nn.Module._apply = _apply  # type: ignore[method-assign]

    def __exit__(self, *exception: object) -> None:
        nn.Module._apply = self._known  # type: ignore[method-assign]
        while self._were:
            held, before = self._were.pop()
            held.update(before)


class _Leaves:
    """Tensors of before whose gradients an autograd of shapes would leave behind."""

    def __init__(self) -> None:
        self._grads: dict[int, tuple[torch.Tensor, torch.Tensor | None]] = {}

    def note(self, given: Iterable[torch.Tensor]) -> None:
        for tensor in given:
            if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self._grads:
                self._grads[id(tensor)] = (tensor, tensor.grad)

    def __enter__(self) -> None:
        """Nothing is there yet."""

    def __exit__(self, *exception: object) -> None:
        for tensor, grad in self._grads.values():
            tensor.grad = grad
        self._grads.clear()


class _Mode(TorchDispatchMode):
    """Notes each operator that has to do with a remote tensor."""

    def __init__(
        self, found: Capture, paths: _Paths, leaves: _Leaves, fakes: Any, hook: Hook | None
    ) -> None:
        super().__init__()
        self._fakes = fakes
        self._found = found
        self._paths = paths
        self._leaves = leaves
        self._hook = hook
        # Held, so that none is taken for a later one at its place.
        self._values: dict[int, tuple[int, Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self._leaves.note(tensors((args, kwargs)))
        # Of tensors that were there before, the shapes: an operator would run on them.
        args, kwargs = pytree.tree_map_only(torch.Tensor, self._fake, (args, kwargs))
        made = func(*args, **(kwargs or {}))
        given, gives = list(tensors((args, kwargs))), list(tensors(made))
        # A view is no operator of its own: those that use it say how they look at its value.
        is_call = not (is_view(func) or is_metadata(func))
        if is_call and any(map(_is_ours, (*given, *gives))):
            self._note(func, args, kwargs or {}, given, gives)
        return made

    def _fake(self, tensor: torch.Tensor) -> Any:
        is_fake = self._fakes.is_our_fake(tensor)
        return tensor if is_fake else self._fakes.from_tensor(tensor, static_shapes=True)

    def _note(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: list[torch.Tensor],
        gives: list[torch.Tensor],
    ) -> None:
        found = self._found
        inputs = tuple(self._tensor(one) for one in given if _is_ours(one))
        outputs = tuple(self._tensor(one) for one in gives if _is_ours(one))
        if len(found.operators) >= OPERATORS_MAX:
            found.dropped += 1
            return
        arguments = [
            (argument, value, list(tensors(value)))
            for argument, value in _arguments(func, args, kwargs)
        ]
        written = dict.fromkeys(
            self._tensor(tensor).value
            for argument, _, of in arguments
            if argument.alias_info is not None and argument.alias_info.is_write
            for tensor in of
        )
        said = _annotate.said_here()
        made = CapturedOperator(
            name=func.name(),
            classes=classify_copy(func, from_device=bool(inputs), to_device=bool(outputs)),
            inputs=inputs,
            outputs=outputs,
            written=tuple(written),
            arguments={
                argument.name: str(value)
                for argument, value, of in arguments
                if value is not None and not of
            },
            module=self._paths.here(),
            site=_site(),
            annotations={key: one.value for key, one in said.items()},
        )
        more = self._hook(made) if self._hook is not None else None
        if more:
            made.annotations.update(more)
        found.operators.append(made)

    def _tensor(self, tensor: torch.Tensor) -> CapturedTensor:
        storage = tensor.untyped_storage()
        known = self._values.get(storage._cdata)
        if known is None:
            known = (len(self._values), storage)
            self._values[storage._cdata] = known
            self._found._bytes[known[0]] = int(storage.nbytes())
        return CapturedTensor(
            value=known[0],
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(map(int, tensor.shape)),
            strides=tuple(map(int, tensor.stride())),
            offset=int(tensor.storage_offset()),
        )


def _is_ours(tensor: torch.Tensor) -> bool:
    return is_remote(tensor) and tensor.layout == torch.strided


def _arguments(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[Any, Any]]:
    for at, argument in enumerate(func._schema.arguments):
        if at < len(args) and not argument.kwarg_only:
            yield argument, args[at]
        elif argument.name in kwargs:
            yield argument, kwargs[argument.name]


def _site() -> str:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_inner.FOLDERS):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
