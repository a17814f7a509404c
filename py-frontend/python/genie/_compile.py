"""``torch.compile(backend="genie")``: a graph that Dynamo traced, as native programs.

Dynamo's guards decide whether a graph fits a call; what it can't trace stays Python between graphs.
A graph then makes the calls that the program made, with the same arguments in the same order: what
is recorded, autograd's part of it too, is what eager capture records. Saved is the Python around
them (``_replay.py``); what needs it is one function without branches. Lowering the calls to ATen
operators first (``aot_autograd``) would record others than eager capture does.
"""

from __future__ import annotations

import functools
import types
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

from . import _compile_lines
from ._indices import DEVICE_NAME, is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

    from torch import fx

BACKEND = "genie"


class Plan:
    """A graph as a function of its inputs, parameters among them."""

    def __init__(self, module: fx.GraphModule) -> None:
        # Dynamo has imported what it needs: not everybody who imports genie compiles.
        from . import _replay  # noqa: PLC0415

        _shorten(module.graph)
        self.programs = _replay.with_programs(module)
        function = _compile_lines.function_of(self.programs.graph)
        self.function: Callable[..., Any] = types.MethodType(function, module)


def run(plan: Plan, inputs: Sequence[Any]) -> Any:
    """Record a plan's operators for these inputs."""
    return plan.function(*inputs)


def compile_graph(module: fx.GraphModule, example_inputs: list[Any], **_options: Any) -> Any:
    """Make of a graph what Dynamo calls in its place. On any device: it chooses none."""
    plan = Plan(module)

    def call(*inputs: Any) -> Any:
        return run(plan, inputs)

    return call


# ---- what a graph need not do again at each call ------------------------------------------------


def _shorten(graph: fx.Graph) -> None:
    """Leave out what PyTorch's Python functions find out at each call, and a graph knows."""
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is functional.dropout and not _argument(node, 2, "training", True):
            # It gives its input itself. That `p` is a probability was seen when it was traced.
            node.replace_all_uses_with(_argument(node, 0, "input", None))
            graph.erase_node(node)
        elif node.target is functional.layer_norm:
            node.target = torch.layer_norm


def _argument(node: fx.Node, at: int, name: str, default: Any) -> Any:
    return node.args[at] if len(node.args) > at else node.kwargs.get(name, default)


# ---- Dynamo and inductor, taught when they are imported -----------------------------------------


def teach_registry(module: ModuleType) -> None:
    """Name the backend, for a process where no entry point does."""
    if BACKEND not in module._COMPILER_FNS:
        module.register_backend(compile_graph, name=BACKEND)


def teach_rules(module: ModuleType) -> None:
    """Have this package's Python run between graphs: what it does for a call is in no graph."""
    module.add(__package__)


def teach_inductor(module: ModuleType) -> None:
    """Run graphs of remote tensors, for which inductor has no code to generate, as Genie's."""
    known = module.compile_fx

    @functools.wraps(known)
    def compile_fx(model_: Any, example_inputs_: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_remote(model_, example_inputs_):
            return known(model_, example_inputs_, *args, **kwargs)
        _say_once()
        return compile_graph(model_, example_inputs_)

    module.compile_fx = compile_fx  # type: ignore[attr-defined]


@functools.cache
def _say_once() -> None:
    warnings.warn(
        f"torch.compile: inductor generates no code for {DEVICE_NAME}; what has tensors there runs "
        'as with torch.compile(backend="genie"), which says so without this warning',
        stacklevel=2,
    )


def _is_remote(module: Any, inputs: Iterable[Any]) -> bool:
    """Whether a graph takes or makes a remote tensor."""
    nodes = module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ()
    values = [*inputs, *(node.meta.get("example_value") for node in nodes)]
    return any(is_remote(leaf) for leaf in pytree.tree_leaves(values))
