"""What ``python -m genie info`` prints: the installation, its environment, its nodes."""

from __future__ import annotations

import os
import pathlib
import platform

import torch

from . import TORCH_VERSION, Device, __version__, _binaries, _native, connect, devices, disconnect
from .errors import GenieError

BINARIES = ("genie-dataplane", "genie-controlplane", "genie-perf", "genie-hugepages")
_MIB = 1 << 20


def _line(what: str, value: object) -> None:
    print(f"{what:22}{value}")


def describe(device: Device) -> str:
    """A device in a line."""
    limit, total = device.memory_limit_bytes // _MIB, device.memory_bytes // _MIB
    where = f"{device.node} {device.name} ({device.description})"
    return f"{where}, {limit} of {total} MiB, by {device.link}"


def _versions() -> None:
    _line("genie", __version__)
    _line("torch", f"{torch.__version__} (this build fits {TORCH_VERSION})")
    cxx11 = "new" if torch.compiled_with_cxx11_abi() else "old"
    _line("ABI", f"{pathlib.Path(_native.__file__).name}; torch with the {cxx11} C++11 ABI")
    _line("Python", f"{platform.python_version()} ({platform.python_implementation()})")
    _line("system", platform.platform())
    _line("package", pathlib.Path(__file__).parent)
    for name in BINARIES:
        _line(name, _binaries.find(name) or "not found (a client needs none)")


def _named() -> bool:
    """Print what the environment says; whether it names a node."""
    for name in sorted(name for name in os.environ if name.startswith("GENIE_")):
        _line(name, os.environ[name])
    for name in ("GENIE_ADDRESS", "GENIE_CONFIG"):
        if not os.environ.get(name):
            _line(name, "not set")
    return bool(os.environ.get("GENIE_ADDRESS") or os.environ.get("GENIE_CONFIG"))


def show(timeout: float) -> int:
    """Print it all; 1 if a node is named and gives no session, else 0."""
    _versions()
    if not _named():
        _line("nodes", "none named")
        return 0
    try:
        connect(timeout=timeout)
    except (GenieError, ValueError, OSError) as error:
        _line("nodes", f"no session: {type(error).__name__}: {error}")
        return 1
    _line("nodes", "reachable")
    for device in devices():
        _line(f"remote_accelerator:{device.index}", describe(device))
    disconnect()
    return 0
