"""``torch.nn.DataParallel`` over the devices of a session.

PyTorch spreads and gathers tensors by functions that only CUDA has; here they are copies.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from ._indices import DEVICE_NAME, index, is_the_accelerator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType


def teach(module: ModuleType) -> None:
    """Teach ``torch.nn.parallel.comm``, where this is the process's accelerator."""
    for ours in (broadcast_coalesced, gather, scatter):
        _put_before(module, ours)


def _put_before(module: ModuleType, ours: Any) -> None:
    known = getattr(module, ours.__name__)

    @functools.wraps(known)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        is_ours = is_the_accelerator() and kwargs.get("out") is None
        return (ours if is_ours else known)(*args, **kwargs)

    setattr(module, ours.__name__, chosen)


def _place(device: Any) -> torch.device:
    """The device that `device` means: CPU is -1, too."""
    if device == -1 or (not isinstance(device, int | None) and torch.device(device).type == "cpu"):
        return torch.device("cpu")
    return torch.device(DEVICE_NAME, index(device))


def _as_real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def broadcast_coalesced(
    tensors: Iterable[torch.Tensor], devices: Iterable[Any], buffer_size: int = 0
) -> list[list[torch.Tensor]]:
    """Copy tensors to devices; where they are already they are the same."""
    real = [_as_real(tensor) for tensor in tensors]
    return [[tensor.to(_place(device)) for tensor in real] for device in devices]


def scatter(
    tensor: torch.Tensor,
    devices: Sequence[Any],
    chunk_sizes: Sequence[int] | None = None,
    dim: int = 0,
    streams: Any = None,
    *,
    out: None = None,
) -> tuple[torch.Tensor, ...]:
    """Put each part of a tensor on a device."""
    real = _as_real(tensor)
    parts = real.chunk(len(devices), dim) if chunk_sizes is None else real.split(chunk_sizes, dim)
    places = [_place(device) for device in devices[: len(parts)]]
    return tuple(part.to(place) for part, place in zip(parts, places, strict=True))


def gather(
    tensors: Iterable[torch.Tensor], dim: int = 0, destination: Any = None, *, out: None = None
) -> torch.Tensor:
    """Put tensors of several devices together on one."""
    place = _place(destination)
    return torch.cat([_as_real(tensor).to(place) for tensor in tensors], dim)
