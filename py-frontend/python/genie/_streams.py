"""Streams and events: a device has one stream, in which everything runs in the program's order."""

from __future__ import annotations

import torch

from ._indices import DEVICE_NAME, DeviceLike, device, present, set_device


class _OfThisDevice(type):
    """PyTorch's streams and events take no subclasses: those of this device are plain ones."""

    def __instancecheck__(cls, other: object) -> bool:
        kind = cls.__mro__[1]
        device = getattr(other, "device", None)
        return isinstance(other, kind) and (device is None or device.type == DEVICE_NAME)


class Stream(torch.Stream, metaclass=_OfThisDevice):
    """A device's stream. It has one, in which everything runs in the program's order.

    >>> stream = torch.remote_accelerator.Stream()
    >>> stream == torch.remote_accelerator.current_stream()
    True
    """

    def __new__(cls, device: DeviceLike = None, priority: int = 0) -> torch.Stream:  # type: ignore[misc]
        """Give the device's one stream; a priority means nothing."""
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
    """The device's one stream.

    >>> torch.remote_accelerator.current_stream().device
    device(type='remote_accelerator', index=0)
    """
    return Stream(device)


def default_stream(device: DeviceLike = None) -> torch.Stream:
    """The device's one stream.

    >>> stream = torch.remote_accelerator.default_stream()
    >>> stream == torch.remote_accelerator.current_stream()
    True
    """
    return Stream(device)


def set_stream(stream: torch.Stream | None) -> None:
    """Make the stream's device current.

    >>> torch.remote_accelerator.set_stream(torch.remote_accelerator.current_stream())
    """
    if stream is not None:
        set_device(stream.device_index)


def stream(stream: torch.Stream | None) -> device:
    """Make the stream's device current inside a ``with`` block.

    >>> with torch.remote_accelerator.stream(torch.remote_accelerator.Stream()):
    ...     torch.remote_accelerator.current_device()
    0
    """
    return device(-1 if stream is None else stream.device_index)


def is_current_stream_capturing() -> bool:
    """Whether a CUDA graph is being captured: never.

    >>> torch.remote_accelerator.is_current_stream_capturing()
    False
    """
    return False
