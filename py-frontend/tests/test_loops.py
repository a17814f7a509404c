"""Loops that seldom look travel by plans, and give what the CPU gives."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import genie
import pytest
import torch
from support import REMOTE, assert_same, pair

pytestmark = pytest.mark.usefixtures("session")

#: A plan is made behind the request: with this pause after the first turns it is there at the next.
PAUSE_S = 0.03
PAUSES = 4
TURNS = 40


def share_by_plans(turn: Callable[[int], None], turns: int = TURNS) -> float:
    """The share of records that travel by plans from the third turn on."""
    before = genie.stats()
    for number in range(turns):
        if number == 2:
            before = genie.stats()
        turn(number)
        time.sleep(PAUSE_S if number < PAUSES else 0)
    after = genie.stats()
    planned = after["planned_records"] - before["planned_records"]
    return float(planned / (after["records"] - before["records"]))


Optimiser = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def sgd(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


def models(layers: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    def build() -> torch.nn.Module:
        pairs = [(torch.nn.Linear(6, 6), torch.nn.Tanh()) for _ in range(layers)]
        return torch.nn.Sequential(*[module for pair in pairs for module in pair])

    local, remote = build(), build()
    remote.load_state_dict(local.state_dict())
    return local, remote.to(REMOTE)


def train(
    optimiser: Optimiser, layers: int, looks: Callable[[int], bool]
) -> tuple[float, list[torch.nn.Module]]:
    pair = models(layers)
    optimisers = [optimiser(list(model.parameters())) for model in pair]
    batches = [torch.randn(3, 6) for _ in range(TURNS)]

    def step(number: int) -> None:
        losses = []
        for model, each, device in zip(pair, optimisers, ("cpu", REMOTE)):
            inputs = batches[number].to(device)
            each.zero_grad()
            loss = (model(inputs) - inputs).pow(2).mean()
            loss.backward()
            each.step()
            losses.append(loss.detach())
        if looks(number):
            assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-5)

    return share_by_plans(step), list(pair)


@pytest.mark.parametrize("optimiser", [sgd, adam])
@pytest.mark.parametrize("layers", [2, 12])
def test_a_training_loop_that_never_looks(optimiser: Optimiser, layers: int) -> None:
    share, (local, remote) = train(optimiser, layers, lambda _: False)
    assert share >= 0.95
    assert_same(list(remote.parameters()), list(local.parameters()), tolerance=1e-5)


def test_a_training_loop_that_looks_now_and_then() -> None:
    generator = random.Random(0)
    share, (local, remote) = train(adam, 5, lambda _: generator.random() < 0.3)
    assert share >= 0.95
    assert_same(list(remote.parameters()), list(local.parameters()), tolerance=1e-5)


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_a_recurrence_that_never_looks(kind: type[torch.nn.Module]) -> None:
    cell, remote = pair(kind(4, 4, batch_first=True))
    inputs = torch.randn(2, 30, 4)
    remote_inputs = inputs.to(REMOTE)
    kept: list[torch.Tensor] = []

    def turn(_: int) -> None:
        remote(remote_inputs)[0].pow(2).sum().backward()
        cell(inputs)[0].pow(2).sum().backward()
        kept[:] = [each.grad for each in remote.parameters() if each.grad is not None]

    # The node is asked once how much an LSTM keeps for its backward pass.
    turn(0)
    # Its turns are short: some pass while the plan is made.
    assert share_by_plans(turn, turns=3 * TURNS) >= 0.95
    wanted = [each.grad for each in cell.parameters() if each.grad is not None]
    assert_same(kept, wanted, tolerance=1e-3)


def test_a_generation_of_a_fixed_length_that_never_looks() -> None:
    weight = torch.randn(8, 8) * 0.3
    remote_weight = weight.to(REMOTE)
    state = [torch.randn(2, 8)]
    remote_state = [state[0].to(REMOTE)]
    cache, remote_cache = [torch.zeros(2, 0, 8)], [torch.zeros(2, 0, 8, device=REMOTE)]

    def token(_: int) -> None:
        for held, kept, matrix in (
            (state, cache, weight),
            (remote_state, remote_cache, remote_weight),
        ):
            for _ in range(4):
                kept[0] = torch.cat([kept[0], held[0][:, None]], 1)
                scores = (held[0][:, None] * kept[0]).sum(2).softmax(1)
                held[0] = torch.tanh((scores[:, :, None] * kept[0]).sum(1) @ matrix)

    assert share_by_plans(token) >= 0.95
    assert_same(remote_cache[0], cache[0], tolerance=1e-4)
