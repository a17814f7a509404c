"""Tensors on the remote device behave as on any other: factories, copies, views, in-place."""

from __future__ import annotations

import gc
import math
import pickle
import time
from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from support import REMOTE, Counted, assert_same, check, to_cpu, wait_until

pytestmark = pytest.mark.usefixtures("session")

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


# --- Factories ------------------------------------------------------------------------------

FACTORIES: dict[str, Callable[[str], torch.Tensor]] = {
    "zeros": lambda device: torch.zeros(3, 4, device=device),
    "ones": lambda device: torch.ones(2, 0, 3, device=device),
    "full": lambda device: torch.full((5,), 2.5, device=device),
    "arange": lambda device: torch.arange(3, 20, 4, device=device),
    "arange of floats": lambda device: torch.arange(0.0, 1.0, 0.3, device=device),
    "linspace": lambda device: torch.linspace(-1, 1, 7, device=device),
    "eye": lambda device: torch.eye(4, 3, device=device),
    "tensor": lambda device: torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=device),
    "scalar tensor": lambda device: torch.tensor(7, device=device),
    "zeros_like": lambda device: torch.zeros_like(torch.ones(2, 3, device=device)),
    "full_like, another dtype": lambda device: torch.full_like(
        torch.ones(4, device=device), 3, dtype=torch.int64
    ),
    "new_tensor": lambda device: torch.ones(1, device=device).new_tensor([1.0, 5.0]),
    "new_zeros": lambda device: torch.ones(1, device=device).new_zeros(2, 2),
    "tril": lambda device: torch.ones(4, 4, device=device).tril(-1),
    "strided": lambda device: torch.empty_strided((2, 3), (1, 2), device=device).fill_(4),
}


@pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES.keys())
def test_factory(make: Callable[[str], torch.Tensor]) -> None:
    remote = make(REMOTE)
    assert_same(remote, make("cpu"))
    assert remote.device == torch.device(REMOTE)
    assert remote.stride() == make("cpu").stride()


def test_the_device_is_a_real_one() -> None:
    tensor = torch.ones(1, device="remote_accelerator")
    assert tensor.device == torch.device("remote_accelerator", 0)
    assert not tensor.is_cpu
    assert tensor.get_device() == 0
    assert torch.remote_accelerator.is_available()
    assert torch.remote_accelerator.device_count() == 1


def test_a_device_that_the_node_does_not_have_is_refused() -> None:
    with pytest.raises(RuntimeError, match="remote_accelerator"):
        torch.ones(1, device="remote_accelerator:7").cpu()


def test_the_default_device_and_the_device_context_work() -> None:
    with torch.device(REMOTE):
        made = torch.ones(3)
    assert_same(made, torch.ones(3))


def test_random_numbers_follow_the_seed() -> None:
    def draw() -> torch.Tensor:
        return torch.cat([torch.rand(100, device=REMOTE), torch.randn(100, device=REMOTE)]).cpu()

    torch.manual_seed(5)
    first = draw()
    second = draw()
    torch.manual_seed(5)
    again = draw()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert first[:100].min() >= 0
    assert first[:100].max() < 1
    assert first[:100].unique().numel() > 90


def test_dropout_of_a_seed_drops_the_same() -> None:
    ones = torch.ones(1000, device=REMOTE)
    torch.manual_seed(3)
    first = torch.nn.functional.dropout(ones, 0.25).cpu()
    torch.manual_seed(3)
    assert torch.equal(first, torch.nn.functional.dropout(ones, 0.25).cpu())
    assert 600 < int(first.count_nonzero()) < 900


# --- Copies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_there_and_back(dtype: torch.dtype) -> None:
    local = (torch.randn(37, 5) * 50).to(dtype)
    remote = local.to(REMOTE)
    assert remote.dtype == dtype
    assert torch.equal(remote.cpu(), local)


