"""``genie.register_trigger``: operators whose calls wait until they have run."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import torch

import genie

from ._names import find

_lock = threading.Lock()
#: How many triggers an operator has.
_triggers: Counter[str] = Counter()


class Trigger:
    """A registered trigger, until its ``remove`` is called, or the end of a ``with`` block.

    >>> with genie.register_trigger("aten::tanh") as trigger:
    ...     trigger.operators
    ('aten::tanh', 'aten::tanh.out')
    """

    def __init__(self, operators: tuple[str, ...]) -> None:
        #: The operators that wait, with their overloads.
        self.operators = operators
        self._is_set = True
        with _lock:
            for name in operators:
                _triggers[name] += 1
                torch.ops.genie.set_trigger(name, True)

    def remove(self) -> None:
        """Let its operators go on as they would without it; once is enough.

        >>> genie.register_trigger("aten::tanh").remove()
        """
        with _lock:
            if not self._is_set:
                return
            self._is_set = False
            for name in self.operators:
                _triggers[name] -= 1
                if not _triggers[name]:
                    torch.ops.genie.set_trigger(name, False)

    def __enter__(self) -> Trigger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = "" if self._is_set else ", removed"
        return f"<trigger of {', '.join(self.operators)}{state}>"


def register_trigger(
    operator: str | torch._ops.OpOverload | torch._ops.OpOverloadPacket,
) -> Trigger:
    """Have calls of an operator wait until they, and all before them, have run.

    What fails on the way raises at the call, and its results are materialised when it returns. It
    costs a round trip a call, as a look does. An operator is named as in PyTorch's dispatcher, with
    its overload or for all of them: ``"aten::mm"``, ``torch.ops.aten.add.Tensor``.

    Raises :class:`ValueError` for an operator that is not recorded: PyTorch makes others of it
    before a device sees it (``aten::matmul``), or it is a view, which costs no call.

    >>> trigger = genie.register_trigger(torch.ops.aten.mm)
    >>> before = genie.stats()["round_trips"]
    >>> x = torch.ones(2, 2, device="remote_accelerator:0")
    >>> y = x @ x + 1
    >>> genie.stats()["round_trips"] - before
    1
    >>> trigger.remove()
    """
    genie._register()
    found = _overloads(operator)
    recorded = tuple(one.name() for one in found if _is_recorded(one))
    if not recorded:
        raise ValueError(
            f"{operator} is never recorded: PyTorch makes other operators of it before a device "
            "sees it, or it is a view; register those that it is made of "
            "(torch.profiler shows them)"
        )
    return Trigger(recorded)


def _overloads(operator: Any) -> list[Any]:
    if isinstance(operator, torch._ops.OpOverload):
        return [operator]
    if isinstance(operator, torch._ops.OpOverloadPacket):
        return [getattr(operator, overload) for overload in operator.overloads()]
    if not isinstance(operator, str):
        raise TypeError(f"an operator or its name is wanted, and not {type(operator).__name__}")
    found = find(operator)
    if found is None:
        raise ValueError(
            f"there is no operator {operator!r}: names are like aten::mm or aten::add.Tensor"
        )
    return _overloads(found)


def _is_recorded(operator: Any) -> bool:
    if operator.is_view:
        return False
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "PrivateUse1")
    except RuntimeError:
        # TorchScript's overloads are not the dispatcher's.
        return False
