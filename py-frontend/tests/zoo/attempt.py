"""One model in one mode, on the device and on the CPU."""

from __future__ import annotations

import contextlib
import random
import traceback

import numpy
import torch
from support import REMOTE, in_a_line

from .compare import DiffersError, largest_error
from .model import Model
from .modes import Mode, Results

#: The node's device: it adds up in the same order as one thread does here.
ONE_THREAD = "host:0?threads=1"


class NotOnTheCpuError(Exception):
    """The CPU can't do this either: there is nothing to compare."""


def attempt(model: Model, mode: Mode) -> float:
    """The largest error, over the largest magnitude; raises what differs."""
    local = _on_the_cpu(model, mode)
    _seed()
    try:
        return largest_error(mode.run(model, REMOTE), local, mode.tolerance)
    except Exception as error:
        # What it was in the middle of ends: a checkpoint's hooks would be there for the CPU, too.
        traceback.clear_frames(error.__traceback__)
        failure = error
    settle()
    if mode.reference is not None:
        _check_on_the_cpu(model, mode, local)
    raise failure


def _check_on_the_cpu(model: Model, mode: Mode, expected: Results) -> None:
    """Is it the mode that can't do it, or gives something else, whatever the device is?"""
    found = _on_the_cpu(model, Mode(mode.judge or mode.run))
    try:
        largest_error(found, expected, mode.tolerance, "cpu")
    except DiffersError as error:
        raise NotOnTheCpuError(f"it differs there, too: {error}") from None


def settle() -> None:
    """Has what failed raised that the next look would else raise."""
    with contextlib.suppress(Exception):
        torch.ones(1, device=REMOTE).item()


def _on_the_cpu(model: Model, mode: Mode) -> Results:
    _seed()
    try:
        return (mode.reference or mode.run)(model, "cpu")
    except Exception as error:
        raise NotOnTheCpuError(in_a_line(error, 200)) from None


def _seed() -> None:
    """Some models draw numbers, with whatever there is to draw with."""
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)
    # What two threads add up in another order, networks with batch norms make much of: the CPU
    # differs from itself by percents after three steps. The node has one thread, too.
    torch.set_num_threads(1)
