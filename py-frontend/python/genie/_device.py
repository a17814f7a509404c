"""``torch.remote_accelerator``: what ``torch.cuda`` has, where it means something here.

``py-frontend/DEVICE_MODULE.md`` lists, by the names of ``torch.cuda``, what is and what is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from . import _native
from ._indices import DEVICE_NAME, DeviceLike, current_device, index, present

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
    """Nothing to do: a session starts with ``genie.connect``."""


def is_initialized() -> bool:
    """Whether there is a session."""
    return int(torch.ops.genie.connected_devices()) > 0


def is_available() -> bool:
    """Whether there is a device: of the session, or of the nodes that the environment names."""
    return device_count() > 0


def device_count() -> int:
    """Devices of the session; without one and without nodes in the environment 0."""
    return int(torch.ops.genie.device_count())


def synchronize(device: DeviceLike = None) -> None:
    """Wait until everything recorded so far has run, on whatever device."""
    present(device)
    torch.ops.genie.synchronize()


def empty_cache() -> None:
    """Nothing to do: the node owns the memory."""


def _generators() -> int:
    """How many default generators there are: the first one before a connect too.

    So a seed that is set first thing in a program counts.
    """
    return max(1, int(torch.ops.genie.connected_devices()))


def manual_seed(seed: int) -> None:
    """Seed the current device's default generator."""
    torch.ops.genie.manual_seed(current_device(), _signed(int(seed)))


def manual_seed_all(seed: int) -> None:
    """Seed the default generators of all devices."""
    for at in range(_generators()):
        torch.ops.genie.manual_seed(at, _signed(int(seed)))


def seed() -> None:
    """Seed the current device's default generator with a random number."""
    manual_seed(torch.Generator().seed())


def seed_all() -> None:
    """Seed the default generators of all devices with one random number."""
    manual_seed_all(torch.Generator().seed())


def initial_seed() -> int:
    """The seed of the current device's default generator."""
    return int(torch.ops.genie.initial_seed(current_device())) & ((1 << 64) - 1)


def get_rng_state(device: DeviceLike = None) -> torch.Tensor:
    """The state of a device's default generator, as a CPU byte tensor."""
    state: torch.Tensor = torch.ops.genie.rng_state(present(device))
    return state


def set_rng_state(new_state: torch.Tensor, device: DeviceLike = None) -> None:
    """Set the state of a device's default generator."""
    torch.ops.genie.set_rng_state(present(device), new_state)


def get_rng_state_all() -> list[torch.Tensor]:
    """The states of all devices' default generators."""
    return [get_rng_state(at) for at in range(_generators())]


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Set the states of all devices' default generators."""
    for at, state in enumerate(new_states):
        set_rng_state(state, at)


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The dtypes that ``torch.autocast`` may use."""
    return [torch.bfloat16, torch.float16]


def _is_in_bad_fork() -> bool:
    """Whether this process was forked from one with a session, which it can't use."""
    return _native.is_forked()


@dataclass(frozen=True)
class DeviceProperties:
    """What a device is. The first two fields are those that ``torch.cuda`` has, too."""

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
    """What a device is, and what it may hold; :class:`AssertionError` if there is none."""
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
    """What a device is, for a person."""
    return get_device_properties(device).name


def can_device_access_peer(device: DeviceLike, peer_device: DeviceLike) -> bool:
    """Whether values go from one device to the other without this process: always."""
    return present(device) != present(peer_device)


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether tensors may be bfloat16: every node takes them."""
    return True


def is_tf32_supported() -> bool:
    """Whether float32 products may be rounded to TF32: a node never does so unasked."""
    return False


# ---- memory ------------------------------------------------------------------------------------


def memory_stats(device: DeviceLike = None) -> dict[str, Any]:
    """Counts of bytes and storages, by the names that ``torch.cuda.memory_stats`` has."""
    stats: dict[str, Any] = torch.accelerator.memory_stats(present(device))
    return stats


def memory_allocated(device: DeviceLike = None) -> int:
    """Bytes that this process's tensors take on a device now."""
    return int(memory_stats(device).get("allocated_bytes.all.current", 0))


def max_memory_allocated(device: DeviceLike = None) -> int:
    """The most that they took, since the start or :func:`reset_peak_memory_stats`."""
    return int(memory_stats(device).get("allocated_bytes.all.peak", 0))


def memory_reserved(device: DeviceLike = None) -> int:
    """As :func:`memory_allocated`: nothing is kept in reserve on this side."""
    return memory_allocated(device)


def max_memory_reserved(device: DeviceLike = None) -> int:
    """As :func:`max_memory_allocated`."""
    return max_memory_allocated(device)


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    """Begin anew to look for the most that tensors take."""
    if is_initialized():
        torch.accelerator.reset_peak_memory_stats(present(device))


def reset_max_memory_allocated(device: DeviceLike = None) -> None:
    """As :func:`reset_peak_memory_stats`."""
    reset_peak_memory_stats(device)


def reset_accumulated_memory_stats(device: DeviceLike = None) -> None:
    """Begin anew to count what was made and freed."""
    if is_initialized():
        torch.accelerator.reset_accumulated_memory_stats(present(device))


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """Bytes that this session may still take on a device, and that it may take in all."""
    free, total = torch.accelerator.get_memory_info(present(device))
    return int(free), int(total)


def device_memory_used(device: DeviceLike = None) -> int:
    """As :func:`memory_allocated`: what other sessions take is theirs to know."""
    return memory_allocated(device)


def memory_summary(device: DeviceLike = None, abbreviated: bool = False) -> str:
    """What tensors take on a device, for a person."""
    free, total = mem_get_info(device)
    rows = (
        ("tensors", memory_allocated(device)),
        ("at most", max_memory_allocated(device)),
        ("free", free),
        ("limit", total),
    )
    lines = [f"  {name:8} {count / (1 << 20):12,.1f} MiB" for name, count in rows]
    return "\n".join([f"{DEVICE_NAME}:{present(device)} ({get_device_name(device)})", *lines])
