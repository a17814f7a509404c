"""Records of an earlier run, appended again without PyTorch: what they give, and when not."""

from __future__ import annotations

import functools
import gc
import random
import warnings
from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from support import DEVICE, REMOTE, Counted, assert_same, at_once, pair
from torch import nn
from watched import Block, compiled, plans, programs

pytestmark = pytest.mark.usefixtures("session", "compiled_anew")

#: A tape is made in the second run of a kind, and taken from the third on.
RUNS = 6


def taped() -> int:
    return sum(plan.programs.taped for plan in plans)


def called() -> list[int]:
    """How many steps each tape still calls."""
    return [
        tape for plan in plans for native in plan.programs.natives for tape in native.taped()[1]
    ]


def leaves(value: Any) -> list[torch.Tensor]:
    return [one for one in torch.utils._pytree.tree_leaves(value) if isinstance(one, torch.Tensor)]


def version(tensor: torch.Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def kinship(tensors: list[torch.Tensor]) -> Any:
    """Which of them are one tensor, and which share memory."""
    storages = [one.untyped_storage().data_ptr() for one in tensors]
    return (
        [[a is b for a in tensors] for b in tensors],
        [[a == b for a in storages] for b in storages],
        [one._is_view() for one in tensors],
    )


def check_run(function: Any, fast: Any, shapes: list[tuple[int, ...]]) -> None:
    """What it gives, what it wrote, and what sees a later write are the same there and here."""
    inputs = [torch.randn(shape) for shape in shapes]
    there = [one.to(REMOTE) for one in inputs]
    before = [version(one) for one in inputs], [version(one) for one in there]
    expected, found = function(*inputs), fast(*there)
    assert_same(found, expected)
    assert_same(there, inputs)
    for mine, its, old, its_old in zip(inputs, there, *before, strict=True):
        assert old is None or version(its) - its_old == version(mine) - old
    mine, its = leaves(expected) + inputs, leaves(found) + there
    assert kinship(its) == kinship(mine)
    for one in (*leaves(expected), *leaves(found)):
        if one.is_floating_point() and 0 not in one.stride():
            one.add_(1)
    assert_same(its, mine)


def both(function: Any, shapes: list[tuple[int, ...]]) -> None:
    """Run it there, compiled, and here, again and again."""
    fast = compiled(function)
    held = []
    for _ in range(RUNS):
        check_run(function, fast, shapes)
        gc.collect()
        held.append(torch.accelerator.memory_allocated())
    assert held[-1] == held[1], "memory grows"


def chain(x: torch.Tensor) -> torch.Tensor:
    return ((x + 1) * 2).relu().sum(-1)


def views(x: torch.Tensor) -> Any:
    y = (x * 2).relu() + 1
    return y, y.t(), y[1:], x[0], x, y.view(-1)


def writes_inputs(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.add_(1).mul_(2)
    y[:, 1].copy_(x[:, 0])
    y.index_copy_(0, torch.tensor([1], device=y.device), x[:1] * 3)
    return (x + y).relu()


def a_view_outlives_its_base(x: torch.Tensor) -> torch.Tensor:
    y = (x + 1).view(-1)
    z = (y * 2)[2:]
    del y
    w = x * 3
    return (z + w.view(-1)[2:]).relu().unsqueeze(0)


def a_view_outlives_what_a_call_takes(x: torch.Tensor) -> torch.Tensor:
    y = (x + 1).relu()
    z = y.view(-1)
    # Memory alone is no record of an operator: that is called, and takes y for the last time.
    empty = torch.empty_like(y)
    return (z * 2).relu() + empty.copy_(x).view(-1)


def parts(x: torch.Tensor) -> Any:
    a, b = (x * 2).chunk(2, -1)
    c, d = torch.split(torch.cat([a, b, a], -1).softmax(-1), 3, -1)[:2]
    return a.contiguous() + 1, c * d, torch.var_mean(b, -1), b


def makes(x: torch.Tensor) -> Any:
    n = x.shape[-1]
    mask = torch.full((n, n), float("-inf"), device=x.device).triu(1)
    at = torch.arange(n, device=x.device)
    empty = torch.empty(n, device=x.device)
    empty.copy_(at)
    return (x @ x.t() * 0.1)[:, :1] + mask, at + 1, torch.zeros_like(x) + empty, at


def twice_the_same(x: torch.Tensor) -> Any:
    y = (x + 1).relu().mul(2).add_(1)
    return y, y, [y, x], {"x": x}


def changes_shape(x: torch.Tensor) -> Any:
    y = (x * 2).add(1)
    y.unsqueeze_(0)
    z = y.relu()
    z.transpose_(0, 1)
    return y, z + 1, z


def complex_views(x: torch.Tensor) -> Any:
    z = torch.view_as_complex((x * 2).reshape(-1, 2))
    conj = z.conj()
    return (conj * z).real + 1, conj * 2, torch.view_as_real(conj.resolve_conj())


def numbers(x: torch.Tensor) -> Any:
    scale = torch.tensor(3.0) * 2
    return (x * scale + 1).relu() / x.shape[0], torch.where(x > 0, x, 0.5)


KINDS = [
    (chain, [(3, 4)]),
    (views, [(3, 4)]),
    (writes_inputs, [(3, 4), (3, 4)]),
    (a_view_outlives_its_base, [(3, 4)]),
    (a_view_outlives_what_a_call_takes, [(3, 4)]),
    (parts, [(3, 4)]),
    (makes, [(4, 4)]),
    (twice_the_same, [(3, 4)]),
    (changes_shape, [(3, 4)]),
    (complex_views, [(3, 4)]),
    (numbers, [(3, 4)]),
]


@pytest.mark.parametrize(("function", "shapes"), KINDS, ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_records_give(function: Any, shapes: Any, mode: Any) -> None:
    with mode():
        both(function, shapes)
    assert taped() >= RUNS - 2


class Random:
    """A program of random steps on a few tensors: the same ones each time that it is called."""

    WIDTH = 4

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        kinds = list(self.steps())
        self.plan = [
            (draw.choice(kinds), draw.randrange(64), draw.randrange(64), draw.randrange(4))
            for _ in range(draw.randrange(6, 24))
        ]
        self.given = sorted(draw.sample(range(64), draw.randrange(1, 4)))

    @staticmethod
    def steps() -> dict[str, Callable[[torch.Tensor, torch.Tensor, int], Any]]:
        width = Random.WIDTH
        return {
            "add": lambda a, b, n: a + b * n,
            "add_": lambda a, b, n: a.add_(b, alpha=n),
            "copy_": lambda a, b, n: a.copy_(b),
            "relu": lambda a, b, n: a.relu(),
            "matmul": lambda a, b, n: (a @ b) * 0.1,
            "t": lambda a, b, n: a.t(),
            "view": lambda a, b, n: a.reshape(-1).view(width, width),
            "row_": lambda a, b, n: a[n].mul_(0.5) if n % 2 else a[:, n].copy_(b[n]),
            "roll": lambda a, b, n: torch.cat([a[n:], b[:n]]),
            "chunk": lambda a, b, n: torch.cat(a.chunk(2, n % 2)[::-1], n % 2),
            "contiguous": lambda a, b, n: a.contiguous() + 0,
            "softmax": lambda a, b, n: a.softmax(n % 2),
            "arange": lambda a, b, n: a + torch.arange(width, device=a.device),
            "empty": lambda a, b, n: torch.empty(width, width, device=a.device).copy_(b.t()),
            "zeros": lambda a, b, n: torch.zeros_like(a).addmm_(a, b, alpha=0.1),
            "where": lambda a, b, n: torch.where(a > b, a, b.t()),
            "var": lambda a, b, n: a / torch.var_mean(b, n % 2, keepdim=True)[0].add(2),
            "expand": lambda a, b, n: a[n].expand(width, width),
            "clone": lambda a, b, n: b.clone(),
        }

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        made = [x, y]
        steps = self.steps()
        for name, a, b, n in self.plan:
            one, other = made[a % len(made)], made[b % len(made)]
            if name in {"add_", "copy_", "row_"} and (
                0 in one.stride() or one.untyped_storage() is other.untyped_storage()
            ):
                continue
            found = steps[name](one, other.clone() if name.endswith("_") else other, n)
            if found.shape == x.shape:
                made.append(found)
        return [made[at % len(made)] for at in self.given]


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed: int) -> None:
    program = Random(seed)

    def run(x: torch.Tensor, y: torch.Tensor) -> Any:
        return program(x, y)

    with torch.no_grad():
        both(run, [(4, 4), (4, 4)])


def again_and_again(local: nn.Module, remote: nn.Module, shape: tuple[int, ...]) -> None:
    """Results and buffers are those of the CPU in each run, and most runs are replayed."""
    fast = compiled(remote)
    with torch.no_grad():
        for _ in range(RUNS):
            x = torch.randn(shape)
            assert_same(fast(x.to(REMOTE)), local(x))
            assert_same(list(remote.buffers()), list(local.buffers()))
    assert taped() == RUNS - 2


def test_a_transformer_without_a_call() -> None:
    again_and_again(*pair(block().eval()), (2, 5, 8))
    assert called() == [0]


def block() -> nn.Module:
    return nn.Sequential(Block(dropout=0.5), nn.GELU(), Block(dropout=0.5))


def test_what_is_recorded_is_the_same() -> None:
    """Records, messages and memory are those of the calls."""
    _, remote = pair(block().eval())
    fast = compiled(remote)
    x = torch.randn(2, 5, 8, device=REMOTE)
    found = []
    with torch.no_grad():
        for _ in range(RUNS):
            genie.synchronize()
            gc.collect()
            torch.accelerator.reset_peak_memory_stats()
            held = torch.accelerator.memory_allocated()
            with Counted() as count:
                made = fast(x)
            peak = torch.accelerator.max_memory_allocated() - held
            found.append((count.records, count.operators, count.round_trips, peak))
            assert torch.accelerator.memory_allocated() - held == made.nbytes
            del made
            assert torch.accelerator.memory_allocated() == held
    # The first one begins a segment.
    assert len(set(found[1:])) == 1, found
    assert taped() == RUNS - 2


def test_what_called_steps_take_goes_in_time() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        for _ in range(10):
            x = nn.functional.dropout(x * 2 + 1, 0.5) + (x + 1).relu()
        return x

    fast = compiled(run)
    x = torch.randn(1 << 10, device=REMOTE)
    peaks = []
    with torch.no_grad():
        for _ in range(RUNS):
            torch.accelerator.reset_peak_memory_stats()
            held = torch.accelerator.memory_allocated()
            fast(x)
            peaks.append(torch.accelerator.max_memory_allocated() - held)
    assert max(peaks[2:]) <= peaks[0], peaks
    assert taped() == RUNS - 2


def test_random_numbers_are_drawn_anew() -> None:
    _, remote = pair(block().train())
    fast = compiled(remote)
    x = torch.randn(2, 5, 8, device=REMOTE)
    seen = []
    with torch.no_grad():
        for number in range(RUNS):
            torch.manual_seed(number)
            found = fast(x)
            torch.manual_seed(number)
            assert_same(found, remote(x).cpu())
            seen.append(found)
    assert not torch.equal(seen[-1], seen[-2])
    assert taped() == RUNS - 2
    # Those that draw, and what makes a tensor for them of another.
    assert called()[0] <= 8 < sum(programs())


def test_running_statistics_go_on() -> None:
    parts = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4)
    again_and_again(*pair(nn.Sequential(*parts)), (5, 4))


def test_a_static_cache_fills() -> None:
    local, remote = (torch.zeros(2, 8, 4, device=one) for one in ("cpu", REMOTE))

    def step(cache: torch.Tensor, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        cache.index_copy_(1, at, x)
        return (x * 2 @ cache.transpose(1, 2)).softmax(-1) @ cache + 1

    fast = compiled(step)
    with torch.no_grad():
        for number in range(8):
            x, at = torch.randn(2, 1, 4), torch.tensor([number])
            assert_same(fast(remote, x.to(REMOTE), at.to(REMOTE)), step(local, x, at))
    assert_same(remote, local)
    assert called() == [0]


def taken_for(inputs: Callable[[], list[torch.Tensor]], fast: Any, times: int = 1) -> int:
    before = taped()
    for _ in range(times):
        fast(*inputs())
    return taped() - before


def test_what_takes_no_tape() -> None:
    def run(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((x + y) * 2).relu() @ y + 1

    fast = compiled(run, dynamic=False)

    def inputs() -> list[torch.Tensor]:
        return [torch.randn(4, 4, device=REMOTE) for _ in range(2)]

    with torch.no_grad():
        assert taken_for(inputs, fast, 4) == 2
        # Strides, another offset, one tensor twice.
        assert taken_for(lambda: [one.t() for one in inputs()], fast) == 0
        assert taken_for(lambda: [torch.randn(5, 4, device=REMOTE)[1:], *inputs()[:1]], fast) == 0
        assert taken_for(lambda: inputs()[:1] * 2, fast) == 0
        assert taken_for(inputs, fast) == 1
        with genie.register_trigger("aten::relu"):
            assert taken_for(inputs, fast) == 0
        with torch.autocast(DEVICE, torch.bfloat16):
            assert taken_for(inputs, fast, 4) == 0
        with torch.profiler.profile():
            assert taken_for(inputs, fast) == 0
        assert taken_for(inputs, fast) == 1
    assert taken_for(inputs, fast, 4) == 0
    x, y = (one.requires_grad_() for one in inputs())
    for _ in range(4):
        fast(x, y).sum().backward()
    assert taken_for(lambda: [x, y], fast) == 0


def test_tapes_for_several_shapes() -> None:
    fast = compiled(chain, dynamic=False)
    with torch.no_grad():
        for _ in range(4):
            for rows in range(1, 4):
                x = torch.randn(rows, 4)
                assert_same(fast(x.to(REMOTE)), chain(x))
    assert taped() == 3 * 2


def test_what_has_no_tape_is_not_watched_for_ever() -> None:
    def kinds(x: torch.Tensor) -> torch.Tensor:
        return ((x + 1) * 2).relu().sum() + 1

    def with_a_value(x: torch.Tensor) -> torch.Tensor:
        return ((x + 1) * 2).relu()[x > 0].sum() + x.sum()

    for function in (kinds, with_a_value):
        fast = compiled(function, dynamic=False)
        with torch.no_grad():
            for _ in range(10):
                for rows in range(1, 8):
                    x = torch.randn(rows, 4)
                    assert_same(fast(x.to(REMOTE)), function(x), 1e-4)
    watched = [native.taped()[2] for plan in plans for native in plan.programs.natives]
    assert max(watched) <= 16


def test_computed_sizes_have_tapes_of_their_own() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        return (x.reshape(-1, 2) + 1).relu().view(x.shape[0], -1) * x.shape[1]

    fast = compiled(run, dynamic=True)
    with torch.no_grad():
        for _ in range(4):
            for columns in (2, 4, 6):
                x = torch.randn(3, columns)
                assert_same(fast(x.to(REMOTE)), run(x))
    assert taped() == 3 * 2


def test_more_than_is_under_way_at_once() -> None:
    """Runs that nobody looks at wait for room."""
    local, remote = pair(nn.Sequential(*(nn.Linear(4, 4) for _ in range(200))))
    fast = compiled(remote)
    x = torch.randn(2, 4)
    with torch.no_grad(), Counted() as count:
        y = x.to(REMOTE)
        for _ in range(60):
            y = fast(y) + y
        assert_same(y, functools.reduce(lambda one, _: local(one) + one, range(60), x), 1e-3)
    assert count.operators > 12_000
    assert taped() > 50


def test_a_new_session(session: Daemon) -> None:
    fast = compiled(chain)
    x = torch.randn(3, 4)
    with torch.no_grad():
        for _ in range(4):
            assert_same(fast(x.to(REMOTE)), chain(x))
        old = x.to(REMOTE)
        genie.disconnect()
        with pytest.raises(genie.NotConnectedError):
            fast(old)
        genie.connect(session.address)
        with pytest.raises(genie.StaleTensorError):
            fast(old)
        for _ in range(4):
            assert_same(fast(x.to(REMOTE)), chain(x))
    assert taped() >= 2 + 4
    gc.collect()
    assert torch.accelerator.memory_allocated() == 0


def test_from_threads() -> None:
    local, remote = pair(block().eval())
    fast = compiled(remote)

    def work(number: int) -> None:
        x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            expected = local(x)
            for _ in range(20):
                assert_same(fast(x.to(REMOTE)), expected)

    with torch.no_grad():
        fast(torch.randn(2, 5, 8, device=REMOTE))
    at_once(work, range(4))
    assert taped() > 60


def test_a_kernel_in_python_is_called() -> None:
    calls = []

    def relu6(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return x.clamp(0, 6)

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.impl("relu6", relu6, "PrivateUse1")
    try:
        fast = compiled(lambda x: torch.ops.aten.relu6(x * 4 + 1) * 2 + 1)
        x = torch.randn(3, 4)
        with torch.no_grad():
            for number in range(4):
                assert_same(fast(x.to(REMOTE)), (x * 4 + 1).clamp(0, 6) * 2 + 1)
                assert len(calls) == number + 1
    finally:
        library._destroy()
    assert taped() == 0


def test_a_profile_has_its_operators() -> None:
    fast = compiled(chain)
    x = torch.randn(3, 4, device=REMOTE)
    with torch.no_grad():
        for _ in range(3):
            fast(x).cpu()
        with genie.profile() as profile:
            fast(x).cpu()
    assert taped() == 2
    operators = [one for one in profile.records if one.kind == "operator"]
    names = [one.name.split(".")[0] for one in operators]
    assert names == ["aten::add", "aten::mul", "aten::relu", "aten::sum"]
    assert all(__file__ in one.line for one in operators)
