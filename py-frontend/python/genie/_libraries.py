"""Libraries that know their devices by name, taught this one's when they are imported."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import pickle
import sys
from typing import TYPE_CHECKING, Any, cast

import torch

from . import _compile, _data_parallel, _distributed
from ._indices import DEVICE_NAME, is_remote, is_the_accelerator
from .errors import NotConnectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType


def prepare() -> None:
    """Teach libraries that are imported already, and those that will be."""
    for name, teach in _TAUGHT.items():
        module = sys.modules.get(name)
        if module is not None:
            teach(module)
    sys.meta_path.insert(0, _Teacher())
    _send_copies()


class _Teacher(importlib.abc.MetaPathFinder):
    """Finds nothing itself; has a module taught after its own loader has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        teach = _TAUGHT.get(name)
        if teach is None:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                _teach_after(spec.loader, teach)
                return spec
        return None


def _teach_after(loader: Any, teach: Callable[[ModuleType], None]) -> None:
    execute = loader.exec_module

    def taught(module: ModuleType) -> None:
        execute(module)
        teach(module)

    loader.exec_module = taught


def _is_ours(device: Any) -> bool:
    return isinstance(device, (str, torch.device)) and torch.device(device).type == DEVICE_NAME


# ---- torch.multiprocessing: another process has a session of its own --------------------------


def _send_copies() -> None:
    """Send remote tensors to other processes by their values."""
    from multiprocessing.context import get_spawning_popen  # noqa: PLC0415
    from multiprocessing.reduction import ForkingPickler  # noqa: PLC0415

    from torch.multiprocessing import reductions  # noqa: PLC0415

    def reduce(tensor: torch.Tensor) -> Any:
        if not is_remote(tensor):
            return reductions.reduce_tensor(tensor)
        if tensor.requires_grad and not tensor.is_leaf:
            raise RuntimeError(
                "a tensor that is part of a graph can't be sent to another process: "
                "send tensor.detach()"
            )
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        values: Any = tensor.detach().cpu()
        if get_spawning_popen() is not None:
            # The memory that it would share with a child is gone with it before the child is there.
            values = pickle.dumps(values)
        return _receive_copy, (values, str(tensor.device), tensor.requires_grad, is_parameter)

    ForkingPickler.register(torch.Tensor, reduce)
    ForkingPickler.register(torch.nn.Parameter, reduce)


def _receive_copy(
    values: torch.Tensor | bytes, device: str, requires_grad: bool, is_parameter: bool
) -> torch.Tensor:
    """Put on this process's device what was on the sender's."""
    if isinstance(values, bytes):
        # They lie in what is being unpickled, and are trusted as that is.
        values = cast("torch.Tensor", pickle.loads(values))  # noqa: S301
    try:
        copy = values.to(device)
    except NotConnectedError as error:
        raise NotConnectedError(
            f"a tensor on {device} was sent to this process, which has no session: set "
            "GENIE_ADDRESS for it, connect before it receives one, or send tensor.cpu()"
        ) from error
    if is_parameter:
        return torch.nn.Parameter(copy, requires_grad=requires_grad)
    return copy.requires_grad_(requires_grad)


# ---- safetensors: its reader is native code with a list of devices ------------------------------


def _teach_safetensors(module: ModuleType) -> None:
    native = module.safe_open

    class SafeOpen:
        """``safe_open`` that reads to the CPU, and puts what it read on a remote accelerator."""

        def __init__(self, filename: Any, framework: str, device: Any = "cpu", **kwargs: Any):
            ours = framework in ("pt", "torch", "pytorch") and _is_ours(device)
            self._device = torch.device(device) if ours else None
            self._file = native(filename, framework, device="cpu" if ours else device, **kwargs)

        def __enter__(self) -> SafeOpen:
            self._file.__enter__()
            return self

        def __exit__(self, *exception: object) -> Any:
            return self._file.__exit__(*exception)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def get_tensor(self, name: str) -> Any:
            """Read a tensor."""
            return self._put(self._file.get_tensor(name))

        def get_tensors(self, *args: Any, **kwargs: Any) -> Any:
            """Read all tensors."""
            found = self._file.get_tensors(*args, **kwargs)
            return {name: self._put(tensor) for name, tensor in found.items()}

        def get_slice(self, name: str) -> Any:
            """Read parts of a tensor, by indexing."""
            found = self._file.get_slice(name)
            return found if self._device is None else _Slice(found, self._device)

        def _put(self, tensor: Any) -> Any:
            return tensor if self._device is None else tensor.to(self._device)

    SafeOpen.__name__ = SafeOpen.__qualname__ = "safe_open"
    module.safe_open = SafeOpen  # type: ignore[attr-defined]
    for name in ("safetensors.torch", "transformers.modeling_utils"):
        other = sys.modules.get(name)
        if other is not None and getattr(other, "safe_open", None) is native:
            other.safe_open = SafeOpen  # type: ignore[attr-defined]


