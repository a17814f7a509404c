"""A traced graph as a Python function whose lines are the user's, for errors to name them.

The statements of one place in the program become an inner function with that file and name. They
are short for another reason, too: to find the line of an operator, Python reads the table of its
function from the start, and in a function of a thousand lines that takes longer than the operator.
"""

from __future__ import annotations

import ast
import re
import types
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import _inner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import fx

_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_STATEMENTS_MAX = 16


@dataclass(frozen=True)
class _Place:
    file: str
    name: str


@dataclass
class _Part:
    """Statements of one place; without one they stay where they are."""

    place: _Place | None
    lines: int = 0
    body: list[ast.stmt] = field(default_factory=list)


def function_of(graph: fx.Graph) -> Callable[..., Any]:
    """Compile a graph: a function of the module that it is of, and its inputs."""
    code = graph.python_code("self")
    tree = ast.parse(code.src)
    parts = _split(tree, graph)
    names: dict[str, Any] = dict(code.globals)
    # It is the code that fx makes of a graph, and runs itself in the same way.
    exec(compile(tree, "<genie>", "exec"), names)  # noqa: S102
    function: types.FunctionType = names["forward"]
    function.__code__ = _moved(function.__code__, parts)
    return function


# ---- which statement is whose -------------------------------------------------------------------


def _split(tree: ast.Module, graph: fx.Graph) -> dict[str, _Place]:
    """Put the statements of each place into a function of their own; give those by name."""
    function = next(one for one in tree.body if isinstance(one, ast.FunctionDef))
    parts = _parts(function.body, _frames(graph))
    inside = [_names(part.body) for part in parts]
    arguments = {one.arg for one in function.args.args}
    places = {}
    body: list[ast.stmt] = []
    # What is not one part's alone is a variable of the function around them.
    shared: set[str] = set()
    for at, part in enumerate(parts):
        if part.place is None:
            body += part.body
            continue
        others = arguments.union(*inside[:at], *inside[at + 1 :])
        stored = _names(part.body, ast.Store) & others
        shared |= stored
        name = f"_part_{at}"
        places[name] = part.place
        said: list[ast.stmt] = [ast.Nonlocal(sorted(stored))] if stored else []
        body += ast.parse(f"def {name}(): pass\n{name}()").body
        made = body[-2]
        assert isinstance(made, ast.FunctionDef)
        made.body = [*said, *part.body]
    if shared - arguments:
        body[:0] = ast.parse(" = ".join([*sorted(shared - arguments), "None"])).body
    function.body = body
    ast.fix_missing_locations(tree)
    return places


def _frames(graph: fx.Graph) -> dict[str, tuple[_Place, int]]:
    """The innermost line of the user's that made each node that is a call."""
    calls = (node for node in graph.nodes if node.op.startswith("call_"))
    found = ((node.name, place_of(node)) for node in calls)
    return {name: place for name, place in found if place is not None}


def place_of(node: fx.Node) -> tuple[_Place, int] | None:
    """The innermost line of the user's that made a node."""
    for file, line, name in reversed(_FRAME.findall(node.stack_trace or "")):
        if not file.startswith(_inner.FOLDERS):
            return _Place(file, name), int(line)
    return None


def _parts(body: list[ast.stmt], frames: dict[str, tuple[_Place, int]]) -> list[_Part]:
    """Group statements: what stands in one generated line belongs together."""
    lines: dict[int, list[ast.stmt]] = {}
    for statement in body:
        lines.setdefault(statement.lineno, []).append(statement)
    parts = [_Part(None)]
    for together in lines.values():
        # `x = None` frees what another line made.
        made = _names([one for one in together if not _is_none(one)], ast.Store)
        place, number = next((frames[name] for name in made if name in frames), (None, 0))
        if place != parts[-1].place or parts[-1].lines >= _STATEMENTS_MAX:
            parts.append(_Part(place))
        if place is not None:
            _renumber(together, number)
        parts[-1].lines += 1
        parts[-1].body += together
    return parts


def _is_none(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value is None
    )


def _names(
    body: Iterable[ast.stmt], context: type[ast.expr_context] = ast.expr_context
) -> set[str]:
    """The variables that statements use, or only store."""
    nodes = (node for statement in body for node in ast.walk(statement))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


# ---- where they say that they are ---------------------------------------------------------------


def _renumber(body: list[ast.stmt], line: int) -> None:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, (ast.stmt, ast.expr, ast.keyword)):
                node.lineno = node.end_lineno = line


def _moved(code: types.CodeType, places: dict[str, _Place]) -> types.CodeType:
    """The same code, its inner functions in the files and by the names that they are for."""
    consts = []
    for const in code.co_consts:
        moved = const
        if isinstance(const, types.CodeType) and const.co_name in places:
            place = places[const.co_name]
            moved = const.replace(co_filename=place.file, co_name=place.name)
        consts.append(moved)
    return code.replace(co_consts=tuple(consts))
