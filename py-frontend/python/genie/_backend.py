"""The Python side of the PyTorch backend: its name, its device module, its methods.

Everything else of the backend is C++ (``py-frontend/shim``). The native library must have
registered its kernels before :func:`register` is called.
"""

from __future__ import annotations

import types
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from . import _native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DEVICE_NAME = "remote_accelerator"


def register() -> None:
    """Name the backend ``remote_accelerator`` and give it its device module. Once a process.

    From here on ``torch.device("remote_accelerator:0")`` parses, and PyTorch takes the backend
    for the process's accelerator: call it when a session is wanted, not on import.
    """
    if hasattr(torch, DEVICE_NAME):
        return
    torch.utils.rename_privateuse1_backend(DEVICE_NAME)
    torch._register_device_module(DEVICE_NAME, _device_module())
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    _print_through_copies()
    _refuse_dlpack()
    _look_before_first_steps()


def _index(device: Any) -> int:
    """The device index that ``device`` means; the current one for ``None`` and no index."""
    if isinstance(device, int):
        return device
    if device is not None:
        device = torch.device(device)
        if device.type != DEVICE_NAME:
            raise ValueError(f"expected a {DEVICE_NAME} device, got {device}")
        if device.index is not None:
            return int(device.index)
    return int(torch.ops.genie.current_device())


def _signed(seed: int) -> int:
    """A 64-bit seed as the signed integer that an operator takes."""
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >> 63 else seed


# ---- torch.remote_accelerator ------------------------------------------------------------------


def _lazy_init() -> None:
    """Nothing to do: a session starts with ``genie.connect``."""


def is_initialized() -> bool:
    """Whether there is a session."""
    return device_count() > 0


def is_available() -> bool:
    """Whether there is a session with at least one device."""
    return device_count() > 0


def device_count() -> int:
    """Devices of the connected node; 0 when not connected."""
    return int(torch.ops.genie.device_count())


def current_device() -> int:
    """The calling thread's current device."""
    return int(torch.ops.genie.current_device())


def set_device(device: Any) -> None:
    """Set the calling thread's current device."""
    torch.ops.genie.set_device(_index(device))


@contextmanager
def device(device: Any) -> Iterator[None]:
    """Make a device current inside a ``with`` block."""
    previous = current_device()
    set_device(device)
    try:
        yield
    finally:
        set_device(previous)


def synchronize(device: Any = None) -> None:
    """Wait until everything recorded so far has run."""
    torch.ops.genie.synchronize()


def empty_cache() -> None:
    """Nothing to do: the node owns the memory."""


def _generators() -> int:
    """How many default generators there are: the first one before a connect too.

    So a seed that is set first thing in a program counts.
    """
    return max(1, device_count())


def manual_seed(seed: int) -> None:
    """Seed the current device's default generator."""
    torch.ops.genie.manual_seed(current_device(), _signed(int(seed)))


def manual_seed_all(seed: int) -> None:
    """Seed the default generators of all devices."""
    for index in range(_generators()):
        torch.ops.genie.manual_seed(index, _signed(int(seed)))


def seed() -> None:
    """Seed the current device's default generator with a random number."""
    manual_seed(torch.Generator().seed())


def seed_all() -> None:
    """Seed the default generators of all devices with one random number."""
    manual_seed_all(torch.Generator().seed())


def initial_seed() -> int:
    """The seed of the current device's default generator."""
    return int(torch.ops.genie.initial_seed(current_device())) & ((1 << 64) - 1)


def get_rng_state(device: Any = None) -> torch.Tensor:
    """The state of a device's default generator, as a CPU byte tensor."""
    state: torch.Tensor = torch.ops.genie.rng_state(_index(device))
    return state


def set_rng_state(new_state: torch.Tensor, device: Any = None) -> None:
    """Set the state of a device's default generator."""
    torch.ops.genie.set_rng_state(_index(device), new_state)


def get_rng_state_all() -> list[torch.Tensor]:
    """The states of all devices' default generators."""
    return [get_rng_state(index) for index in range(_generators())]


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Set the states of all devices' default generators."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The dtypes that ``torch.autocast`` may use."""
    return [torch.bfloat16, torch.float16]


def _is_in_bad_fork() -> bool:
    """Whether this process was forked from one with a session, which it can't use."""
    return _native.is_forked()


def _device_module() -> types.ModuleType:
    """``torch.remote_accelerator``: what of this file PyTorch looks for in a device module."""
    module = types.ModuleType(f"torch.{DEVICE_NAME}", "Genie's remote accelerators.")
    for function in (
        _is_in_bad_fork,
        _lazy_init,
        current_device,
        device,
        device_count,
        empty_cache,
        get_amp_supported_dtype,
        get_rng_state,
        get_rng_state_all,
        initial_seed,
        is_available,
        is_initialized,
        manual_seed,
        manual_seed_all,
        seed,
        seed_all,
        set_device,
        set_rng_state,
        set_rng_state_all,
        synchronize,
    ):
        setattr(module, function.__name__, function)
    # Activation checkpointing keeps the states of generators only where this is true, and ours
    # are there from the start, with or without a session.
    module._initialized = True  # type: ignore[attr-defined]
    return module


# ---- optimisers --------------------------------------------------------------------------------


def _look_before_first_steps() -> None:
    """Hear of failures before an optimiser's first step makes its state of what failed.

    Later steps only write in place, which is undone when a failure is raised; what a first step
    makes (momenta) and Python keeps could never be used. It costs one round trip an optimiser.
    """
    from torch.optim import optimizer  # noqa: PLC0415

    seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def look(stepping: Any, args: Any, kwargs: Any) -> None:
        if stepping in seen:
            return
        seen.add(stepping)
        if any(p.device.type == DEVICE_NAME for g in stepping.param_groups for p in g["params"]):
            torch.ops.genie.synchronize()

    optimizer.register_optimizer_step_pre_hook(look)


# ---- what PyTorch would do with a fake address -------------------------------------------------


def _print_through_copies() -> None:
    """Make ``repr`` fetch a tensor once, and not element by element."""
    from torch import _tensor_str  # noqa: PLC0415

    plain = _tensor_str._tensor_str

    def through_copy(self: torch.Tensor, indent: int) -> str:
        return str(plain(self.cpu() if self.device.type == DEVICE_NAME else self, indent))

    _tensor_str._tensor_str = through_copy


def _refuse_dlpack() -> None:
    """Refuse to export a remote tensor's fake address to another library."""

    def refusing(export: Callable[..., Any]) -> Callable[..., Any]:
        def checked(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == DEVICE_NAME:
                raise BufferError(
                    f"a tensor on {tensor.device} has no memory in this process to share by "
                    "DLPack; copy it first with tensor.cpu()"
                )
            return export(tensor, *args, **kwargs)

        checked.__name__ = export.__name__
        checked.__doc__ = export.__doc__
        return checked

    torch.Tensor.__dlpack__ = refusing(torch.Tensor.__dlpack__)  # type: ignore[method-assign]
    torch.Tensor.__dlpack_device__ = refusing(  # type: ignore[method-assign]
        torch.Tensor.__dlpack_device__
    )
    torch.to_dlpack = torch.utils.dlpack.to_dlpack = refusing(torch.utils.dlpack.to_dlpack)
