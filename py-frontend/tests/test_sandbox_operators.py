"""No operator needs a call that executors may not make: torch's samples, one and two threads.

What an operator answers is other tests' affair; here it must not end its session.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import genie
import pytest
import torch
from opdb.database import operators
from support import REMOTE, to_cpu, to_remote

SAMPLES_MAX = 3
# Every so many operators where not all are run.
STRIDE = 12


def calls(operator: Any) -> Iterator[Callable[[], Any]]:
    """The operator with some of its samples."""
    for dtype in (torch.float32, torch.int64):
        if dtype not in operator.dtypes:
            continue
        samples = operator.sample_inputs("cpu", dtype, requires_grad=False)
        for sample in itertools.islice(samples, SAMPLES_MAX):
            options = {**sample.kwargs}
            if "device" in options:
                options["device"] = REMOTE
            yield lambda sample=sample, options=options: operator.op(  # type: ignore[misc]
                to_remote(sample.input), *to_remote(sample.args), **to_remote(options)
            )


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.slow)])
def test_no_operator_makes_a_forbidden_call(
    make_daemon: Callable[..., Any], threads: str, stride: int
) -> None:
    """The session that runs them all is the same at the end."""
    node = make_daemon("--threads", threads)
    genie.connect(node.address)
    kept = torch.arange(4.0).to(REMOTE)
    ran = 0
    for operator in operators()[::stride]:
        for call in calls(operator):
            # Not on the list, not on this device, a bad sample: as it may be.
            with contextlib.suppress(Exception):
                to_cpu(call())
                ran += 1
        assert node.metric("genie_executors_died_total") == 0, (operator.name, node.log())
    assert ran > 2000 / stride
    assert kept.sum().item() == 6
    genie.disconnect()
