"""``torch.remote_accelerator``: what ``torch.cuda`` has, where it means something here.

``py-frontend/DEVICE_MODULE.md`` lists, by the names of ``torch.cuda``, what is and what is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from . import _native
from ._indices import DeviceLike, current_device, index, present

if TYPE_CHECKING:
    from collections.abc import Iterable


def _signed(seed: int) -> int:
    """A 64-bit seed as the signed integer that an operator takes."""
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >> 63 else seed


# ---- devices -----------------------------------------------------------------------------------


def _lazy_init() -> None:
    """Nothing to do: a session starts with ``genie.connect``."""


def init() -> None:
    """Nothing to do: a session starts with ``genie.connect``.

    >>> torch.remote_accelerator.init()
    """


def is_initialized() -> bool:
    """Whether there is a session.

    >>> torch.remote_accelerator.is_initialized()
    True
    """
    return int(torch.ops.genie.connected_devices()) > 0


def is_available() -> bool:
    """Whether there is a device: of the session, or of the nodes that the environment names.

    >>> torch.remote_accelerator.is_available()
    True
    """
    return device_count() > 0


def device_count() -> int:
    """Devices of the session; without one and without nodes in the environment 0.

    >>> torch.remote_accelerator.device_count()
    1
    """
    return int(torch.ops.genie.device_count())


def synchronize(device: DeviceLike = None) -> None:
    """Wait until everything recorded so far has run, on whatever device.

    Raises what has failed on the node and was not raised yet, such as :class:`RemoteOperatorError`.

    >>> y = torch.ones(2, device="remote_accelerator:0") + 1
    >>> torch.remote_accelerator.synchronize()
    """
    present(device)
    torch.ops.genie.synchronize()


def empty_cache() -> None:
    """Nothing to do: the node owns the memory.

    >>> torch.remote_accelerator.empty_cache()
    """


def _generators() -> int:
    """How many default generators there are: the first one before a connect too.

    So a seed that is set first thing in a program counts.
    """
    return max(1, int(torch.ops.genie.connected_devices()))


def manual_seed(seed: int) -> None:
    """Seed the current device's default generator.

    >>> torch.remote_accelerator.manual_seed(7)
    >>> first = torch.rand(2, device="remote_accelerator:0")
    >>> torch.remote_accelerator.manual_seed(7)
    >>> torch.equal(first, torch.rand(2, device="remote_accelerator:0"))
    True
    """
    torch.ops.genie.manual_seed(current_device(), _signed(int(seed)))


def manual_seed_all(seed: int) -> None:
    """Seed the default generators of all devices.

    >>> torch.remote_accelerator.manual_seed_all(7)
    >>> torch.remote_accelerator.initial_seed()
    7
    """
    for at in range(_generators()):
        torch.ops.genie.manual_seed(at, _signed(int(seed)))


def seed() -> None:
    """Seed the current device's default generator with a random number.

    >>> torch.remote_accelerator.seed()
    >>> 0 <= torch.remote_accelerator.initial_seed() < 2**64
    True
    """
    manual_seed(torch.Generator().seed())


def seed_all() -> None:
    """Seed the default generators of all devices with one random number.

    >>> torch.remote_accelerator.seed_all()
    >>> 0 <= torch.remote_accelerator.initial_seed() < 2**64
    True
    """
    manual_seed_all(torch.Generator().seed())


def initial_seed() -> int:
    """The seed of the current device's default generator.

    >>> torch.remote_accelerator.manual_seed(7)
    >>> torch.remote_accelerator.initial_seed()
    7
    """
    return int(torch.ops.genie.initial_seed(current_device())) & ((1 << 64) - 1)


def get_rng_state(device: DeviceLike = None) -> torch.Tensor:
    """The state of a device's default generator, as a CPU byte tensor.

    >>> state = torch.remote_accelerator.get_rng_state()
    >>> state.dtype, state.dim()
    (torch.uint8, 1)
    """
    state: torch.Tensor = torch.ops.genie.rng_state(present(device))
    return state


def set_rng_state(new_state: torch.Tensor, device: DeviceLike = None) -> None:
    """Set the state of a device's default generator.

    >>> state = torch.remote_accelerator.get_rng_state()
    >>> first = torch.rand(2, device="remote_accelerator:0")
    >>> torch.remote_accelerator.set_rng_state(state)
    >>> torch.equal(first, torch.rand(2, device="remote_accelerator:0"))
    True
    """
    torch.ops.genie.set_rng_state(present(device), new_state)


def get_rng_state_all() -> list[torch.Tensor]:
    """The states of all devices' default generators.

    >>> len(torch.remote_accelerator.get_rng_state_all())
    1
    """
    return [get_rng_state(at) for at in range(_generators())]


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Set the states of all devices' default generators.

    >>> states = torch.remote_accelerator.get_rng_state_all()
    >>> torch.remote_accelerator.set_rng_state_all(states)
    """
    for at, state in enumerate(new_states):
        set_rng_state(state, at)


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The dtypes that ``torch.autocast`` may use.

    >>> torch.remote_accelerator.get_amp_supported_dtype()
    [torch.bfloat16, torch.float16]
    """
    return [torch.bfloat16, torch.float16]


def _is_in_bad_fork() -> bool:
    """Whether this process was forked from one with a session, which it can't use."""
    return _native.is_forked()


