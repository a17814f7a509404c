"""A session of several devices, as ``torch.cuda`` has it: which is current, streams, copies."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from support import clone
from torch import nn

D = "remote_accelerator"
WRONG = "remote_accelerator:3 does not exist"


@pytest.fixture(autouse=True)
def session(three_devices: Daemon) -> Iterator[None]:
    """This process connected to three devices, the first one current."""
    genie.connect(three_devices.address)
    yield
    for index in range(3):
        module().set_stream(module().default_stream(index))
    module().set_device(0)
    genie.disconnect()


def module() -> Any:
    """The device module."""
    return torch.remote_accelerator  # type: ignore[attr-defined]


def at(index: int) -> torch.device:
    """A device."""
    return torch.device(D, index)


def made() -> set[int | None]:
    """Where factories put tensors that are told a type of device, and no index."""
    tensors = (
        torch.ones(2, device=D), torch.empty(2, device=D), torch.rand(2, device=D),
        torch.arange(2, device=D), torch.tensor([1.0], device=D), torch.ones(2).to(D),
        torch.randperm(3, device=D), nn.Linear(1, 1).to(D).weight, nn.Linear(1, 1, device=D).weight,
        torch.empty_strided((2,), (1,), device=D), torch.ones(2).remote_accelerator(),
        torch.ones(2).pin_memory().to(D, non_blocking=True),
    )  # fmt: skip
    indices = {tensor.device.index for tensor in tensors}
    indices |= {module().current_device(), torch.accelerator.current_device_index()}
    return indices | {module().current_stream().device.index}


# ---- which is current ---------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(3))
def test_what_names_no_index_goes_to_the_current_device(index: int) -> None:
    for name in (index, f"{D}:{index}", at(index)):
        module().set_device(name)
        assert made() == {index}
        module().set_device(0)
        torch.accelerator.set_device_index(name)
        assert made() == {index}
        module().set_device(0)
        with module().device(name):
            assert made() == {index}
        assert made() == {0}
    with torch.accelerator.device_index(index):
        assert made() == {index}
    with module().device_of(torch.ones(1, device=at(index))):
        assert made() == {index}
    with module().stream(module().Stream(index)):
        assert made() == {index}
    assert made() == {0}
    torch.accelerator.set_stream(torch.Stream(device=at(index)))
    assert made() == {index}
    module().set_device(D)
    assert made() == {index}


def test_what_means_no_device_leaves_the_current_one() -> None:
    module().set_device(2)
    module().set_device(-1)
    with module().device(-1), module().device(None), module().device_of(torch.ones(1)):
        assert made() == {2}
    with module().stream(None), torch.accelerator.device_index(None):
        assert made() == {2}
    chosen = module().device(1)
    for _ in range(2):
        with chosen:
            assert made() == {1}
        assert made() == {2}


def test_a_device_context_and_a_default_device() -> None:
    def found() -> set[str]:
        tensors = (
            torch.ones(2), torch.tensor([1]), torch.randn(2), torch.arange(3), torch.as_tensor([1]),
            torch.eye(2), torch.linspace(0, 1, 3), torch.full((2,), 1), nn.Linear(1, 1).weight,
            torch.randperm(3), torch.empty(2),
        )  # fmt: skip
        return {str(tensor.device) for tensor in tensors}

    with torch.device(at(1)):
        assert found() == {f"{D}:1"}
        with torch.device("cpu"):
            assert found() == {"cpu"}
        with module().device(2):
            assert found() == {f"{D}:1"}
    with torch.device(D), module().device(2):
        assert found() == {f"{D}:2"}
    for default in (f"{D}:2", at(2), 2):
        torch.set_default_device(default)
        try:
            assert found() == {f"{D}:2"}
            assert torch.get_default_device() == at(2)
        finally:
            torch.set_default_device(None)
    assert found() == {"cpu"}


def test_what_is_made_of_a_tensor_lies_where_it_lies() -> None:
    with module().device(1):
        x = torch.rand(4, 4, device=at(2))
        for like in (
            torch.ones_like(x), torch.rand_like(x), x.new_zeros(2), x.new_tensor([1.0]), x.clone(),
            x[0], x @ x, x.nonzero(), x.sort()[0], torch.stack([x, x]), torch.linalg.inv(x),
            torch.tensor(x), x.double(), torch.fft.fft(x), x[x > 0], x[torch.tensor([0])],
            torch.multinomial(x, 1), torch.bernoulli(x), nn.functional.dropout(x), x.unique(),
            x * torch.tensor(2.0), x.to_sparse_csr(), copy.deepcopy(x), x.to(torch.int32),
        ):  # fmt: skip
            assert like.device == at(2)
        assert x.get_device() == 2
        # As on CUDA, a type without an index is the current device, wherever the tensor is.
        assert x.to(D).device == at(1)


# ---- a device that is not there -----------------------------------------------------------------


ASKED: dict[str, Callable[[Any], Any]] = {
    "device": lambda wrong: module().device(wrong).__enter__(),
    "get_rng_state": lambda wrong: module().get_rng_state(wrong),
    "mem_get_info": lambda wrong: module().mem_get_info(wrong),
    "memory_allocated": lambda wrong: module().memory_allocated(wrong),
    "can_device_access_peer": lambda wrong: module().can_device_access_peer(0, wrong),
    "set_device": lambda wrong: module().set_device(wrong),
    "Stream": lambda wrong: module().Stream(wrong),
    "current_stream": lambda wrong: module().current_stream(wrong),
    "synchronize": lambda wrong: module().synchronize(wrong),
}


@pytest.mark.parametrize("name", ASKED)
def test_who_asks_for_a_device_that_is_not_there_is_told(name: str) -> None:
    for wrong in (3, f"{D}:3", at(3)):
        with pytest.raises(torch.AcceleratorError, match=f"invalid device ordinal.*{WRONG}"):
            ASKED[name](wrong)
    assert made() == {0}


def test_a_tensor_cannot_be_made_there() -> None:
    x = torch.ones(1, device=D)
    for make in (
        lambda: torch.ones(1, device=at(3)),
        lambda: torch.tensor([1], device=3),
        lambda: torch.ones(1).to(at(3)),
        lambda: x.to(3),
        lambda: nn.Linear(1, 1).to(at(3)),
    ):
        with pytest.raises(RuntimeError, match=WRONG):
            make()
    file = io.BytesIO()
    torch.save(x, file)
    with pytest.raises(RuntimeError, match="device_count"):
        torch.load(io.BytesIO(file.getvalue().replace(f"{D}:0".encode(), f"{D}:3".encode())))


# ---- from one to another ------------------------------------------------------------------------


@pytest.mark.parametrize("non_blocking", [False, True])
def test_copies_between_devices(non_blocking: bool) -> None:
    local = torch.randn(40, 30)
    x = local.to(at(0))
    before = genie.stats()["round_trips"]
    moved = x.to(at(1), non_blocking=non_blocking).to(at(2), torch.float64, non_blocking)
    into = torch.zeros(30, 40, device=at(0)).copy_(moved.t(), non_blocking)
    into[:3] = x.t()[:3].to(at(1))
    assert genie.stats()["round_trips"] == before
    assert moved.device == at(2)
    assert torch.equal(moved.cpu(), local.double())
    assert torch.equal(into.cpu(), local.t())
    assert x.to(at(0)) is x
    assert x.to(at(0), copy=True) is not x


def test_gradients_go_the_way_back() -> None:
    def gradients(places: list[Any]) -> list[torch.Tensor]:
        a, b = (clone(one).to(places[0]).requires_grad_() for one in leaves)
        z = (a.to(places[1]) * b.to(places[1])).sin().to(places[2], torch.float64).exp().sum()
        first = torch.autograd.grad(z, (a, b), create_graph=True)
        assert [one.device for one in first] == [a.device, b.device]
        (first[0] * first[1]).sum().backward()
        assert a.grad is not None
        return [*first, a.grad]

    leaves = [torch.randn(5), torch.randn(5)]
    ours, theirs = gradients([at(0), at(1), at(2)]), gradients(["cpu"] * 3)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.cpu(), other)


def test_a_hook_runs_with_its_tensors_device_current() -> None:
    x = torch.ones(2, device=at(2), requires_grad=True)
    seen: list[Any] = []
    x.register_hook(lambda _: seen.append((module().current_device(), made())))
    (x * 2).sum().backward()
    assert seen == [(2, {2})]


def test_copies_of_objects_keep_their_index(tmp_path: Path) -> None:
    model = nn.Linear(2, 2).to(at(2))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.weight.device == at(2)
        assert torch.equal(copied.weight, model.weight)
    assert copy.copy(model.weight).device == at(2)
    assert pickle.loads(pickle.dumps(at(2))) == at(2)
    torch.save([torch.ones(1, device=at(1)), torch.ones(1, device=at(2))], tmp_path / "two")
    for target, wanted in (
        (None, [1, 2]), (D, [0, 0]), (at(2), [2, 2]), ({f"{D}:1": f"{D}:0"}, [0, 2]),
        (lambda storage, _: storage.remote_accelerator(1), [1, 1]),
    ):  # fmt: skip
        found = torch.load(tmp_path / "two", map_location=target)
        assert [tensor.device.index for tensor in found] == wanted
    with module().device(1):
        found = torch.load(tmp_path / "two", map_location=D)
        assert [tensor.device.index for tensor in found] == [1, 1]


# ---- streams, events, generators ----------------------------------------------------------------


@pytest.mark.parametrize("index", range(3))
def test_streams_and_events_are_of_a_device(index: int) -> None:
    stream = torch.Stream(device=at(index))
    assert stream.device == at(index)
    assert stream != module().Stream(index)
    assert module().default_stream(index) == torch.accelerator.current_stream(at(index))
    with stream:
        assert module().current_device() == index
        assert torch.accelerator.current_stream() == stream
        assert torch.ones(1, device=D).device == at(index)
    assert module().current_device() == 0
    assert torch.accelerator.current_stream(at(index)) == module().default_stream(index)
    other = module().current_stream((index + 1) % 3)
    assert other != stream
    event = torch.Event(device=D)
    event.record(stream)
    assert event.device == at(index)
    other.wait_event(event)
    event.wait(other)
    other.wait_stream(stream)
    assert stream.record_event().query()
    with module().device(index):
        begun, ended = (torch.Event(device=D, enable_timing=True) for _ in range(2))
        begun.record()
        torch.rand(300, 300, device=D) @ torch.rand(300, 300, device=D)
        ended.record()
    assert begun.device == ended.device == at(index)
    assert begun.elapsed_time(ended) > 0
    for one in (stream, event):
        one.synchronize()
    torch.accelerator.synchronize(at(index))
    module().synchronize(index)
    torch.ones(2, device=at(index)).record_stream(other)


def test_a_sparse_tensor_may_be_on_any_device() -> None:
    for index in range(3):
        matrix = torch.eye(3, device=at(index)).to_sparse()
        assert matrix.device == at(index)
        again = torch.eye(3).to_sparse().to(at(index)).coalesce()
        assert (again + matrix).to_dense().tolist() == (2 * torch.eye(3)).tolist()
    indices = torch.tensor([[0, 1], [1, 0]], device=at(2))
    made = torch.sparse_coo_tensor(indices, torch.ones(2, device=at(2)), (2, 2))
    assert made.device == at(2)
    assert torch.eye(2, device=at(1)).to_sparse_csr().to_sparse_coo().device == at(1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: torch.accelerator.synchronize(3),
        lambda: torch.Stream(device=at(3)),
        lambda: torch.Generator(device=at(3)),
    ],
)
def test_a_device_that_is_not_there_is_no_ordinal(call: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        call()


def test_each_device_has_its_own_generator_and_memory() -> None:
    with module().device(1):
        module().manual_seed(5)
        drawn = torch.rand(4, device=D).tolist()
        module().manual_seed(5)
        assert torch.rand(4, device=at(1)).tolist() == drawn
    state = module().get_rng_state(2)
    drawn = torch.rand(4, device=at(2)).tolist()
    torch.rand(4, device=at(1))
    module().set_rng_state(state, 2)
    assert torch.rand(4, device=at(2)).tolist() == drawn
    before = [torch.accelerator.memory_allocated(index) for index in range(3)]
    kept = torch.zeros(1 << 18, device=at(2))
    after = [torch.accelerator.memory_allocated(index) for index in range(3)]
    assert [a - b for a, b in zip(after, before, strict=True)] == [0, 0, kept.nbytes]
