"""A sample of PyTorch's operator database on the device; ``python -m opdb`` runs all of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from opdb.attempt import attempt, tried
from opdb.database import DTYPES, VARIANTS, has, name_of, operators, samples
from opdb.known import KNOWN

pytestmark = pytest.mark.usefixtures("session")
#: Of all combinations of an operator, a dtype and a variant one in so many is tried.
STRIDE = 12
SAMPLES_MAX = 3


def combinations(seed: int) -> list[tuple[Any, str, str]]:
    """Some of them, drawn."""
    every = [
        (operator, dtype, variant)
        for operator in operators()
        for dtype in DTYPES
        for variant in VARIANTS
        if has(operator, DTYPES[dtype], variant) and name_of(operator) not in KNOWN
    ]
    return random.Random(seed).sample(every, len(every) // STRIDE)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_sample_of_the_database(seed: int) -> None:
    drawn = combinations(seed)
    every = (
        (operator, sample, variant, dtype)
        for operator, dtype, variant in drawn
        for sample in samples(operator, DTYPES[dtype], variant, SAMPLES_MAX)
    )
    failures, compared = tried(
        every,
        lambda operator, sample, variant, _dtype: attempt(operator, sample, variant),
        lambda operator, _sample, variant, dtype: f"{name_of(operator)} {dtype} {variant}",
    )
    assert compared > len(drawn)
    assert not failures, "\n".join(failures)
