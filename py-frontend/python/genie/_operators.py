"""``genie.register_operator``: operators that a node's library defines, and their shapes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch

from . import _native
from ._names import find_overload

if TYPE_CHECKING:
    from collections.abc import Callable

_lock = threading.Lock()
#: What was defined here, for the life of the process: an operator goes with its library.
_libraries: dict[str, torch.library.Library] = {}


def library_operators(device: int | None = None) -> list[str]:
    """List the operators besides PyTorch's own that a device has, as schemas.

    They are those of the libraries that its node was started with (``--operator-library``). A
    program's calls of them run there, as soon as it has loaded the same library, or registered them
    (:func:`register_operator`). ``device`` is an index of ``remote_accelerator``, the current one
    if it is not said. Of a pool they are those that any of its devices has: that is where they run.

    >>> genie.library_operators()
    []
    """
    if device is None:
        device = torch.accelerator.current_device_index() if _native.is_connected() else 0
    return _native.library_operators(device)


def register_operator(
    operator: str, *, shape: Callable[..., Any] | None = None
) -> torch._ops.OpOverload:
    """Use an operator that a node's library defines, and give it for calls.

    ``operator`` is a schema, or a name, as of ``torch.library.define``: ``"mylib::scale(Tensor x,
    float by) -> Tensor"``, ``"mylib::scale"``. Where this process has not loaded the library it is
    defined here by its schema, or by that which the connected node has for the name; calls with
    remote tensors run on the node.

    ``shape`` takes an operator's arguments, with tensors of the ``meta`` device, and returns such
    tensors of the sizes and dtypes that it gives; ``torch.compile`` goes by it, too. With it a call
    costs no round trip. Without, the node is asked, with one round trip a call, which is right for
    an operator whose results have sizes that depend on what its arguments hold. The node compares:
    a rule that is wrong raises an error, and gives no wrong numbers.

    What it does in a backward pass is ``torch.library.register_autograd``'s to say.

    Raises :class:`ValueError` for a name that neither this process nor the node knows, and for a
    schema that is another than the one that is known here.

    >>> double = genie.register_operator(
    ...     "docs::double(Tensor x) -> Tensor", shape=lambda x: torch.empty_like(x)
    ... )
    >>> double
    <OpOverload(op='docs.double', overload='default')>
    """
    import genie  # noqa: PLC0415

    genie._register()
    name, has_schema, _ = operator.partition("(")
    name = name.strip()
    if name.count("::") != 1 or not all(name.split("::")):
        raise ValueError(f"{operator!r} is no operator: names are like mylib::scale")
    with _lock:
        known = find_overload(name)
        if known is None:
            known = _define(name, operator if has_schema else _schema_of_node(name))
        elif has_schema and not _is_same(known, operator):
            raise ValueError(
                f"{name} is known here with another schema: {known._schema}; wanted: {operator}"
            )
        if shape is not None:
            library = _library(name)
            torch.library.register_fake(known, shape, lib=library, allow_override=True)
    return known


def _is_same(known: torch._ops.OpOverload, schema: str) -> bool:
    try:
        return str(torch._C.parse_schema(schema)) == str(known._schema)
    except RuntimeError as error:
        raise ValueError(f"{schema!r} is no schema: {error}") from None


def _schema_of_node(name: str) -> str:
    if _native.is_connected():
        for schema in library_operators():
            if schema.partition("(")[0] == name:
                return schema
    where = "none in the node's libraries" if _native.is_connected() else "no node"
    raise ValueError(
        f"this process knows no operator {name}, and there is {where}: connect to a node that has "
        "its library (genie.library_operators() lists what it has), import what defines it, or "
        "give its schema"
    )


def _define(name: str, schema: str) -> torch._ops.OpOverload:
    try:
        _library(name).define(schema.partition("::")[2])
    except RuntimeError as error:
        raise ValueError(f"{schema!r} is no schema: {error}") from None
    found = find_overload(name)
    assert found is not None, f"{name} was defined and is not there"
    return found


def _library(name: str) -> torch.library.Library:
    namespace = name.partition("::")[0]
    if namespace not in _libraries:
        _libraries[namespace] = torch.library.Library(namespace, "FRAGMENT")
    return _libraries[namespace]
