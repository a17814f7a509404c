"""PyTorch's database of optimisers: steps, states, in all their ways to compute."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import torch
from support import DEVICE

from .compare import check
from .database import internal

STEPS = 4


def optimisers() -> list[Any]:
    """All entries."""
    return list(internal("common_optimizers").optim_db)


def name_of(entry: Any) -> str:
    return str(entry.optim_cls.__name__)


def configurations(entry: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What it is made with: each set of arguments in each way to compute that it has."""
    for given in entry.optim_inputs_func(device="cpu"):
        arguments = dict(given.kwargs)
        yield given.desc or "default", arguments
        for way in ("foreach", "fused"):
            if way in entry.supported_impls and not arguments.get("differentiable"):
                yield f"{given.desc or 'default'}, {way}", {**arguments, way: True}


def _on(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _run(entry: Any, arguments: dict[str, Any], device: str, *, saves: bool) -> Any:
    torch.manual_seed(3)
    shapes = [(4, 3), (3,), (5, 4), ()]
    made = [torch.randn(shape) for shape in shapes]
    parameters = [torch.nn.Parameter(one.to(device)) for one in made]
    if entry.only_supports_sparse_grads or name_of(entry) == "Muon":
        parameters = [one for one in parameters if one.dim() == 2]
    arguments = {name: _on(value, device) for name, value in arguments.items()}
    optimiser = entry.optim_cls(parameters, **copy.deepcopy(arguments))
    numbers = iter([[torch.randn_like(one.cpu()) for one in parameters] for _ in range(STEPS)])

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        if entry.step_requires_closure:
            loss = sum(((one - 1) ** 2).sum() for one in parameters)
            assert isinstance(loss, torch.Tensor)
            loss.backward()
            return loss.detach()
        for one, gradient in zip(parameters, next(numbers), strict=True):
            moved = gradient.to(device)
            one.grad = moved.to_sparse() if entry.only_supports_sparse_grads else moved
        return torch.zeros(())

    for step in range(STEPS):
        if saves and step == STEPS // 2:
            # It goes on as another, with what was saved of it.
            file = io.BytesIO()
            torch.save(optimiser.state_dict(), file)
            file.seek(0)
            optimiser = entry.optim_cls(parameters, **copy.deepcopy(arguments))
            optimiser.load_state_dict(torch.load(file, weights_only=True))
        if entry.step_requires_closure:
            optimiser.step(closure)
        else:
            closure()
            optimiser.step()
    state = [dict(optimiser.state[one]) for one in parameters]
    return [one.detach() for one in parameters], state


def attempt(entry: Any, arguments: dict[str, Any], *, saves: bool) -> None:
    """Do it on both and compare; raise what the device raises, or a DifferenceError."""
    wanted = _run(entry, arguments, "cpu", saves=saves)
    got = _run(entry, arguments, DEVICE, saves=saves)
    check(got, wanted, strides=False)
