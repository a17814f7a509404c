"""Which line of the program an operator is said to be of."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import genie
import pytest
import torch
from genie import _native
from support import REMOTE
from torch import nn

pytestmark = pytest.mark.usefixtures("session")


def lines(run: Callable[[], object], times: int = 3) -> list[str]:
    """The lines of the operators that it records: the same each time, asked for or known."""
    found = []
    for _ in range(times):
        with genie.profile() as profile:
            run()
        found.append([one.line for one in profile.records if one.kind == "operator"])
    assert all(one == found[0] for one in found), found
    return found[0]


def here(back: int = 1) -> int:
    return sys._getframe(back).f_lineno


def at(line: int, name: str, file: str = __file__) -> str:
    return f'File "{file}", line {line}, in {name}'


def test_frames_are_read_in_place() -> None:
    assert _native.reads_frames() == (sys.version_info[:2] == (3, 11))


def test_each_line_is_its_own() -> None:
    x = torch.ones(3, device=REMOTE)
    first = here() + 3

    def work() -> torch.Tensor:
        y = x + 1
        z = y * 2
        for _ in range(2):
            z = z - 1
        return z.relu()

    assert lines(work) == [at(first + plus, "work") for plus in (0, 1, 3, 3, 4)]


def test_modules_of_pytorch_are_passed_over() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.LayerNorm(3))).to(REMOTE)
    x = torch.ones(2, 3, device=REMOTE)

    def forward() -> None:
        model(x)
        line.append(here() - 1)

    line: list[int] = []
    assert set(lines(forward)) == {at(line[0], "forward")}


def numbers_of(count: int) -> Iterator[torch.Tensor]:
    for number in range(count):
        yield torch.ones(2, device=REMOTE) * number


def test_generators_and_recursion() -> None:
    def deep(depth: int) -> Any:
        return [one + depth for one in numbers_of(2)] if depth == 0 else deep(depth - 1) * 1

    found = lines(lambda: deep(20))
    assert {one.rpartition(", in ")[2] for one in found} <= {"numbers_of", "<listcomp>", "deep"}
    assert len(set(found)) >= 2


def test_threads_have_lines_of_their_own() -> None:
    x = torch.ones(3, device=REMOTE)

    def one() -> None:
        for _ in range(50):
            x.add(1)

    def other() -> None:
        for _ in range(50):
            x.mul(1)

    def both() -> None:
        threads = [threading.Thread(target=work) for work in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with genie.profile() as profile:
        both()
    names = {one.name: set() for one in profile.records if one.kind == "operator"}
    for record in profile.records:
        if record.kind == "operator":
            names[record.name].add(record.line.rpartition(", in ")[2])
    assert names == {"aten::add.Tensor": {"one"}, "aten::mul.Tensor": {"other"}}


def made(number: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Code that is made as the program runs, in a file of its own."""
    space: dict[str, Any] = {}
    source = "\n" * (number % 7) + "def f(x): return x + 1\n"
    exec(compile(source, f"made_{number}.py", "exec"), space)
    function: Callable[[torch.Tensor], torch.Tensor] = space["f"]
    return function


def test_code_that_comes_and_goes() -> None:
    """An address that one code object had may be another's later."""
    x = torch.ones(3, device=REMOTE)
    wrong = []
    with genie.profile() as profile:
        for number in range(6000):
            made(number)(x)
    operators = [one for one in profile.records if one.kind == "operator"]
    for number, one in enumerate(operators):
        expected = at(number % 7 + 1, "f", f"made_{number}.py")
        if one.line != expected:
            wrong.append((one.line, expected))
    assert len(operators) == 6000
    assert wrong == []
    line: list[int] = []

    def still() -> None:
        x.add(1)
        line.append(here() - 1)

    assert lines(still) == [at(line[0], "still")]
