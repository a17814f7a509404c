"""The operators of PyTorch's own database, and their samples."""

from __future__ import annotations

import importlib
import itertools
import sys
import types
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

import torch

#: The dtypes that are tried.
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "complex64": torch.complex64,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
#: What is done with a sample.
VARIANTS = ("functional", "noncontiguous", "inplace", "out", "gradient", "second")


def operators() -> list[Any]:
    """All entries."""
    return list(internal("common_methods_invocations").op_db)


def functions() -> list[Any]:
    """Functions that define their own backward, and operators that a program defines."""
    custom = internal("custom_op_db").custom_op_db
    every = [*internal("autograd_function_db").autograd_function_db, *custom]
    # It writes an array that shares a tensor's memory, which is so on the CPU alone.
    return [one for one in every if one.name != "NumpyExpMarkDirtyAutogradFunction"]


def internal(name: str) -> Any:
    """A module of PyTorch's own tests, which its wheel has."""
    # It is asked for by torch.testing's own base class, and nothing of it is used here.
    stub = types.ModuleType("expecttest")
    stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    sys.modules.setdefault("expecttest", stub)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torch.testing._internal.{name}")


def name_of(operator: Any) -> str:
    """How the database calls an operator and its variant."""
    test_name = operator.variant_test_name
    return f"{operator.name}.{test_name}" if test_name else str(operator.name)


def has(operator: Any, dtype: torch.dtype, variant: str) -> bool:
    """Whether the database says that the CPU can do this."""
    if dtype not in operator.dtypes:
        return False
    match variant:
        case "noncontiguous":
            # Their samples are sparse.
            return not operator.name.startswith("sparse.")
        case "inplace":
            return operator.get_inplace() is not None
        case "out":
            return bool(operator.supports_out)
        case "gradient":
            is_smooth = dtype.is_floating_point or dtype.is_complex
            return is_smooth and operator.supports_autograd and dtype in operator.backward_dtypes
        case "second":
            return bool(operator.supports_gradgrad) and dtype == torch.float64
    return True


def samples(operator: Any, dtype: torch.dtype, variant: str, most: int) -> Iterator[Any]:
    """Some of an operator's samples on the CPU, the same in each run."""
    torch.manual_seed(0)
    wants_gradient = variant in ("gradient", "second")
    found = operator.sample_inputs("cpu", dtype, requires_grad=wants_gradient)
    for sample in itertools.islice(found, most):
        # What would have to grow is not written in place.
        if variant == "inplace" and sample.broadcasts_input:
            continue
        yield sample.noncontiguous() if variant == "noncontiguous" else sample
