"""What a program says its tensors are for."""

from __future__ import annotations

import asyncio
import copy
import gc
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from genie import _annotate, _native
from support import REMOTE, Counted, assert_same
from torch import nn

pytestmark = pytest.mark.usefixtures("session")

PROTO = Path(__file__).parents[2] / "controlplane/srg/proto/genie/srg/v1/srg.proto"


def said(tensor: torch.Tensor) -> dict[str, str]:
    return {key: one.value for key, one in genie.inspect(tensor).annotations.items()}


def make() -> torch.Tensor:
    return torch.ones(2, device=REMOTE) + 1


def test_a_block_says_what_is_made_inside_is_for() -> None:
    before, start = make(), time.time()
    with genie.annotate(phase="prefill", role="key", layer="3"):
        inside = make()
        view, parts = inside.view(-1), inside.chunk(2)
        before += 1
        uploaded, fetched = torch.ones(2).to(REMOTE), inside.cpu()
    after = inside + 1
    for tensor in (inside, view, *parts, uploaded):
        assert said(tensor) == {"phase": "prefill", "role": "key", "layer": "3"}
    assert said(before) == said(after) == {}
    assert fetched.tolist() == [2, 2]
    one = genie.inspect(inside).annotations["phase"]
    line = test_a_block_says_what_is_made_inside_is_for.__code__.co_firstlineno + 2
    assert one.site == f"{__file__}:{line}"
    assert start <= one.time <= time.time()


def test_blocks_in_one_another_merge_and_the_inner_one_decides() -> None:
    with genie.annotate(phase="encode", modality="vision"):
        with genie.annotate(phase="fusion", role="query"):
            inner = make()
        outer = make()
    assert said(inner) == {"phase": "fusion", "modality": "vision", "role": "query"}
    assert said(outer) == {"phase": "encode", "modality": "vision"}


def test_a_block_can_be_entered_again_and_within_itself() -> None:
    block = genie.annotate(role="twice")
    with block, block:
        x = make()
    with block:
        y = make()
    assert said(x) == said(y) == {"role": "twice"}
    assert said(make()) == {}


def test_a_decorated_function_a_method_and_a_coroutine() -> None:
    @genie.annotate(phase="decode")
    def count(down: int) -> list[torch.Tensor]:
        return [make(), *(count(down - 1) if down else [])]

    @genie.annotate(phase="sampling")
    async def later() -> torch.Tensor:
        await asyncio.sleep(0)
        return make()

    assert count.__name__ == "count"
    assert [said(one) for one in count(2)] == [{"phase": "decode"}] * 3
    assert said(asyncio.run(later())) == {"phase": "sampling"}
    with pytest.raises(TypeError, match="generator"):

        @genie.annotate(phase="decode")
        def parts() -> Any:
            yield 1


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"phase": "warmup"}, ValueError, "phase is one of prefill, decode"),
        ({"modality": "smell"}, ValueError, "modality is one of text"),
        ({"role": 3}, TypeError, "role is a int"),
        ({"layer": None}, ValueError, "nothing to annotate with"),
        ({}, ValueError, "nothing to annotate with"),
    ],
)
def test_what_is_wrong_is_said_at_once(given: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=re.escape(match)):
        genie.annotate(**given)


def test_the_lists_are_those_of_the_srg() -> None:
    text = PROTO.read_text()
    for key, values in _annotate.KNOWN.items():
        names = re.findall(rf"^  {key.upper()}_(\w+) = \d+;", text, re.MULTILINE)
        assert [name.lower() for name in names if name not in {"UNSPECIFIED", "UNKNOWN"}] == list(
            values
        )


def test_threads_and_tasks_have_their_own() -> None:
    found: dict[str, dict[str, str]] = {}

    def in_a_thread() -> None:
        found["thread"] = said(make())

    async def task(name: str, turns: int) -> None:
        with genie.annotate(role=name):
            for _ in range(turns):
                await asyncio.sleep(0)
                assert said(make()) == {"role": name}

    async def plain() -> None:
        for _ in range(6):
            assert said(make()) == {}
            await asyncio.sleep(0)

    async def tasks() -> None:
        # They end in another order than they begin, one of them by being cancelled.
        cancelled = asyncio.create_task(task("given up", 1000))
        await asyncio.gather(plain(), *(task(str(n), 5 - n) for n in range(4)))
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)

    with genie.annotate(phase="forward"):
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
    assert found["thread"] == {}
    asyncio.run(tasks())
    assert said(make()) == {}


def test_an_error_ends_a_block() -> None:
    with pytest.raises(ZeroDivisionError), genie.annotate(phase="decode"):
        1 / 0
    assert said(make()) == {}


@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_a_step_inside_is_the_same_step(way: str) -> None:
    torch.compiler.reset()
    local = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2))
    remote = copy.deepcopy(local).to(REMOTE)
    run = remote if way == "eager" else torch.compile(remote, backend="genie")
    x = torch.randn(3, 4)
    counts = []
    for annotation in ("decode", None, "decode"):
        remote.zero_grad()
        there = x.to(REMOTE)
        with Counted() as counted:
            if annotation:
                with genie.annotate(phase=annotation):
                    result = run(there)
                    result.square().sum().backward()
                assert said(result) == {"phase": annotation}
            else:
                result = run(there)
                result.square().sum().backward()
                assert said(result) == {}
        counts.append(counted.operators)
        assert_same(result, local(x))
    assert counts[0] == counts[1] == counts[2]
    local(x).square().sum().backward()
    for wanted, got in zip(local.parameters(), remote.parameters(), strict=True):
        assert_same(got.grad, wanted.grad)


