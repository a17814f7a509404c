"""Which device is meant, and which is current: what ``torch.cuda`` does, by its names."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

DEVICE_NAME = "remote_accelerator"

#: What names a device: ``None`` is the current one.
DeviceLike: TypeAlias = "torch.device | str | int | None"


def index(device: DeviceLike) -> int:
    """The device index that ``device`` means; the current one for ``None`` and no index."""
    if isinstance(device, int):
        return device
    if device is not None:
        device = torch.device(device)
        if device.type != DEVICE_NAME:
            raise ValueError(f"expected a {DEVICE_NAME} device, got {device}")
        if device.index is not None:
            return int(device.index)
    return current_device()


def present(device: DeviceLike) -> int:
    """As :func:`index`, but one that is named must be there, as soon as there is a session."""
    found = index(device)
    count = 0 if device is None else int(torch.ops.genie.connected_devices())
    if count and not 0 <= found < count:
        raise torch.AcceleratorError(
            f"invalid device ordinal: {DEVICE_NAME}:{found} does not exist: the session has "
            f"{count} device(s)"
        )
    return found


def is_remote(value: object) -> bool:
    """Whether it is a tensor on a remote accelerator."""
    return isinstance(value, torch.Tensor) and value.device.type == DEVICE_NAME


def is_the_accelerator() -> bool:
    """Whether PyTorch takes this for the process's accelerator."""
    chosen = torch.accelerator.current_accelerator()
    return chosen is not None and chosen.type == DEVICE_NAME


def current_device() -> int:
    """The calling thread's current device.

    >>> torch.remote_accelerator.current_device()
    0
    """
    return int(torch.ops.genie.current_device())


def set_device(device: DeviceLike) -> None:
    """Set the calling thread's current device. A negative index leaves it as it is.

    Raises :class:`torch.AcceleratorError` for one that the session does not have.

    >>> torch.remote_accelerator.set_device("remote_accelerator:0")
    """
    if not (isinstance(device, int) and device < 0):
        torch.ops.genie.set_device(present(device))


class device:  # noqa: N801 (as in torch.cuda)
    """Makes a device current inside a ``with`` block; a negative index leaves it as it is.

    >>> with torch.remote_accelerator.device(0):
    ...     torch.ones(2, device="remote_accelerator").device
    device(type='remote_accelerator', index=0)
    """

    def __init__(self, device: DeviceLike) -> None:
        self.idx = index(device)
        self.prev_idx = -1

    def __enter__(self) -> None:
        self.prev_idx = current_device()
        set_device(self.idx)

    def __exit__(self, *exception: object) -> None:
        # It was current: whether it is still there is not asked.
        torch.ops.genie.set_device(self.prev_idx)


class device_of(device):  # noqa: N801 (as in torch.cuda)
    """Makes the device of a tensor current inside a ``with`` block; nothing for others.

    >>> x = torch.ones(2, device="remote_accelerator:0")
    >>> with torch.remote_accelerator.device_of(x):
    ...     torch.remote_accelerator.current_device()
    0
    """

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.device if is_remote(obj) else -1)
