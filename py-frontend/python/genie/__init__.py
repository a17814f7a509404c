"""Genie: run PyTorch on accelerators in another machine by changing the device string.

>>> import torch, genie
>>> genie.connect("tcp://127.0.0.1:7700")
>>> torch.ones(2, device="remote_accelerator:0") + 1

Without :func:`connect` (and without GENIE_ADDRESS or GENIE_CONFIG) importing this changes nothing
about the machine's own accelerators.
"""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Any

import torch

from . import _indices, _inner, _native, _places, errors
from ._catalogue import explain_error
from ._places import Device, Place
from .errors import (
    ConnectError,
    ForkError,
    GenieError,
    NodeLostError,
    NotConnectedError,
    ProcessGroupError,
    RemoteOperatorError,
    StaleTensorError,
    VersionMismatchError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__version__: str = _native.__version__

#: The one release of torch that this build's native backend fits.
TORCH_VERSION: str = _native.TORCH_VERSION

__all__ = [
    "Annotation",
    "Capture",
    "CapturedOperator",
    "CapturedTensor",
    "ConnectError",
    "Device",
    "ForkError",
    "GenieError",
    "Inspection",
    "ModuleCall",
    "NodeLostError",
    "NotConnectedError",
    "Place",
    "ProcessGroupError",
    "Profile",
    "ProfiledRecord",
    "ProfiledWait",
    "RemoteOperatorError",
    "Replay",
    "ReplayReport",
    "StaleTensorError",
    "Trigger",
    "VersionMismatchError",
    "annotate",
    "capture",
    "connect",
    "devices",
    "disconnect",
    "explain",
    "explain_error",
    "export_srg",
    "hook_overhead",
    "inspect",
    "is_connected",
    "library_operators",
    "materialize",
    "module_paths",
    "profile",
    "register_operator",
    "register_trigger",
    "replay",
    "stats",
    "synchronize",
    "where",
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

    _native.register(torch.__version__, list(_inner.FOLDERS), errors)
    _backend.register()
    atexit.register(_native.at_exit)
    _registered = True


def _register_on_import() -> None:
    # PyTorch takes a registered backend for the process's accelerator. On a machine that has
    # accelerators of its own it therefore waits until a node is asked for.
    named = os.environ.get("GENIE_ADDRESS") or os.environ.get("GENIE_CONFIG")
    if named or not torch.accelerator.is_available():
        _register()


def connect(
    address: str | Iterable[str] | None = None,
    *,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    timeout: float = 5.0,
    placement: str | None = None,
    policy: str | None = None,
    config: str | os.PathLike[str] | None = None,
) -> None:
    """Open a session with the node at ``address``, or with several nodes.

    ``tcp://HOST:PORT`` is a node, ``unix:///run/genie/gateway.sock`` this host's gateway to one.
    Several are a list, or one string with commas between them. Each device of each node is an index
    of ``remote_accelerator``, in their order: :func:`devices` lists them.

    With ``placement="pool"`` they are all one index, ``remote_accelerator:0``, and Genie decides
    for each operator where it runs; values move by themselves, and the results are the same.
    ``policy`` says how it decides: ``"locality"`` (the default: where most of what an operator
    takes lies), ``"semantic"`` (state, such as a KV cache, stays, and what uses it runs there), or
    one to compare with: ``"single"``, ``"blind"``, ``"random:SEED"``.
    :func:`where` tells where a value is. ``placement="pinned"``, the default, leaves it to the
    program.

    ``config`` is a TOML file that says the same: ``[[node]]`` with its ``address`` for each node,
    ``ca``, ``cert``, ``key``, ``placement``, ``policy``. What is not given, and stands in no such
    file, comes from GENIE_ADDRESS, GENIE_CA, GENIE_CERT, GENIE_KEY, GENIE_PLACEMENT and
    GENIE_POLICY, or from the file that GENIE_CONFIG names. The three files (an authority, this
    client's certificate and its key, in PEM) turn TLS on.

    Raises :class:`ConnectError` if a node does not answer within ``timeout`` seconds or refuses,
    :class:`VersionMismatchError` if it runs another version (then none of them has a session), and
    :class:`RuntimeError` if a session is open already.

    >>> genie.connect("tcp://127.0.0.1:7700", timeout=10)
    >>> torch.ones(2, device="remote_accelerator:0").sum().item()
    2.0
    """
    named = address.split(",") if isinstance(address, str) else address
    addresses = None if named is None else [one.strip() for one in named if one.strip()]
    addresses, ca, cert, key, policy = _native.resolve(
        addresses, ca, cert, key, placement, policy, config
    )
    if not addresses:
        raise ValueError(
            "no address: pass one (tcp://HOST:PORT), set GENIE_ADDRESS, or name a file with nodes "
            "(config=, GENIE_CONFIG)"
        )
    _register()
    _native.connect(addresses, ca, cert, key, policy, timeout)


def disconnect() -> None:
    """End the session. Its tensors are gone: using one raises :class:`StaleTensorError`.

    In a forked child it raises :class:`ForkError`, as everything does that is the session's.

    >>> genie.disconnect()
    >>> genie.is_connected()
    False
    """
    _native.disconnect()


def synchronize() -> None:
    """Wait until everything recorded so far has run on the node.

    Raises what has failed there and was not raised yet, such as :class:`RemoteOperatorError`.

    >>> y = torch.ones(2, device="remote_accelerator:0") + 1
    >>> genie.synchronize()
    """
    _register()
    _native.synchronize()


def is_connected() -> bool:
    """Whether a session is open.

    >>> genie.is_connected()
    True
    """
    return _native.is_connected()


def devices() -> list[Device]:
    """List the devices of the session, in the order of their indices.

    >>> [device.node for device in genie.devices()]
    ['tcp://127.0.0.1:7700']
    """
    return [Device(**device) for device in _native.devices()]


def where(tensor: torch.Tensor) -> Place:
    """Tell where the elements of ``tensor`` are, and why they are there.

    Raises :class:`TypeError` for a tensor that is on no remote accelerator, and
    :class:`StaleTensorError` for one of an earlier session.

    >>> genie.where(torch.ones(2, device="remote_accelerator:0")).why
    'the program chose remote_accelerator:0, and values stay where they are made'
    """
    if not _indices.is_remote(tensor):
        raise TypeError(f"this tensor is on {tensor.device}, and not on a remote accelerator")
    (lanes, why), all_devices = _places.find(tensor), devices()
    held = tuple(all_devices[lane] for lane in lanes)
    if not held:
        return Place(None, "nothing was done with it yet")
    if not why:
        chosen = f"remote_accelerator:{tensor.device.index}"
        why = f"the program chose {chosen}, and values stay where they are made"
    return Place(held[0], why, held[1:])


def stats() -> dict[str, Any]:
    """Count what the session has done: operators, messages, bytes, round trips, plan hits.

    A look at what was asked for before (``fetched_ahead``) is no round trip.

    >>> before = genie.stats()["round_trips"]
    >>> torch.ones(2, device="remote_accelerator:0").add(1).tolist()
    [2.0, 2.0]
    >>> genie.stats()["round_trips"] - before
    1
    """
    return _native.stats()


# They are about what stands above.
from ._annotate import Annotation, annotate, hook_overhead  # noqa: E402
from ._capture import Capture, CapturedOperator, CapturedTensor, capture  # noqa: E402
from ._explain import explain, export_srg  # noqa: E402
from ._inspect import Inspection, inspect, materialize  # noqa: E402
from ._module_paths import ModuleCall, module_paths  # noqa: E402
from ._operators import library_operators, register_operator  # noqa: E402
from ._profile import Profile, profile  # noqa: E402
from ._profiled import ProfiledRecord, ProfiledWait  # noqa: E402
from ._replayed import Replay, ReplayReport, replay  # noqa: E402
from ._triggers import Trigger, register_trigger  # noqa: E402

_register_on_import()