def test_there_and_back_of_odd_shapes() -> None:
    for shape in [(), (0,), (1,), (3, 0, 2), (2, 3, 4, 5), (1 << 20,)]:
        local = torch.randn(shape)
        assert torch.equal(local.to(REMOTE).cpu(), local), shape


def test_there_and_back_of_many_megabytes() -> None:
    local = torch.arange(16 << 20, dtype=torch.float32)
    assert torch.equal(local.to(REMOTE).cpu(), local)


def test_not_contiguous_sources_and_targets() -> None:
    local = torch.arange(24.0).reshape(4, 6)
    assert_same(local.t().to(REMOTE), local.t())
    assert_same(local[:, ::2].to(REMOTE), local[:, ::2])
    target = torch.zeros(6, 4, device=REMOTE)
    target.t().copy_(local)
    assert torch.equal(target.cpu(), local.t())
    back = torch.zeros(6, 4)
    back.t().copy_(local.to(REMOTE))
    assert torch.equal(back, local.t())


def test_copy_changes_the_dtype_on_the_way() -> None:
    local = torch.tensor([1.5, -2.5, 300.0])
    assert_same(local.to(REMOTE, torch.int32), local.to(torch.int32))
    assert torch.equal(local.to(REMOTE).to("cpu", torch.float64), local.double())


def test_the_source_may_change_after_to_returned() -> None:
    local = torch.ones(1 << 18)
    remote = local.to(REMOTE)
    local.zero_()
    assert torch.equal(remote.cpu(), torch.ones(1 << 18))


def test_to_the_same_device_is_the_same_tensor() -> None:
    tensor = torch.ones(2, device=REMOTE)
    assert tensor.to(REMOTE) is tensor
    assert tensor.to(REMOTE, copy=True) is not tensor


def test_a_copy_is_a_copy() -> None:
    tensor = torch.zeros(3, device=REMOTE)
    copy = tensor.clone()
    copy.add_(1)
    assert torch.equal(tensor.cpu(), torch.zeros(3))
    assert torch.equal(copy.cpu(), torch.ones(3))


def test_item_and_other_ways_to_look() -> None:
    tensor = torch.tensor([[1.0, -2.0], [3.5, 0.0]], device=REMOTE)
    assert tensor[1, 0].item() == 3.5
    assert tensor.tolist() == [[1.0, -2.0], [3.5, 0.0]]
    assert float(tensor.sum()) == 2.5
    assert int(tensor.argmax()) == 2
    assert bool((tensor > 3).any())
    assert not torch.equal(tensor, tensor + 1)
    assert torch.allclose(tensor, tensor + 1e-9)
    assert math.isclose(tensor.abs().max().item(), 3.5)
    assert [row.tolist() for row in tensor] == tensor.tolist()
    assert tensor.cpu().numpy().sum() == 2.5
    if tensor[0, 0] < 0:
        pytest.fail("control flow saw a wrong value")


def test_item_of_several_elements_is_refused() -> None:
    with pytest.raises(RuntimeError, match="2 elements"):
        torch.ones(2, device=REMOTE).item()


def test_print_shows_the_values_and_the_device() -> None:
    local = torch.tensor([[1.0, 2.5], [-3.0, 1e-3]])
    shown = repr(local.to(REMOTE))
    assert "device='remote_accelerator:0'" in shown
    assert "".join(shown.split()).startswith("".join(repr(local).split())[:-1])
    assert "grad_fn" in repr(local.to(REMOTE).requires_grad_() * 2)


def test_metadata_asks_nobody() -> None:
    tensor = torch.ones(4, 6, device=REMOTE)
    with Counted() as counted:
        result = torch.nn.functional.linear(tensor, torch.ones(3, 6, device=REMOTE)).softmax(-1)
        assert result.shape == (4, 3)
        assert result.dtype == torch.float32
        assert result.stride() == (3, 1)
        assert len(result) == 4
        assert result.numel() == 12
    assert counted.round_trips == 0
    assert counted.operators >= 2


