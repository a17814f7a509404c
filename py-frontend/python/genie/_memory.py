"""What tensors take of a device: the functions of ``torch.remote_accelerator`` that count bytes."""

from __future__ import annotations

from typing import Any

import torch

from ._device import get_device_name, is_initialized
from ._indices import DEVICE_NAME, DeviceLike, present


def memory_stats(device: DeviceLike = None) -> dict[str, Any]:
    """Counts of bytes and storages, by the names that ``torch.cuda.memory_stats`` has.

    >>> torch.remote_accelerator.memory_stats()["allocated_bytes.all.current"]
    0
    """
    stats: dict[str, Any] = torch.accelerator.memory_stats(present(device))
    return stats


def memory_allocated(device: DeviceLike = None) -> int:
    """Bytes that this process's tensors take on a device now.

    >>> x = torch.zeros(1024, dtype=torch.float32, device="remote_accelerator:0")
    >>> torch.remote_accelerator.memory_allocated()
    4096
    """
    return int(memory_stats(device).get("allocated_bytes.all.current", 0))


def max_memory_allocated(device: DeviceLike = None) -> int:
    """The most that they took, since the start or :func:`reset_peak_memory_stats`.

    >>> torch.remote_accelerator.reset_peak_memory_stats()
    >>> x = torch.zeros(1024, device="remote_accelerator:0")
    >>> del x
    >>> torch.remote_accelerator.max_memory_allocated()
    4096
    """
    return int(memory_stats(device).get("allocated_bytes.all.peak", 0))


def memory_reserved(device: DeviceLike = None) -> int:
    """As :func:`memory_allocated`: nothing is kept in reserve on this side.

    >>> torch.remote_accelerator.memory_reserved()
    0
    """
    return memory_allocated(device)


def max_memory_reserved(device: DeviceLike = None) -> int:
    """As :func:`max_memory_allocated`.

    >>> most = torch.remote_accelerator.max_memory_reserved()
    >>> most == torch.remote_accelerator.max_memory_allocated()
    True
    """
    return max_memory_allocated(device)


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    """Begin anew to look for the most that tensors take.

    >>> torch.remote_accelerator.reset_peak_memory_stats()
    >>> torch.remote_accelerator.max_memory_allocated()
    0
    """
    if is_initialized():
        torch.accelerator.reset_peak_memory_stats(present(device))


def reset_max_memory_allocated(device: DeviceLike = None) -> None:
    """As :func:`reset_peak_memory_stats`.

    >>> torch.remote_accelerator.reset_max_memory_allocated()
    >>> torch.remote_accelerator.max_memory_allocated()
    0
    """
    reset_peak_memory_stats(device)


def reset_accumulated_memory_stats(device: DeviceLike = None) -> None:
    """Begin anew to count what was made and freed.

    >>> torch.remote_accelerator.reset_accumulated_memory_stats()
    >>> torch.remote_accelerator.memory_stats()["allocated_bytes.all.allocated"]
    0
    """
    if is_initialized():
        torch.accelerator.reset_accumulated_memory_stats(present(device))


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """Bytes that this session may still take on a device, and that it may take in all.

    >>> free, total = torch.remote_accelerator.mem_get_info()
    >>> total - free
    0
    """
    free, total = torch.accelerator.get_memory_info(present(device))
    return int(free), int(total)


def device_memory_used(device: DeviceLike = None) -> int:
    """As :func:`memory_allocated`: what other sessions take is theirs to know.

    >>> torch.remote_accelerator.device_memory_used()
    0
    """
    return memory_allocated(device)


def memory_summary(device: DeviceLike = None, abbreviated: bool = False) -> str:
    """What tensors take on a device, for a person.

    >>> print(torch.remote_accelerator.memory_summary())
    remote_accelerator:0 (...)
      tensors           0.0 MiB
      ...
    """
    free, total = mem_get_info(device)
    rows = (
        ("tensors", memory_allocated(device)),
        ("at most", max_memory_allocated(device)),
        ("free", free),
        ("limit", total),
    )
    lines = [f"  {name:8} {count / (1 << 20):12,.1f} MiB" for name, count in rows]
    return "\n".join([f"{DEVICE_NAME}:{present(device)} ({get_device_name(device)})", *lines])
