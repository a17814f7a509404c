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
    """A device's stream. It has one, in which everything runs in the program's order."""

    def __new__(cls, device: DeviceLike = None, priority: int = 0) -> torch.Stream:  # type: ignore[misc]
        """Give the device's one stream; a priority means nothing."""
        return torch.Stream(device=torch.device(DEVICE_NAME, present(device)))


class Event(torch.Event, metaclass=_OfThisDevice):
    """A point in a device's order. One with ``enable_timing`` waits there when it is recorded."""

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
    """The device's one stream."""
    return Stream(device)


def default_stream(device: DeviceLike = None) -> torch.Stream:
    """The device's one stream."""
    return Stream(device)


def set_stream(stream: torch.Stream | None) -> None:
    """Make the stream's device current."""
    if stream is not None:
        set_device(stream.device_index)


def stream(stream: torch.Stream | None) -> device:
    """Make the stream's device current inside a ``with`` block."""
    return device(-1 if stream is None else stream.device_index)


def is_current_stream_capturing() -> bool:
    """Whether a CUDA graph is being captured: never."""
    return False
