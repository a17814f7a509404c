"""A traced graph as native programs: operators called one after the other, without Python.

A node whose operators take only tensors of the graph, and numbers that its sizes decide, becomes
part of a program (``shim/replay/program.cpp``); any other stays Python, between two programs. A
program calls through the dispatcher, so autograd, autocast and random states are what they are for
Python. Where none of them has a part in it, and inputs are like those of an earlier run, it appends
that run's records without a call (``shim/replay/tape.cpp``).
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch import fx
from torch.utils._sympy.printers import PythonPrinter

from . import _compile_lines, _native
from ._replay_trace import Call, NotNativeError, Step, Wrapped, traced
from ._trees import tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: A program of fewer calls costs more than it saves.
CALLS_MIN = 4

# What stands for an argument (shim/replay/program.h).
_CONSTANT, _TENSOR, _LAST, _NUMBER, _TENSORS, _NUMBERS, _WRAPPED = range(7)
# What becomes of a result that is in no register of its own.
_NOT_USED, _SAME = -1, -2


@dataclass
class _Piece:
    """Steps that become one program."""

    steps: list[Step] = field(default_factory=list)
    inputs: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)

    def calls(self) -> Iterator[tuple[Step, Call]]:
        for step in self.steps:
            for call in step.calls or ():
                yield step, call

    def count(self) -> int:
        return sum(1 for _ in self.calls())


@dataclass
class Programs:
    """What became of a graph."""

    graph: fx.Graph
    #: Operator calls in each program.
    calls: list[int] = field(default_factory=list)
    #: The programs themselves (``shim/replay/program.h``).
    natives: list[Any] = field(default_factory=list)

    @property
    def taped(self) -> int:
        """How often a program appended the records of an earlier run, without its calls."""
        return sum(native.taped()[0] for native in self.natives)

    @property
    def python(self) -> list[str]:
        """What is still called by Python."""
        calls = [node for node in self.graph.nodes if node.op.startswith("call_")]
        calls = [node for node in calls if getattr(node.target, "__module__", "") != __name__]
        names = (getattr(node.target, "__name__", str(node.target)) for node in calls)
        # Taking a tensor out of a result is no call of the program's.
        return [name for name in names if name != "getitem"]


def with_programs(module: fx.GraphModule) -> Programs:
    """The graph with programs in place of what needs no Python; itself where there is none."""
    try:
        steps, trace = traced(module)
    except NotNativeError:
        return Programs(module.graph)
    parts = _parts(steps)
    pieces = [part for part in parts if isinstance(part, _Piece)]
    if not pieces:
        return Programs(module.graph)
    values = {step.node: step.value for step in steps}
    _connect(parts, values)
    rewriting = _Rewriting(values, trace)
    graph = rewriting.graph(parts)
    return Programs(graph, [piece.count() for piece in pieces], rewriting.natives)


def _parts(steps: list[Step]) -> list[_Piece | Step]:
    """What becomes programs, in order, and what stays; a graph's inputs come first."""
    inputs: list[_Piece | Step] = []
    parts: list[_Piece | Step] = []
    piece = _Piece()

    def close() -> None:
        nonlocal piece
        if piece.count() >= CALLS_MIN:
            parts.append(piece)
        else:
            for step in piece.steps:
                step.calls = None
            parts.extend(piece.steps)
        piece = _Piece()

    for step in steps:
        if step.calls is not None:
            piece.steps.append(step)
        elif step.node.op == "placeholder":
            inputs.append(step)
        elif step.node.op == "get_attr":
            # It may come before the steps that are waiting: it needs none of them.
            parts.append(step)
        else:
            close()
            parts.append(step)
    close()
    return inputs + parts


def _connect(parts: list[_Piece | Step], values: dict[fx.Node, Any]) -> None:
    """Find out what each program takes, and gives."""
    makers: dict[int, _Piece] = {}

    def use(value: Any) -> None:
        for tensor in tensors(value):
            maker = makers.get(id(tensor))
            if maker is not None and all(one is not tensor for one in maker.outputs):
                maker.outputs.append(tensor)

    for part in parts:
        if isinstance(part, Step):
            for node in part.node.all_input_nodes:
                use(values[node])
            continue
        taken: dict[int, torch.Tensor] = {}
        made: set[int] = set()
        for _, call in part.calls():
            taken.update((id(one), one) for one in tensors(call.inputs) if id(one) not in made)
            made.update(id(one) for one in tensors(call.outputs) if id(one) not in taken)
        part.inputs = list(taken.values())
        use(part.inputs)
        for one in made:
            makers.setdefault(one, part)


