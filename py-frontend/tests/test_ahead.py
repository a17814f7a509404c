"""What is asked for before the program looks at it: fewer round trips, and the same values."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from support import REMOTE, at_once, counted, to_cpu
from torch import nn


def layers(count: int = 30, width: int = 8) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(count)))


def trained(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        model(torch.ones(2, 8, device=REMOTE)).square().sum().backward()
        optimizer.step()
    return optimizer


@pytest.mark.usefixtures("session")
def test_a_state_dictionary_costs_one_round_trip() -> None:
    local = layers()
    remote = layers().to(REMOTE)
    remote.load_state_dict(local.state_dict())
    found, count = counted(lambda: to_cpu(remote.state_dict()))
    torch.testing.assert_close(found, dict(local.state_dict()), rtol=0, atol=0)
    assert (count.round_trips, count.fetched_ahead) == (1, 59)
    optimizer = trained(remote)
    wanted = [{k: v.cpu() for k, v in one.items()} for one in optimizer.state.values()]
    found, count = counted(lambda: to_cpu(optimizer.state_dict()["state"]))
    torch.testing.assert_close(list(found.values()), wanted, rtol=0, atol=0)
    assert count.round_trips == 1


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("what", ["dictionaries", "a module"])
def test_saving_costs_one_round_trip(what: str) -> None:
    model = layers().to(REMOTE)
    optimizer = trained(model)
    saved = model if what == "a module" else [model.state_dict(), optimizer.state_dict()]
    file = io.BytesIO()
    _, count = counted(lambda: torch.save(saved, file))
    assert count.round_trips == 1
    file.seek(0)
    loaded = torch.load(file, map_location="cpu", weights_only=what != "a module")
    state = loaded.state_dict() if what == "a module" else loaded[0]
    torch.testing.assert_close(dict(state), to_cpu(dict(model.state_dict())), rtol=0, atol=0)


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("direction", [1, -1])
def test_numbers_in_a_loop_cost_a_few_round_trips(direction: int) -> None:
    losses = [(torch.ones(3, device=REMOTE) * i).sum() for i in range(100)][::direction]
    found, count = counted(lambda: [loss.item() for loss in losses])
    assert found == [3.0 * i for i in range(100)][::direction]
    assert count.round_trips <= 4
    assert count.round_trips + count.fetched_ahead == 100


@pytest.mark.usefixtures("session")
def test_parameters_in_a_loop() -> None:
    model = layers().to(REMOTE)
    found, count = counted(lambda: [float(p.norm()) for p in model.parameters()])
    # Each is computed when the one before was looked at: nothing is there to be asked for.
    assert (count.round_trips, count.fetched_ahead) == (60, 0)
    assert len(found) == 60


def check_what_is_written_meanwhile(
    between: Callable[[int, dict[str, torch.Tensor]], None] = lambda *_: None,
) -> None:
    """It is seen; `between` looks something else happens, too."""
    model = layers().to(REMOTE)
    state = model.state_dict()
    local = to_cpu(dict(state))
    for number, (name, value) in enumerate(state.items()):
        assert torch.equal(value.cpu(), local[name]), name
        if number % 7 == 3:
            with torch.no_grad():
                model[-1].weight.mul_(0.5)
                model[-1].bias.data.copy_(torch.full((8,), float(number)))
            local["29.weight"] *= 0.5
            local["29.bias"].fill_(float(number))
        between(number, state)
    assert local["29.bias"][0] != 0


@pytest.mark.usefixtures("session")
def test_what_is_written_meanwhile_is_seen() -> None:
    check_what_is_written_meanwhile()


def check_a_failure_meanwhile() -> None:
    """It is raised at the next look, and costs nothing else."""
    model = layers().to(REMOTE)
    values = list(model.state_dict().values())
    values[0].cpu()
    table = torch.zeros(4, device=REMOTE)
    table[torch.tensor([9], device=REMOTE)]
    with pytest.raises(IndexError, match="out of bounds"):
        values[1].cpu()
    assert torch.equal(values[1].cpu(), model[0].bias.cpu())
    assert torch.equal(values[2].cpu(), model[1].weight.cpu())


@pytest.mark.usefixtures("session")
def test_a_failure_meanwhile_is_raised_at_the_next_look() -> None:
    check_a_failure_meanwhile()


@pytest.mark.usefixtures("session")
def test_what_failed_raises_where_it_is_looked_at() -> None:
    good = [torch.full((2,), float(i), device=REMOTE) for i in range(3)]
    bad = torch.zeros(4, device=REMOTE)[torch.tensor([9, 9], device=REMOTE)]
    module = nn.Module()
    for i, tensor in enumerate([*good, bad, good[0] + 1]):
        module.register_buffer(f"b{i}", tensor)
    with pytest.raises(IndexError):
        to_cpu(module.state_dict())
    found = to_cpu({k: v for k, v in module.state_dict().items() if k != "b3"})
    assert found["b4"].tolist() == [1.0, 1.0]
    with pytest.raises(IndexError, match="out of bounds"):
        to_cpu(module.state_dict())


@pytest.mark.usefixtures("session")
def test_all_kinds_of_tensors() -> None:
    base = torch.arange(64.0, device=REMOTE)
    local = torch.arange(64.0)
    module, wanted = nn.Module(), nn.Module()
    for one, source in ((module, base), (wanted, local)):
        values = {
            "whole": source,
            "slice": source[8:24].view(4, 4),
            "transposed": source.view(8, 8).t(),
            "expanded": source[:1].expand(5),
            "strided": source[::2],
            "empty": source[:0],
            "scalar": source[3],
            "complex": torch.complex(source, source + 1).conj(),
            "half_": source.half(),
            "bool_": source > 7,
            "long_": source.long(),
            "large": source.repeat(1 << 17),
        }
        for name, value in values.items():
            one.register_buffer(name, value)
    for _ in range(2):
        found = {name: value.cpu() for name, value in module.state_dict().items()}
        torch.testing.assert_close(found, dict(wanted.state_dict()), rtol=0, atol=0)
    found = {name: value.tolist() for name, value in module.state_dict().items()}
    assert found["slice"] == local[8:24].view(4, 4).tolist()


@pytest.mark.usefixtures("session")
def test_more_than_is_asked_for_at_once() -> None:
    model = nn.ParameterList(torch.full((1 << 18,), float(i)) for i in range(40)).to(REMOTE)
    found, count = counted(lambda: [value.cpu()[0].item() for value in model.state_dict().values()])
    assert found == [float(i) for i in range(40)]
    assert count.round_trips == 1


@pytest.mark.usefixtures("session")
def test_what_is_not_taken_costs_nothing_later() -> None:
    model = layers().to(REMOTE)
    next(iter(model.state_dict().values())).cpu()
    x = torch.ones(2, 8, device=REMOTE)
    for _ in range(3):
        _, count = counted(lambda: model(x).sum().item())
        assert (count.round_trips, count.fetched_ahead) == (1, 0)
        assert count.bytes_received < 256


@pytest.mark.usefixtures("session")
def test_what_is_freed_meanwhile_is_not_asked_for() -> None:
    model = layers(6).to(REMOTE)
    values = list(model.state_dict().values())
    del model
    kept = [values[0], values[3], values[-1]]
    del values
    found, count = counted(lambda: [value.cpu().shape for value in kept])
    assert found == [torch.Size([8, 8]), torch.Size([8]), torch.Size([8])]
    assert (count.round_trips, count.fetched_ahead) == (1, 2)
    # Each dies as soon as it was looked at, and the next ones with it at last.
    losses = [torch.full((), float(i), device=REMOTE) for i in range(20)]
    assert [losses.pop(0).item() for _ in range(8)] == [float(i) for i in range(8)]
    rest = losses[6:]
    del losses
    assert [value.item() for value in rest] == [float(i) for i in range(14, 20)]
    assert torch.ones(3, device=REMOTE).sum().item() == 3


@pytest.mark.usefixtures("session")
def test_what_has_another_size_is_not_asked_for() -> None:
    module = nn.Module()
    for i in range(5):
        module.register_buffer(f"b{i}", torch.full((64,), float(i), device=REMOTE))
    state = module.state_dict()
    module.b2.untyped_storage().resize_(16)
    module.b3.resize_(1024).fill_(7)
    assert state["b0"].cpu()[0] == 0
    assert state["b1"].cpu()[0] == 1
    assert module.b3.cpu().tolist() == [7.0] * 1024
    assert state["b4"].cpu()[-1] == 4
    numbers = [torch.full((4,), float(i), device=REMOTE) for i in range(6)]
    assert [n.cpu()[0].item() for n in numbers[:2]] == [0.0, 1.0]
    numbers[4].resize_(0).untyped_storage().resize_(0)
    assert [n.cpu()[0].item() for n in numbers[2:4]] == [2.0, 3.0]
    assert torch.ones(3, device=REMOTE).sum().item() == 3


@pytest.mark.usefixtures("session")
def test_threads_that_free_what_others_might_ask_for() -> None:
    def work(_number: int) -> None:
        for _ in range(60):
            values = [torch.full((), float(i), device=REMOTE) for i in range(12)]
            while values:
                i = float(12 - len(values))
                assert values.pop(0).item() == i

    at_once(work, range(4))


@pytest.mark.usefixtures("session")
def test_tensors_without_memory_of_their_own() -> None:
    class Wrapped(torch.Tensor):
        @staticmethod
        def __new__(cls, inner: torch.Tensor) -> torch.Tensor:
            return torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=inner.device)

        @classmethod
        def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), _: Any = None) -> Any:
            return args[0] if func is torch.ops.aten.detach.default else NotImplemented

    module = nn.Module()
    for i in range(3):
        module.register_buffer(f"b{i}", Wrapped(torch.ones(2, device=REMOTE)))
    assert len(module.state_dict()) == 3
    model = layers(2).to(REMOTE)

    def norm(x: torch.Tensor) -> torch.Tensor:
        module = nn.Module()
        for i in range(3):
            module.register_buffer(f"b{i}", x * i)
        return sum(value.sum() for value in module.state_dict().values())

    found = torch.func.vmap(norm)(torch.ones(4, 2, device=REMOTE))
    assert found.tolist() == [6.0] * 4
    found = torch.func.grad(norm)(torch.ones(2, device=REMOTE))
    assert found.tolist() == [0.0, 0.0]
    assert len(torch.func.stack_module_state([model, model])[0]) == 4


@pytest.mark.usefixtures("session")
def test_threads() -> None:
    def work(local: nn.Module) -> None:
        remote = layers().to(REMOTE)
        for _ in range(10):
            remote.load_state_dict(local.state_dict())
            found = to_cpu(dict(remote.state_dict()))
            torch.testing.assert_close(found, dict(local.state_dict()), rtol=0, atol=0)

    at_once(work, [layers() for _ in range(4)])


def test_another_session_and_a_pool(daemon: Daemon) -> None:
    genie.disconnect()
    for placement in ("pinned", "pool", "pinned"):
        genie.connect(daemon.address, placement=placement)
        local = layers()
        remote = layers().to(REMOTE)
        remote.load_state_dict(local.state_dict())
        old = remote.state_dict()
        next(iter(old.values())).cpu()
        torch.testing.assert_close(to_cpu(dict(old)), dict(local.state_dict()), rtol=0, atol=0)
        genie.disconnect()
        with pytest.raises(genie.GenieError):
            to_cpu(old)


def test_a_node_that_is_lost_meanwhile(make_daemon: Callable[..., Daemon]) -> None:
    node = make_daemon()
    genie.disconnect()
    genie.connect(node.address)
    values = list(layers().to(REMOTE).state_dict().values())
    values[0].cpu()
    node.kill()
    with pytest.raises(genie.NodeLostError):
        for value in values * 2:
            value.cpu()
            value.add(1).cpu()
    genie.disconnect()
