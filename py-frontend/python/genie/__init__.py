"""Genie: run PyTorch on accelerators in another machine by changing the device string.

>>> import torch, genie
>>> genie.connect("tcp://127.0.0.1:7700")
>>> torch.ones(2, device="remote_accelerator:0") + 1

Without :func:`connect` (and without GENIE_ADDRESS) importing this changes nothing about the
machine's own accelerators.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

import torch

from . import _native, errors
from .errors import (
    ConnectError,
    ForkError,
    GenieError,
    NodeLostError,
    NotConnectedError,
    RemoteOperatorError,
    StaleTensorError,
    VersionMismatchError,
)

__version__: str = _native.__version__

#: The one release of torch that this build's native backend fits.
TORCH_VERSION = "2.11.0"

__all__ = [
    "ConnectError",
    "ForkError",
    "GenieError",
    "NodeLostError",
    "NotConnectedError",
    "RemoteOperatorError",
    "StaleTensorError",
    "VersionMismatchError",
    "connect",
    "disconnect",
    "is_connected",
    "stats",
    "synchronize",
]


_registered = False


def _register() -> None:
    """Give torch the device. Once a process."""
    global _registered
    if _registered:
        return
    if torch.__version__.split("+")[0] != TORCH_VERSION:
        raise ImportError(
            f"genie {__version__} is built for torch {TORCH_VERSION}, and this is torch "
            f"{torch.__version__}: install torch=={TORCH_VERSION}, or build genie against yours"
        )
    from . import _backend

    inner = [os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep]
    _native.register(torch.__version__, inner, errors)
    _backend.register()
    atexit.register(_native.at_exit)
    _registered = True


def _register_on_import() -> None:
    # PyTorch takes a registered backend for the process's accelerator. On a machine that has
    # accelerators of its own it therefore waits until a node is asked for.
    if os.environ.get("GENIE_ADDRESS") or not torch.accelerator.is_available():
        _register()


def connect(
    address: str | None = None,
    *,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    timeout: float = 5.0,
) -> None:
    """Open a session with the node at ``address``.

    ``tcp://HOST:PORT`` is a node, ``unix:///run/genie/gateway.sock`` this host's gateway to one.

    What is not given comes from GENIE_ADDRESS, GENIE_CA, GENIE_CERT and GENIE_KEY. The three
    files (an authority, this client's certificate and its key, in PEM) turn TLS on.

    Raises :class:`ConnectError` if nobody answers within ``timeout`` seconds or the node refuses,
    :class:`VersionMismatchError` if it runs another version, and :class:`RuntimeError` if a
    session is open already.
    """
    if address is None and not os.environ.get("GENIE_ADDRESS"):
        raise ValueError("no address: pass one (tcp://HOST:PORT), or set GENIE_ADDRESS")
    _register()
    _native.connect(address, ca, cert, key, timeout)


def disconnect() -> None:
    """End the session. Its tensors are gone: using one raises :class:`StaleTensorError`.

    In a forked child it raises :class:`ForkError`, as everything does that is the session's.
    """
    _native.disconnect()


def synchronize() -> None:
    """Wait until everything recorded so far has run on the node."""
    _register()
    _native.synchronize()


def is_connected() -> bool:
    """Whether a session is open."""
    return _native.is_connected()


def stats() -> dict[str, Any]:
    """Count what the session has done: operators, messages, bytes, round trips, plan hits."""
    return _native.stats()


_register_on_import()