class _Rewriting:
    """Writes the new graph."""

    def __init__(self, values: dict[fx.Node, Any], trace: Any) -> None:
        self._values, self._trace = values, trace
        self._graph = fx.Graph()
        #: Where each tensor is in the new graph, and each node that stays Python.
        self._at: dict[int, fx.Node] = {}
        self._copies: dict[fx.Node, fx.Node] = {}
        self._symbols: dict[Any, fx.Node] = {}
        self.natives: list[Any] = []

    def graph(self, parts: list[_Piece | Step]) -> fx.Graph:
        for part in parts:
            if isinstance(part, _Piece):
                self._add_program(part)
            elif part.calls is None:
                self._copy(part)
        self._graph.lint()
        return self._graph

    def _copy(self, step: Step) -> None:
        node = self._graph.node_copy(step.node, self._node)
        self._copies[step.node] = node
        if step.node.op != "output":
            self._remember(step.value, node)
        if step.node.op == "placeholder" and isinstance(step.value, torch.SymInt):
            self._symbols.setdefault(step.value.node.expr, node)

    def _remember(self, value: Any, node: fx.Node) -> None:
        if isinstance(value, torch.Tensor):
            self._at.setdefault(id(value), node)
        elif isinstance(value, (list, tuple)):
            for i, one in enumerate(value):
                if next(tensors(one), None) is not None:
                    self._remember(one, self._graph.call_function(operator.getitem, (node, i)))

    def _node(self, node: fx.Node) -> Any:
        """What a node of the old graph is in the new one."""
        return self._copies.get(node) or self._said(self._values[node])

    def _said(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._at[id(value)]
        if isinstance(value, torch.SymInt):
            return self._graph.call_function(
                operator.getitem, (self._numbers([value.node.expr]), 0)
            )
        if isinstance(value, (list, tuple)):
            said = [self._said(one) for one in value]
            # A torch.Size has no place for what is computed.
            return said if isinstance(value, list) else tuple(said)
        return value

    def _numbers(self, expressions: list[Any]) -> fx.Node:
        compute = _function_of(expressions, list(self._symbols))
        return self._graph.call_function(compute, tuple(self._symbols.values()))

    def _add_program(self, piece: _Piece) -> None:
        writing = _Writing(piece)
        native = writing.program(self._trace)
        self.natives.append(native)
        run = native.run

        def program(inputs: list[torch.Tensor], numbers: list[int]) -> list[torch.Tensor]:
            made: list[torch.Tensor] = run(inputs, numbers)
            return made

        numbers: Any = self._numbers(list(writing.numbers)) if writing.numbers else []
        inputs = [self._at[id(tensor)] for tensor in piece.inputs]
        made = self._graph.call_function(program, (inputs, numbers))
        for i, tensor in enumerate(piece.outputs):
            self._at[id(tensor)] = self._graph.call_function(operator.getitem, (made, i))


def _function_of(expressions: list[Any], symbols: list[Any]) -> Callable[..., list[int]]:
    """What sizes come to, by the symbols that Dynamo made of a graph's inputs."""
    names = {symbol: f"s{i}" for i, symbol in enumerate(symbols)}
    renamed = {symbol: sympy.Symbol(name, integer=True) for symbol, name in names.items()}
    printer = PythonPrinter()
    texts = [printer.doprint(expression.xreplace(renamed)) for expression in expressions]
    source = f"def numbers({', '.join(names.values())}): return [{', '.join(texts)}]"
    made: dict[str, Any] = {"math": math, "torch": torch, "__name__": __name__}
    # Dynamo makes its guards of the same expressions, and compiles them in the same way.
    exec(source, made)  # noqa: S102
    function: Callable[..., list[int]] = made["numbers"]
    return function


class _Writing:
    """Writes a program."""

    def __init__(self, piece: _Piece) -> None:
        self._piece = piece
        self.numbers: dict[Any, int] = {}
        self._registers: dict[int, int] = {id(one): i for i, one in enumerate(piece.inputs)}
        #: The last call that takes a tensor; none for what outlives the program.
        self._last: dict[int, int | None] = {}
        for _, call in piece.calls():
            self._last.update((id(one), call.number) for one in tensors(call.inputs))
        self._last.update((id(one), None) for one in (*piece.inputs, *piece.outputs))

    def program(self, trace: Any) -> Any:
        program = torch.classes.genie.Program(len(self._piece.inputs))
        for step, call in self._piece.calls():
            codes: list[int] = []
            for i, value in enumerate(call.inputs):
                codes += self._code(value, call, call.inputs[i + 1 :])
            results = [self._result(tensor, call) for tensor in call.outputs]
            program.add(trace, call.number, codes, results, _site_of(step.node))
        program.finish([self._registers[id(tensor)] for tensor in self._piece.outputs])
        return program

    def _result(self, tensor: torch.Tensor | None, call: Call) -> int:
        if tensor is None:
            return _NOT_USED
        last = self._last.get(id(tensor), call.number)
        if id(tensor) not in self._registers:
            used = id(tensor) in self._last
            return (
                self._registers.setdefault(id(tensor), len(self._registers)) if used else _NOT_USED
            )
        # It is one of the arguments itself, as for an operator in place.
        return _NOT_USED if last == call.number else _SAME - self._registers[id(tensor)]

    def _is_last(self, tensor: torch.Tensor, call: Call, later: list[Any]) -> bool:
        return self._last[id(tensor)] == call.number and all(
            one is not tensor for one in tensors(later)
        )

    def _code(self, value: Any, call: Call, later: list[Any]) -> list[int]:
        if isinstance(value, torch.Tensor):
            code = _LAST if self._is_last(value, call, later) else _TENSOR
            return [code, self._registers[id(value)]]
        if isinstance(value, torch.SymInt):
            return [_NUMBER, self._number(value)]
        if isinstance(value, Wrapped):
            return [_WRAPPED, self._number(value.size)]
        if not isinstance(value, (list, tuple)):
            return [_CONSTANT]
        if any(isinstance(one, torch.Tensor) for one in value):
            items = []
            for i, one in enumerate(value):
                is_last = one is not None and self._is_last(one, call, [*value[i + 1 :], *later])
                items.append(-1 if one is None else self._registers[id(one)] * 2 + is_last)
            return [_TENSORS, len(items), *items]
        if any(isinstance(one, torch.SymInt) for one in value):
            return [_NUMBERS, len(value), *map(self._number, value)]
        return [_CONSTANT]

    def _number(self, value: int | torch.SymInt) -> int:
        expression = value.node.expr if isinstance(value, torch.SymInt) else sympy.Integer(value)
        return self.numbers.setdefault(expression, len(self.numbers))


def _site_of(node: fx.Node) -> int:
    found = _compile_lines.place_of(node)
    if found is None:
        return 0
    place, line = found
    return _native.site(place.file, line, place.name)
