"""What a graph calls of PyTorch: its operators, found by running it once on fake tensors.

PyTorch's profiling hook notes the outermost operators (``shim/replay/trace.cpp``): what Python's
functions call, above autocast, autograd and decompositions. Sizes are symbols where Dynamo has them
so, so a number that a call takes is an expression of the graph's inputs, and no guess.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch.utils import _pytree as pytree

from ._trees import tensors

if TYPE_CHECKING:
    pass


class NotNativeError(Exception):
    """It stays Python."""


@dataclass
class Call:
    """One operator call: its number in the trace, what it was called with and what it made.

    Of what it made, none stands for a tensor that nobody has any more.
    """

    number: int
    inputs: list[Any]
    outputs: list[torch.Tensor | None]


@dataclass(frozen=True)
class Wrapped:
    """A size that was made a tensor for a call, as Python's numbers are."""

    size: torch.SymInt


@dataclass
class Step:
    """A node of the graph, what it gave, and its calls; without them it stays Python."""

    node: fx.Node
    value: Any
    calls: list[Call] | None


def traced(module: fx.GraphModule) -> tuple[list[Step], Any]:
    """Run a graph on the tensors that Dynamo traced it with; the second is the native trace."""
    inputs = [n.meta.get("example_value") for n in module.graph.nodes if n.op == "placeholder"]
    # Dynamo has another mode for what comes after it; these are of the one that traced them.
    modes = {value.fake_mode for value in inputs if isinstance(value, torch._subclasses.FakeTensor)}
    if len(modes) != 1:
        raise NotNativeError
    mode = modes.pop()
    guards = mode.shape_env.guards if mode.shape_env is not None else []
    before = len(guards)
    trace = torch.classes.genie.Trace()
    tracing = _Tracing(module, trace)
    try:
        # Python's decompositions are the ones that keep sizes symbols.
        with torch.set_grad_enabled(torch.is_grad_enabled()), mode, enable_python_dispatcher():
            tracing.run(*inputs, enable_io_processing=False)
    except Exception as error:
        # What Dynamo could trace and this can't runs as Dynamo has it.
        raise NotNativeError from error
    if len(guards) != before:
        # It holds for fewer sizes than the program was traced for.
        raise NotNativeError
    return tracing.steps, trace


class _Tracing(fx.Interpreter):
    """Runs a graph on fake tensors and notes what each node calls."""

    def __init__(self, module: fx.GraphModule, trace: Any) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._trace = trace
        self._count = 0
        #: By identity, and kept alive, those of which it is known where they come from.
        self._known: dict[int, torch.Tensor] = {}
        self._symbols: set[Any] = set()
        self.steps: list[Step] = []

    def run_node(self, n: fx.Node) -> Any:
        self._trace.start()
        try:
            value = super().run_node(n)
        finally:
            self._trace.stop()
        found = self._trace.calls(self._count)
        first, self._count = self._count, self._count + len(found)
        calls = None
        if n.op in {"call_function", "call_method"}:
            with contextlib.suppress(NotNativeError):
                _check_made_by_operators(n, found)
                understood = self._understood(first, found)
                self._check_value(value)
                if understood or _is_pure(n):
                    calls = understood
        elif n.op == "placeholder" and isinstance(value, torch.SymInt):
            self._symbols.add(value.node.expr)
        self._known.update((id(one), one) for one in tensors(value))
        self.steps.append(Step(n, value, calls))
        return value

    def _understood(self, first: int, calls: list[Any]) -> list[Call]:
        found = []
        for number, (name, _overload, given, outputs) in enumerate(calls, first):
            if not name:
                raise NotNativeError
            if any(output is None for output in outputs):
                raise NotNativeError
            made = [tensor for output in outputs for tensor in output]
            inputs = [_number(value) if isinstance(value, tuple) else value for value in given]
            for value in inputs:
                self._check_input(value.size if isinstance(value, Wrapped) else value)
            self._known.update((id(one), one) for one in made if one is not None)
            found.append(Call(number, inputs, made))
        return found

    def _check_input(self, value: Any) -> None:
        """Refuse what no code stands for (``shim/replay/program.h``)."""
        leaves = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(leaf, (list, tuple, dict)) for leaf in leaves):
            raise NotNativeError
        has_tensors = any(isinstance(leaf, torch.Tensor) for leaf in leaves)
        has_symbols = any(isinstance(leaf, torch.SymInt) for leaf in leaves)
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                is_fine = id(leaf) in self._known
            elif isinstance(leaf, torch.SymInt):
                is_fine = not has_tensors and leaf.node.expr.free_symbols <= self._symbols
            elif isinstance(leaf, (torch.SymFloat, torch.SymBool)):
                is_fine = False
            else:
                is_fine = not (has_tensors or has_symbols) or (
                    leaf is None if has_tensors else type(leaf) is int
                )
            if not is_fine:
                raise NotNativeError

    def _check_value(self, value: Any) -> None:
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, torch.Tensor):
                if id(leaf) not in self._known:
                    raise NotNativeError
            elif isinstance(leaf, torch.SymInt):
                if not leaf.node.expr.free_symbols <= self._symbols:
                    raise NotNativeError
            elif type(leaf) not in {int, type(None)}:
                raise NotNativeError


def _check_made_by_operators(node: fx.Node, calls: list[Any]) -> None:
    """Refuse what Python fills with its data: ``torch.tensor`` and its kin."""
    is_empty = "empty" in getattr(node.target, "__name__", str(node.target))
    for name, *_ in calls:
        if name == "aten::lift_fresh" or (name.startswith("aten::empty") and not is_empty):
            raise NotNativeError


def _number(value: tuple[Any]) -> Wrapped | None:
    """A number that was made a tensor; none for one that is the same in every call."""
    (number,) = value
    if isinstance(number, torch.SymInt):
        return Wrapped(number)
    if type(number) not in {int, float, bool, complex}:
        raise NotNativeError
    return None


#: What asks a tensor for its shape, and changes nothing. Python gives a tensor that is contiguous
#: back by itself, without a call.
_QUESTIONS = {
    "contiguous",
    "size",
    "dim",
    "ndimension",
    "stride",
    "numel",
    "nelement",
    "storage_offset",
}


def _is_pure(node: fx.Node) -> bool:
    """Whether a node without a call only takes something apart, or computes sizes."""
    if node.op == "call_method":
        return node.target in _QUESTIONS
    module = getattr(node.target, "__module__", None)
    return module in {"_operator", "math"} or node.target in {getattr, torch.sym_max, torch.sym_min}
