"""Streams and events. A device runs everything in the program's order, whatever its stream."""

from __future__ import annotations

import torch

from ._indices import DEVICE_NAME, DeviceLike, device, is_the_accelerator, present, set_device

#: PyTorch's number for the kind of device that a backend outside of it is.
_DEVICE_TYPE = 20


class _OfThisDevice(type):
    """PyTorch's streams and events take no subclasses: those of this device are plain ones."""

    def __instancecheck__(cls, other: object) -> bool:
        kind = cls.__mro__[1]
        device = getattr(other, "device", None)
        return isinstance(other, kind) and (device is None or device.type == DEVICE_NAME)


class Stream(torch.Stream, metaclass=_OfThisDevice):
    """A name for a part of a device's work, all of which runs in the program's order.

    >>> torch.remote_accelerator.Stream().device
    device(type='remote_accelerator', index=0)
    """

    def __new__(cls, device: DeviceLike = None, priority: int = 0) -> torch.Stream:  # type: ignore[misc]
        """Make a stream; a priority means nothing."""
        return torch.Stream(device=torch.device(DEVICE_NAME, present(device)))


class Event(torch.Event, metaclass=_OfThisDevice):
    """A point in a device's order. One with ``enable_timing`` waits there when it is recorded.

    >>> started, ended = (torch.remote_accelerator.Event(enable_timing=True) for _ in range(2))
    >>> started.record()
    >>> x = torch.ones(8, device="remote_accelerator:0") + 1
    >>> ended.record()
    >>> started.elapsed_time(ended) >= 0  # milliseconds
    True
    """

    def __new__(  # type: ignore[misc]
        cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> torch.Event:
        """Make one that was not recorded yet."""
        if interprocess:
            raise NotImplementedError(
                f"an event of {DEVICE_NAME} belongs to its process: other processes have sessions "
                "of their own"
            )
        return torch.Event(device=DEVICE_NAME, enable_timing=enable_timing, blocking=blocking)


def current_stream(device: DeviceLike = None) -> torch.Stream:
    """The calling thread's current stream of a device.

    >>> torch.remote_accelerator.current_stream().device
    device(type='remote_accelerator', index=0)
    """
    if is_the_accelerator():
        return torch.accelerator.current_stream(present(device))
    return default_stream(device)


def default_stream(device: DeviceLike = None) -> torch.Stream:
    """The stream that is current where no other was made so.

    >>> torch.remote_accelerator.default_stream().device
    device(type='remote_accelerator', index=0)
    """
    return torch.Stream(stream_id=0, device_index=present(device), device_type=_DEVICE_TYPE)


def set_stream(stream: torch.Stream | None) -> None:
    """Make the stream current, and its device.

    >>> torch.remote_accelerator.set_stream(torch.remote_accelerator.current_stream())
    """
    if stream is None:
        return
    if is_the_accelerator():
        torch.accelerator.set_stream(stream)
    else:
        set_device(stream.device_index)


def stream(stream: torch.Stream | None) -> torch.Stream | device:
    """Make the stream current inside a ``with`` block, and its device.

    >>> with torch.remote_accelerator.stream(torch.remote_accelerator.Stream()):
    ...     torch.remote_accelerator.current_device()
    0
    """
    return device(-1) if stream is None else stream


def is_current_stream_capturing() -> bool:
    """Whether a CUDA graph is being captured: never.

    >>> torch.remote_accelerator.is_current_stream_capturing()
    False
    """
    return False
