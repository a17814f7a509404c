"""The devices of a session, and where a value is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import _native
from ._trees import parts
from .errors import StaleTensorError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Device:
    """A device of a session: one index of ``remote_accelerator``.

    >>> device = genie.devices()[0]
    >>> device.index, device.name, device.alive
    (0, 'host:0', True)
    """

    #: ``remote_accelerator:INDEX``; with ``placement="pool"`` all have the same.
    index: int
    #: The address of its node.
    node: str
    #: As its node calls it: ``host:0``, ``cuda:1``.
    name: str
    #: What it is, for a person.
    description: str
    #: Bytes that it has.
    memory_bytes: int
    #: Bytes of them that this session's tensors may take.
    memory_limit_bytes: int
    #: Its share of the speed that it could have: below 1 its node slows it down, to test.
    speed: float
    #: What carries the data: ``dpdk`` or ``tcp``.
    link: str
    #: Whether its node still is there.
    alive: bool


@dataclass(frozen=True)
class Place:
    """Where a value is.

    >>> genie.where(torch.ones(2, device="remote_accelerator:0")).device.name
    'host:0'
    """

    #: The device that holds it; of several the one where it was made. ``None`` where nothing was
    #: done with it yet.
    device: Device | None
    #: What put it there.
    why: str
    #: Other devices that hold a copy, to read it.
    replicas: tuple[Device, ...] = ()


def find(tensor: torch.Tensor) -> tuple[list[int], str]:
    """The devices that hold a remote tensor, by their places in the session, and what put it there.

    Raises :class:`StaleTensorError` for a tensor of an earlier session.
    """
    elements, *_ = parts(tensor)
    found = _native.find(elements.untyped_storage().data_ptr())
    if found is None:
        raise StaleTensorError(
            "this tensor belongs to an earlier session, whose memory is gone: make it again in "
            "this one"
        )
    return found
