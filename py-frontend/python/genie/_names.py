"""Operators by the names that PyTorch's dispatcher has for them."""

from __future__ import annotations

import torch


def find(name: str) -> torch._ops.OpOverload | torch._ops.OpOverloadPacket | None:
    """All overloads of ``aten::add``, or the one that is ``aten::add.Tensor``; None for none."""
    namespace, _, rest = name.partition("::")
    plain, _, overload = rest.partition(".")
    try:
        packet = getattr(getattr(torch.ops, namespace), plain)
        return getattr(packet, overload) if overload else packet
    except AttributeError:
        return None


def find_overload(name: str) -> torch._ops.OpOverload | None:
    """The operator of a name: without an overload in it, that which has none."""
    found = find(name)
    if isinstance(found, torch._ops.OpOverloadPacket):
        found = getattr(found, "default", None)
    return found if isinstance(found, torch._ops.OpOverload) else None
