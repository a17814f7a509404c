"""``torch.distributed`` beside remote tensors: CPU tensors go by gloo, remote ones are refused.

PyTorch lets Python write no backend for one type of device: only a whole process group, which would
take the place of gloo's. So its operators are taken over where they meet remote tensors.
"""

from __future__ import annotations

import functools
import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch

from ._indices import DEVICE_NAME, is_the_accelerator
from .errors import ProcessGroupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

#: Operators of process groups that take tensors.
_OPERATORS = (
    "_allgather_base_", "_reduce_scatter_base_", "allgather_", "allgather_coalesced_",
    "allgather_into_tensor_coalesced_", "allreduce_", "allreduce_coalesced_", "alltoall_",
    "alltoall_base_", "broadcast_", "gather_", "recv_", "recv_any_source_", "reduce_",
    "reduce_scatter_", "reduce_scatter_tensor_coalesced_", "scatter_", "send",
)  # fmt: skip

#: Dispatch keys of remote tensors of all layouts. Those that are not dense would go to the CPU, as
#: other operators of them do, and what came back there would be lost.
_KEYS = tuple(
    f"{layout}PrivateUse1" for layout in ("", "Sparse", "SparseCsr", "NestedTensor", "Quantized")
)

#: What is registered is so for as long as this lives.
_library = torch.library.Library("c10d", "IMPL")


def _refusal(what: str) -> ProcessGroupError:
    return ProcessGroupError(
        f"{what}: there is no process group for remote tensors yet. Use several devices in one "
        'process (genie.connect([node, ...]), each an index; or placement="pool"), or gloo with '
        "copies on the CPU (tensor.cpu() before a collective, .to(device) after it)"
    )


def _has_backend(group: Any) -> bool:
    """Whether a process group was given a backend for remote tensors."""
    return any(device.type == DEVICE_NAME for device in group._device_types)


def _serves(group: Any) -> bool:
    """Whether it is one that can: gloo would read what lies at a fake address."""
    return _has_backend(group) and group._get_backend(torch.device(DEVICE_NAME)).name() != "gloo"


# ---- process groups ----------------------------------------------------------------------------


def teach_groups(module: ModuleType) -> None:
    """Teach ``torch.distributed.distributed_c10d``."""
    module.Backend.default_device_backend_map.setdefault(DEVICE_NAME, "gloo")
    _choose_for_the_cpu(module)
    _refuse_questions(module.ProcessGroup)
    _refuse_operators(module.ProcessGroup)


def _choose_for_the_cpu(module: ModuleType) -> None:
    """Have ``init_process_group()`` make what ``init_process_group("gloo")`` makes.

    PyTorch would make a group for the accelerator's tensors alone, and have none for the CPU's.
    """
    config: Any = module.BackendConfig
    known = config.__init__

    @functools.wraps(known)
    def initialise(self: Any, backend: Any) -> None:
        undecided = backend == module.Backend.UNDEFINED
        if undecided and is_the_accelerator():
            backend = module.Backend.default_device_backend_map[DEVICE_NAME]
        known(self, backend)
        chosen = self.device_backend_map
        if "cpu" in chosen and is_the_accelerator() and not torch.cuda.is_available():
            # Else PyTorch puts there what is to be broadcast for a device that a group lacks.
            chosen.pop("cuda", None)

    config.__init__ = initialise


def _refuse_questions(groups: Any) -> None:
    """Refuse to give a group's backend for remote tensors where it has none."""

    def refusing(name: str) -> Any:
        known = getattr(groups, name)

        @functools.wraps(known)
        def ask(group: Any, device: Any) -> Any:
            if torch.device(device).type == DEVICE_NAME and not _has_backend(group):
                raise _refusal("a process group was asked for its backend for remote tensors")
            return known(group, device)

        return ask

    for name in ("_get_backend", "_start_coalescing", "_end_coalescing"):
        setattr(groups, name, refusing(name))


def _refuse_operators(groups: Any) -> None:
    with warnings.catch_warnings():
        # PyTorch tells of a kernel that takes another's place. Here that is meant.
        warnings.simplefilter("ignore", UserWarning)
        for name in _OPERATORS:
            _take_over(groups, name, _serves, functools.partial(_refuse, name))
        # A barrier has no tensor of anybody's: the group's own for the CPU will do.
        on_cpu = torch.library.get_kernel("c10d::barrier", "CPU")
        _take_over(groups, "barrier", _has_backend, on_cpu.call_boxed)


def _refuse(name: str, *_: Any) -> None:
    raise _refusal(f"{name.strip('_')} of {DEVICE_NAME} tensors")


def _take_over(
    groups: Any, name: str, serves: Callable[[Any], bool], otherwise: Callable[..., Any]
) -> None:
    """Have `otherwise` run for process groups that do not serve remote tensors."""
    names = [one.name for one in getattr(torch.ops.c10d, name).default._schema.arguments]
    place = names.index("process_group")
    known = torch.library.get_kernel(f"c10d::{name}", "PrivateUse1")

    def kernel(keys: Any, *arguments: Any) -> Any:
        served = serves(groups.unbox(arguments[place]))
        return (known.call_boxed if served else otherwise)(keys, *arguments)

    for key in _KEYS:
        _library.impl(name, kernel, key, with_keyset=True)


# ---- meshes ------------------------------------------------------------------------------------


def teach_meshes(module: ModuleType) -> None:
    """Teach ``torch.distributed.device_mesh`` to say why there is no mesh of remote devices.

    PyTorch refuses it for its name, which has a character that is no letter.
    """
    known: Any = getattr(module, "init_device_mesh", None)
    if known is None:
        return

    @functools.wraps(known)
    def init_device_mesh(device_type: str, *args: Any, **kwargs: Any) -> Any:
        if device_type == DEVICE_NAME:
            raise _refusal(f"a mesh of {DEVICE_NAME} devices")
        return known(device_type, *args, **kwargs)

    for name, other in list(sys.modules.items()):
        if name.startswith("torch.distributed") and vars(other).get(known.__name__) is known:
            other.init_device_mesh = init_device_mesh  # type: ignore[attr-defined]
