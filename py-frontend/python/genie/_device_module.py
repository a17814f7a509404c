"""Makes ``torch.remote_accelerator`` of what ``genie.remote_accelerator`` has."""

from __future__ import annotations

import types
from typing import Any

from . import _device, remote_accelerator
from ._device_missing import MISSING
from ._indices import DEVICE_NAME


def module() -> types.ModuleType:
    """Make the module."""
    made = types.ModuleType(f"torch.{DEVICE_NAME}", "Genie's remote accelerators.")
    for name in remote_accelerator.__all__:
        setattr(made, name, getattr(remote_accelerator, name))
    # PyTorch calls these by name.
    for one in (_device._is_in_bad_fork, _device._lazy_init):
        setattr(made, one.__name__, one)
    # Activation checkpointing keeps the states of generators only where this is true, and ours
    # are there from the start, with or without a session.
    made._initialized = True  # type: ignore[attr-defined]
    made.__getattr__ = _say_why  # type: ignore[method-assign]
    return made


def _say_why(name: str) -> Any:
    why = MISSING.get(name)
    reason = f": {why}" if why else ""
    raise AttributeError(f"torch.{DEVICE_NAME} has no {name}{reason}")