def test_a_chain_of_operators_costs_one_round_trip() -> None:
    local = torch.randn(8, 8)
    tensor = local.to(REMOTE)
    genie.synchronize()
    with Counted() as counted:
        value = (tensor @ tensor).relu().add(1).mean().item()
    assert counted.round_trips == 1
    assert counted.operators == 4
    assert value == pytest.approx((local @ local).relu().add(1).mean().item(), abs=1e-5)


def test_synchronize_waits_once() -> None:
    torch.ones(3, device=REMOTE).add_(1)
    with Counted() as counted:
        genie.synchronize()
    assert counted.round_trips == 1


def test_pickle_brings_the_values() -> None:
    tensor = torch.arange(5.0, device=REMOTE)
    assert_same(pickle.loads(pickle.dumps(tensor)), torch.arange(5.0))


def test_dlpack_does_not_give_a_fake_address_away() -> None:
    with pytest.raises((RuntimeError, BufferError, NotImplementedError, TypeError)):
        torch.utils.dlpack.to_dlpack(torch.ones(2, device=REMOTE))


def test_numpy_wants_a_copy_first() -> None:
    with pytest.raises(TypeError, match=r"\.cpu\(\)|host memory|convert"):
        torch.ones(2, device=REMOTE).numpy()


# --- Views ----------------------------------------------------------------------------------

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transpose": lambda t: t.t(),
    "row": lambda t: t[2],
    "slice": lambda t: t[1:3, ::2],
    "element": lambda t: t[1, 4],
    "reshape": lambda t: t.view(6, 4),
    "flatten": lambda t: t.flatten(),
    "unsqueeze": lambda t: t.unsqueeze(1),
    "expand": lambda t: t[:, :1].expand(4, 9),
    "permute": lambda t: t.view(2, 2, 6).permute(2, 0, 1),
    "chunk": lambda t: t.chunk(2, 1)[1],
    "unbind": lambda t: t.unbind(0)[3],
    "narrow": lambda t: t.narrow(1, 2, 3),
    "diagonal": lambda t: t.diagonal(),
    "as_strided": lambda t: t.as_strided((3, 2), (5, 1), 2),
    "unfold": lambda t: t.unfold(1, 3, 2),
    "bits": lambda t: t.view(torch.int32),
    "view of a view": lambda t: t.t()[1:].t()[:, 2],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_view(view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    check(view, torch.randn(4, 6))


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_writing_through_a_view(view: Callable[[torch.Tensor], torch.Tensor]) -> None:
    def write(tensor: torch.Tensor) -> torch.Tensor:
        part = view(tensor)
        if part.stride() and 0 in part.stride():
            part = part[:, :1]  # an expanded element must not be written twice
        part.fill_(7)
        return tensor

    check(write, torch.randn(4, 6))


def test_views_are_free() -> None:
    tensor = torch.randn(4, 6, device=REMOTE)
    genie.synchronize()
    with Counted() as counted:
        views = [view(tensor) for view in VIEWS.values()]
    assert counted.operators == 0
    assert counted.round_trips == 0
    assert len(views) == len(VIEWS)


def test_complex_views() -> None:
    local = torch.randn(3, 2, dtype=torch.complex64)
    check(lambda t: torch.view_as_real(t) * 2, local)
    check(lambda t: t.conj() * t, local)
    check(lambda t: t.conj().imag + 1, local)
    check(lambda t: t.conj(), local)


# --- In place -------------------------------------------------------------------------------


def _index_put(tensor: torch.Tensor) -> torch.Tensor:
    tensor[torch.tensor([0, 2]), torch.tensor([1, 3])] = torch.tensor(9.0)
    return tensor


def _resize(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.resize_(8, 6).fill_(2)


def _set_item(tensor: torch.Tensor) -> torch.Tensor:
    tensor[1:3, 2:] = 5
    tensor[0] = tensor[3]
    return tensor


def _mask(tensor: torch.Tensor) -> torch.Tensor:
    tensor[tensor > 0] = 0
    return tensor


IN_PLACE: dict[str, Callable[[torch.Tensor], Any]] = {
    "add_": lambda t: t.add_(3),
    "mul_ by itself": lambda t: t.mul_(t),
    "alpha": lambda t: t.add_(t, alpha=0.5),
    "relu_": lambda t: t.relu_(),
    "clamp_": lambda t: t.clamp_(-0.5, 0.5),
    "zero_": lambda t: t.zero_(),
    "set item": _set_item,
    "index put": _index_put,
    "mask": _mask,
    "masked_fill_": lambda t: t.masked_fill_(t > 0, -1),
    "scatter_": lambda t: t.scatter_(1, torch.zeros(4, 1, dtype=torch.int64, device=t.device), 8.0),
    "copy_": lambda t: t.copy_(torch.ones(6, device=t.device)),
    "copy_ from the CPU": lambda t: t.copy_(torch.arange(6.0)),
    "resize_": _resize,
    "out=": lambda t: torch.add(t, 1, out=t),
    "out= of another size": lambda t: torch.mm(t, t.t(), out=torch.empty(0, device=t.device)),
    "addmm_": lambda t: t.addmm_(torch.ones(4, 4, device=t.device), t.clone()),
    "foreach": lambda t: torch._foreach_add_([t, t[0]], 1.5) or t,
}


@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE.keys())
def test_in_place(change: Callable[[torch.Tensor], Any]) -> None:
    check(change, torch.randn(4, 6))


def test_in_place_shows_through_every_alias() -> None:
    def run(tensor: torch.Tensor) -> list[torch.Tensor]:
        column, flat = tensor[:, 1], tensor.view(-1)
        before = flat * 2
        column.add_(10)
        return [tensor, column, flat, before]

    check(run, torch.randn(4, 6))


def test_a_version_that_autograd_saved_must_not_change() -> None:
    tensor = torch.ones(3, device=REMOTE, requires_grad=True)
    saved = tensor * 2
    result = (saved * saved).sum()
    saved.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


# --- Operators ------------------------------------------------------------------------------

OPERATORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "arithmetic": lambda t: (t + 1) * 2 - t / 3,
    "powers": lambda t: t.pow(2) + t.abs().sqrt() + t.exp(),
    "matmul": lambda t: t @ t.t(),
    "batched matmul": lambda t: t.view(2, 2, 6) @ t.view(2, 6, 2),
    "einsum": lambda t: torch.einsum("ij,kj->ik", t, t),
    "sum": lambda t: [t.sum(), t.sum(0), t.sum(1, keepdim=True)],
    "mean and variance": lambda t: [t.mean(1), t.var(1), t.std(0)],
    "max with indices": lambda t: list(t.max(1)),
    "topk": lambda t: list(t.topk(3, 1)),
    "sort": lambda t: list(t.sort(1)),
    "cumsum": lambda t: t.cumsum(1),
    "softmax": lambda t: [t.softmax(1), t.log_softmax(0)],
    "where": lambda t: torch.where(t > 0, t, -t),
    "cat": lambda t: torch.cat([t, t * 2], 1),
    "stack": lambda t: torch.stack([t, t + 1]),
    "split": lambda t: [part + 1 for part in t.split([1, 3])],
    "index": lambda t: t[torch.tensor([3, 0, 0])],
    "index on the device": lambda t: t[torch.tensor([3, 0, 0], device=t.device)],
    "index_select": lambda t: t.index_select(1, torch.tensor([5, 1], device=t.device)),
    "gather": lambda t: t.gather(1, torch.tensor([[1], [2], [0], [5]], device=t.device)),
    "boolean mask": lambda t: t[t > 0],
    "nonzero": lambda t: (t > 0).nonzero(),
    "unique": lambda t: t.round().unique(),
    "embedding": lambda t: torch.nn.functional.embedding(
        torch.tensor([[0, 2], [3, 1]], device=t.device), t
    ),
    "layer norm": lambda t: torch.nn.functional.layer_norm(t, (6,)),
    "gelu": lambda t: torch.nn.functional.gelu(t, approximate="tanh"),
    "convolution": lambda t: torch.nn.functional.conv1d(
        t.view(1, 4, 6), torch.ones(2, 4, 3, device=t.device), padding=1
    ),
    "pooling": lambda t: torch.nn.functional.max_pool1d(t.view(1, 4, 6), 2),
    "attention": lambda t: torch.nn.functional.scaled_dot_product_attention(
        t.view(1, 2, 2, 6), t.view(1, 2, 2, 6), t.view(1, 2, 2, 6), is_causal=True
    ),
    "cross entropy": lambda t: torch.nn.functional.cross_entropy(
        t, torch.tensor([1, 0, 5, 3], device=t.device)
    ),
    "comparison": lambda t: [t > 0, t.eq(t), t.isnan().any()],
    "dtypes": lambda t: [t.half().float(), t.to(torch.int64), t.double() + 1],
    "type promotion": lambda t: t + torch.ones(6, dtype=torch.int64, device=t.device),
    "flip and roll": lambda t: [t.flip(0), t.roll(2, 1)],
    "repeat": lambda t: [t.repeat(2, 1), t.repeat_interleave(2, 0)],
    "linear algebra": lambda t: torch.linalg.solve(t @ t.t() + torch.eye(4, device=t.device), t),
    "norms": lambda t: [t.norm(), torch.linalg.vector_norm(t, 1, dim=1)],
    "padding": lambda t: torch.nn.functional.pad(t, (1, 2), value=3.0),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_operator(operator: Callable[[torch.Tensor], Any]) -> None:
    check(operator, torch.randn(4, 6))


def test_operators_agree_over_many_small_programs() -> None:
    """Chains of operators in random order, on values of changing shapes."""
    generator = torch.Generator().manual_seed(11)
    steps: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda t: t * 0.5 + 1,
        lambda t: t.t(),
        lambda t: t.relu(),
        lambda t: t.softmax(-1),
        lambda t: torch.cat([t, t[:1]]),
        lambda t: t[: max(1, t.shape[0] // 2)],
        lambda t: t.clone().add_(t),
        lambda t: t @ t.t(),
        lambda t: (t - t.mean()).tanh(),
    ]
    for _ in range(25):
        order = torch.randint(len(steps), (8,), generator=generator).tolist()
        local = torch.randn(5, 4, generator=generator)
        remote = local.to(REMOTE)
        for step in order:
            local, remote = steps[step](local), steps[step](remote)
            assert remote.shape == local.shape
        assert_same(remote, local)


def test_unused_tensors_are_freed_on_the_node(session: Any) -> None:
    def held() -> int:
        return sum(int(each["memory_bytes"]) for each in session.sessions())

    # What earlier tests left goes first; a node reports its memory ten times a second at most.
    gc.collect()
    genie.synchronize()
    time.sleep(0.5)
    before = held()
    tensor = torch.ones(4 << 20, device=REMOTE)
    genie.synchronize()
    wait_until(lambda: held() >= before + (16 << 20), 5, "16 MiB more are held")
    del tensor
    genie.synchronize()
    wait_until(lambda: held() < before + (16 << 20), 5, "they are given back")


def test_to_cpu_of_a_structure() -> None:
    tree = {"a": torch.ones(2, device=REMOTE), "b": [torch.zeros(1, device=REMOTE)]}
    torch.testing.assert_close(to_cpu(tree), {"a": torch.ones(2), "b": [torch.zeros(1)]})


def test_the_default_dtype_travels_with_each_operator() -> None:
    whole = torch.arange(3, device=REMOTE)
    assert (whole / 2).cpu().dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        for got in (whole / 2, torch.ones(3, device=REMOTE), torch.full((3,), 0.5, device=REMOTE)):
            assert got.dtype == torch.float64
            assert got.cpu().dtype == torch.float64
        assert_same(whole / 3, torch.arange(3) / 3)
    finally:
        torch.set_default_dtype(torch.float32)
    # The same structure again, as it was before.
    assert (whole / 2).cpu().dtype == torch.float32