def test_notes_go_with_their_tensors_and_not_into_files(tmp_path: Path) -> None:
    before = _native.annotations()
    with genie.annotate(role="kept"):
        tensors = [make() for _ in range(10)]
    assert _native.annotations() == before + 1
    torch.save(tensors[0], tmp_path / "one.pt")
    assert said(torch.load(tmp_path / "one.pt")) == {}
    last = tensors.pop()
    tensors.clear()
    gc.collect()
    assert said(last) == {"role": "kept"}
    # A thread without Python's lock may let go of a tensor last.
    last.requires_grad_().sum().backward()
    del last
    gc.collect()
    assert _native.annotations() == before


def test_nobody_is_asked_outside() -> None:
    gc.collect()
    before = _native.annotations()
    with genie.annotate(role="inside"):
        assert _native.annotations() == before + 1
        with genie.annotate(role="deeper"):
            assert _native.annotations() == before + 2
    assert _native.annotations() == before


VIEWS: list[Callable[[torch.Tensor], Any]] = [
    lambda x: x.view(4, 3),
    lambda x: x.view(torch.int32),
    lambda x: x[1:],
    lambda x: x[0],
    lambda x: x[None, ..., 1],
    lambda x: x.t(),
    lambda x: x.permute(1, 0),
    lambda x: x.expand(2, 3, 4),
    lambda x: x.unsqueeze(0).squeeze(0),
    lambda x: x.unfold(1, 2, 1),
    lambda x: x.chunk(2),
    lambda x: x.split([1, 2]),
    lambda x: x.unbind(),
    lambda x: x.diagonal(),
    lambda x: x.reshape(2, 6),
    lambda x: x.detach(),
    lambda x: x.as_strided((2, 2), (1, 1)),
    lambda x: torch.view_as_complex(x.view(3, 2, 2)),
    lambda x: torch.view_as_real(x.to(torch.complex64)),
    lambda x: x.to(torch.complex64).conj(),
    lambda x: x.to(torch.complex64).conj().imag,
    lambda x: torch.ops.aten.alias(x),
    lambda x: x.narrow(0, 1, 2),
    lambda x: x.movedim(0, 1),
    lambda x: x.unflatten(1, (2, 2)).flatten(),
    lambda x: nn.Parameter(x),
]


@pytest.mark.parametrize("at", range(len(VIEWS)))
def test_views_are_made_too(at: int) -> None:
    x = torch.ones(3, 4, device=REMOTE)
    with genie.annotate(role="view"):
        made = VIEWS[at](x)
    assert said(x) == {}
    for one in made if isinstance(made, list | tuple) else [made]:
        assert said(one) == {"role": "view"}


def test_other_layouts() -> None:
    dense = torch.eye(4, device=REMOTE)
    with genie.annotate(role="made"):
        coo, csr = dense.to_sparse(), dense.to_sparse_csr()
        # PyTorch makes the tensor itself where nobody is told; not so what is made of it.
        parts = torch.nested.nested_tensor([torch.ones(3, 2), torch.ones(3, 1)], device=REMOTE)
        nested = parts.transpose(1, 2)
        jagged = torch.nested.nested_tensor(
            [torch.ones(2, 3), torch.ones(1, 3)], device=REMOTE, layout=torch.jagged
        )
        quantised = torch.quantize_per_tensor(torch.ones(4), 0.5, 0, torch.quint8).to(REMOTE)
    for one in (coo, csr, nested, jagged, quantised):
        assert said(one) == {"role": "made"}
        assert genie.inspect(one).nbytes <= genie.inspect(one).storage_nbytes
        assert genie.inspect(genie.materialize(one)).state == "materialised"
    assert genie.inspect(coo).nbytes == 4 * 4 + 2 * 4 * 8
    assert genie.inspect(coo).stride == ()
    assert genie.inspect(nested).shape == (2, -1, 3)


def test_one_block_is_shared_by_tasks() -> None:
    block = genie.annotate(role="shared")

    async def task(turns: int) -> None:
        with block:
            for _ in range(turns):
                await asyncio.sleep(0)
            assert said(make()) == {"role": "shared"}
        assert said(make()) == {}

    async def tasks() -> None:
        await asyncio.gather(task(3), task(1), task(2))

    asyncio.run(tasks())


def test_a_block_inside_what_is_compiled() -> None:
    torch.compiler.reset()

    @torch.compile(backend="genie")
    def run(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        with genie.annotate(phase="decode"):
            z = y + 1
        made.append(z)
        return z * y

    x, made = torch.randn(3), []
    for _ in range(2):
        assert_same(run(x.to(REMOTE)), (x * 2 + 1) * (x * 2))
    assert [said(one) for one in made] == [{"phase": "decode"}] * 2


def test_the_overhead_is_a_number() -> None:
    assert 0 <= genie.hook_overhead(200) < 1e-3
