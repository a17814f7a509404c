"""The Python side of the PyTorch backend: its name, its device module, its methods.

Everything else of the backend is C++ (``py-frontend/shim``). The native library must have
registered its kernels before :func:`register` is called.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from . import _ahead, _device_module, _libraries, _printing
from ._indices import DEVICE_NAME, is_remote

if TYPE_CHECKING:
    from collections.abc import Callable


def register() -> None:
    """Name the backend ``remote_accelerator`` and give it its device module. Once a process.

    From here on ``torch.device("remote_accelerator:0")`` parses, and PyTorch takes the backend
    for the process's accelerator: call it when a session is wanted, not on import.
    """
    if hasattr(torch, DEVICE_NAME):
        return
    torch.utils.rename_privateuse1_backend(DEVICE_NAME)
    torch._register_device_module(DEVICE_NAME, _device_module.module())
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    _printing.fetch_what_is_shown()
    _libraries.prepare()
    _ahead.teach()
    _refuse_dlpack()
    _look_before_first_steps()


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
        if any(is_remote(p) for group in stepping.param_groups for p in group["params"]):
            torch.ops.genie.synchronize()

    optimizer.register_optimizer_step_pre_hook(look)


# ---- what PyTorch would do with a fake address -------------------------------------------------


def _refuse_dlpack() -> None:
    """Refuse to export a remote tensor's fake address to another library."""

    def refusing(export: Callable[..., Any]) -> Callable[..., Any]:
        def checked(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            if is_remote(tensor):
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
