"""Operators that wait because the program says so."""

from __future__ import annotations

import genie
import pytest
import torch
from support import REMOTE, Counted

pytestmark = pytest.mark.usefixtures("session")


def round_trips(x: torch.Tensor) -> int:
    genie.synchronize()
    with Counted() as counted:
        ((x @ x).tanh() + x).relu_()
    return counted.round_trips


@pytest.mark.parametrize(
    ("operator", "count"),
    [
        ("aten::mm", 1),
        ("aten::add", 1),
        ("aten::add.Tensor", 1),
        ("aten::add.Scalar", 0),
        (torch.ops.aten.relu_, 1),
        (torch.ops.aten.tanh.default, 1),
        ("aten::sin", 0),
    ],
)
def test_calls_wait(operator: str, count: int) -> None:
    x = torch.eye(3, device=REMOTE)
    assert round_trips(x) == 0
    with genie.register_trigger(operator):
        assert round_trips(x) == count
    assert round_trips(x) == 0


def test_a_failure_is_raised_at_the_call() -> None:
    table, at = torch.zeros(4, device=REMOTE), torch.tensor([9], device=REMOTE)
    with genie.register_trigger("aten::index"), pytest.raises(IndexError, match="out of bounds"):
        table[at]
    assert table.tolist() == [0.0] * 4


def test_two_of_one_operator() -> None:
    x = torch.eye(3, device=REMOTE)
    one, other = genie.register_trigger("aten::mm"), genie.register_trigger(torch.ops.aten.mm)
    one.remove()
    one.remove()
    assert round_trips(x) == 1
    assert "removed" in repr(one)
    assert "removed" not in repr(other)
    other.remove()
    assert round_trips(x) == 0


@pytest.mark.parametrize("operator", ["aten::matmul", "aten::view", torch.ops.aten.reshape])
def test_what_is_not_recorded(operator: str) -> None:
    with pytest.raises(ValueError, match="never recorded"):
        genie.register_trigger(operator)


@pytest.mark.parametrize("operator", ["mm", "aten::no_such", "aten::add.NoSuch", "nobody::mm"])
def test_what_is_no_operator(operator: str) -> None:
    with pytest.raises(ValueError, match="no operator"):
        genie.register_trigger(operator)


def test_another_kind() -> None:
    with pytest.raises(TypeError, match="function"):
        genie.register_trigger(torch.mm and (lambda: None))  # type: ignore[arg-type]