@dataclass(frozen=True)
class DeviceProperties:
    """What a device is. The first two fields are those that ``torch.cuda`` has, too.

    >>> torch.remote_accelerator.get_device_properties(0).node_device
    'host:0'
    """

    #: What it is, for a person.
    name: str
    #: Bytes that this session's tensors may take.
    total_memory: int
    #: The address of its node.
    node: str
    #: As its node calls it: ``host:0``, ``cuda:1``.
    node_device: str
    #: What carries the data: ``dpdk`` or ``tcp``.
    link: str
    #: Its share of the speed that it could have.
    speed: float


def get_device_properties(device: DeviceLike = None) -> DeviceProperties:
    """What a device is, and what it may hold; :class:`AssertionError` if there is none.

    >>> properties = torch.remote_accelerator.get_device_properties("remote_accelerator:0")
    >>> properties.node, properties.link
    ('tcp://127.0.0.1:7700', 'tcp')
    >>> torch.remote_accelerator.get_device_properties(7)
    Traceback (most recent call last):
    AssertionError: Invalid device id 7: there are 1 devices
    """
    wanted = index(device)
    count = device_count()
    if not 0 <= wanted < count:
        raise AssertionError(f"Invalid device id {wanted}: there are {count} devices")
    found = [one for one in _native.devices() if one["index"] == wanted]
    # In a pool one index is all devices.
    return DeviceProperties(
        name=", ".join(dict.fromkeys(one["description"] for one in found)),
        total_memory=sum(one["memory_limit_bytes"] for one in found),
        node=", ".join(dict.fromkeys(one["node"] for one in found)),
        node_device=", ".join(one["name"] for one in found),
        link=", ".join(dict.fromkeys(one["link"] for one in found)),
        speed=min(one["speed"] for one in found),
    )


def get_device_name(device: DeviceLike = None) -> str:
    """What a device is, for a person.

    >>> torch.remote_accelerator.get_device_name()
    '...cores of ...'
    """
    return get_device_properties(device).name


def can_device_access_peer(device: DeviceLike, peer_device: DeviceLike) -> bool:
    """Whether values go from one device to the other without this process: always.

    Not a device from itself, as in ``torch.cuda``.

    >>> torch.remote_accelerator.can_device_access_peer(0, 0)
    False
    """
    return present(device) != present(peer_device)


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether tensors may be bfloat16: every node takes them.

    >>> torch.remote_accelerator.is_bf16_supported()
    True
    """
    return True


def is_tf32_supported() -> bool:
    """Whether float32 products may be rounded to TF32: a node never does so unasked.

    >>> torch.remote_accelerator.is_tf32_supported()
    False
    """
    return False