class _Slice:
    """A slice of a file whose parts go to a device."""

    def __init__(self, found: Any, device: torch.device) -> None:
        self._found = found
        self._device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)

    def __getitem__(self, index: Any) -> Any:
        return self._found[index].to(self._device)


# ---- accelerate: it asks each backend that it knows by name -------------------------------------


def _is_chosen() -> bool:
    """Whether this is the process's accelerator, and there is a device."""
    return torch.accelerator.is_available() and is_the_accelerator()


def _teach_accelerate_state(module: ModuleType) -> None:
    state: Any = module.PartialState
    known = state.default_device

    def default_device(self: Any) -> torch.device:
        found: torch.device = known.fget(self)
        return torch.device(DEVICE_NAME) if found.type == "cpu" and _is_chosen() else found

    state.default_device = property(default_device, doc=known.__doc__)


def _free_bytes() -> dict[str, int]:
    devices = range(torch.accelerator.device_count())
    return {f"{DEVICE_NAME}:{at}": torch.accelerator.get_memory_info(at)[0] for at in devices}


def _teach_accelerate_memory(module: ModuleType) -> None:
    known: Any = module.get_max_memory

    def get_max_memory(max_memory: Any = None) -> Any:
        if max_memory is None:
            ours = _free_bytes() if _is_chosen() else {}
            return {**ours, **known()}
        size = module.convert_file_size_to_int
        ours = {
            name: size(most) if isinstance(most, str) else most
            for name, most in max_memory.items()
            if isinstance(name, str) and name.startswith(DEVICE_NAME)
        }
        others = {name: most for name, most in max_memory.items() if name not in ours}
        return {**ours, **(known(others) if others else {})}

    get_max_memory.__doc__ = known.__doc__
    module.get_max_memory = get_max_memory  # type: ignore[attr-defined]


# ---- torchvision: under autocast its operators compute in float32, on devices that it names ----


_TORCHVISION_OPERATORS = (
    "nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d",
)  # fmt: skip


def _teach_torchvision(_module: ModuleType) -> None:
    library = torch.library.Library("torchvision", "IMPL")
    for name in _TORCHVISION_OPERATORS:
        if hasattr(torch.ops.torchvision, name):
            operator = getattr(torch.ops.torchvision, name)
            library.impl(name, _widened(operator), "AutocastPrivateUse1")
    # What is registered goes with the library.
    _libraries.append(library)


_libraries: list[torch.library.Library] = []


def _widened(operator: Any) -> Callable[..., Any]:
    """Take floating-point tensors as float32; give such results back as the first one was."""

    def widen(value: Any) -> Any:
        is_floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.float() if is_floating else value

    def call(first: torch.Tensor, *others: Any) -> Any:
        def narrow(result: torch.Tensor) -> torch.Tensor:
            return result.to(first.dtype) if result.is_floating_point() else result

        with torch.autocast(DEVICE_NAME, enabled=False):
            given = operator(widen(first), *(widen(other) for other in others))
        if isinstance(given, torch.Tensor):
            return narrow(given)
        return tuple(narrow(result) for result in given)

    return call


_TAUGHT: dict[str, Callable[[ModuleType], None]] = {
    "accelerate.state": _teach_accelerate_state,
    "accelerate.utils.modeling": _teach_accelerate_memory,
    "safetensors": _teach_safetensors,
    "torch._dynamo.backends.registry": _compile.teach_registry,
    "torch._dynamo.trace_rules": _compile.teach_rules,
    "torch._inductor.compile_fx": _compile.teach_inductor,
    "torch.nn.parallel.comm": _data_parallel.teach,
    "torch.distributed.device_mesh": _distributed.teach_meshes,
    "torch.distributed.distributed_c10d": _distributed.teach_groups,
    "torchvision": _teach_torchvision,
}
