"""PyTorch's databases of modules, optimisers and functions: of its suite what fits any device."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
import torch
from opdb import modules, optimisers
from opdb.attempt import attempt as attempt_function
from opdb.attempt import tried
from opdb.database import functions, has, name_of, samples

pytestmark = pytest.mark.usefixtures("session")

DTYPES = [torch.float32, torch.float64]
#: Of all combinations one in so many is tried; all are slow.
STRIDE = 12
SEED = int(os.environ.get("GENIE_SEED", random.randrange(1 << 32)))


def drawn(every: list[Any], whole: bool) -> list[Any]:
    print(f"GENIE_SEED={SEED} draws the same ones again")
    return every if whole else random.Random(SEED).sample(every, max(1, len(every) // STRIDE))


def check(every: list[Any], attempt: Any, name: Any) -> None:
    failures, compared = tried(every, attempt, name)
    assert compared > len(every) // 2, f"{compared} of {len(every)}"
    assert not failures, "\n".join(failures)


WHOLE = pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["drawn", "all"]
)


@WHOLE
def test_modules(whole: bool) -> None:
    every = [
        (entry, given, dtype, training, way)
        for entry in modules.modules()
        for dtype in DTYPES
        if dtype in entry.dtypes
        for training in (True, False)
        for given in modules.inputs(entry, dtype, training)
        for way in modules.WAYS
    ]

    def name(entry: Any, given: Any, dtype: torch.dtype, training: bool, way: str) -> str:
        mode = "training" if training else "eval"
        return f"{modules.name_of(entry)} ({given.desc}) {dtype} {mode} {way}"

    check(drawn(every, whole), modules.attempt, name)


@WHOLE
def test_optimisers(whole: bool) -> None:
    every = [
        (entry, desc, arguments, saves)
        for entry in optimisers.optimisers()
        for desc, arguments in optimisers.configurations(entry)
        for saves in (False, True)
    ]

    def attempt(entry: Any, _desc: str, arguments: Any, saves: bool) -> None:
        optimisers.attempt(entry, arguments, saves=saves)

    def name(entry: Any, desc: str, _arguments: Any, saves: bool) -> str:
        return f"{optimisers.name_of(entry)} ({desc}){', saved' if saves else ''}"

    check(drawn(every, whole), attempt, name)


def test_functions_of_a_program() -> None:
    every = [
        (operator, sample, variant)
        for operator in functions()
        for variant in ("functional", "gradient", "second")
        if has(operator, torch.float32 if variant != "second" else torch.float64, variant)
        for sample in samples(operator, torch.float32, variant, 3)
    ]
    check(every, attempt_function, lambda op, _, way: f"{name_of(op)} {way}")
