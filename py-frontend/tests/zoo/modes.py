"""What is done with each model; a new way is a line in MODES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from .compare import TOLERANCE
from .model import Inputs, Model

Results = dict[str, Any]
Prepared = tuple[nn.Module, Inputs]
STEPS = 3


@dataclass(frozen=True)
class Mode:
    """A way to run a model on a device."""

    run: Callable[[Model, str], Results]
    #: What the CPU does instead: what gives the same, with less that could go wrong.
    reference: Callable[[Model, str], Results] | None = None
    #: How the CPU tries the mode itself, where it fails here; else as here.
    judge: Callable[[Model, str], Results] | None = None
    #: Of the largest magnitude of what is compared.
    tolerance: float = TOLERANCE
    #: Whether there is such a thing for a model.
    applies: Callable[[Model], bool] = lambda _model: True


def prepare(model: Model, device: str, dtype: torch.dtype = torch.float32) -> Prepared:
    """The same weights and inputs whatever the device is."""
    torch.manual_seed(11)
    module = model.build()
    without_dropout(module)
    without_zeros(module)
    inputs = model.inputs()
    torch.manual_seed(12)
    # Complex parameters would lose a half of themselves.
    module = (module if dtype == torch.float32 else module.to(dtype)).to(device)

    def place(value: torch.Tensor) -> torch.Tensor:
        return value.to(device, dtype if value.is_floating_point() else None)

    return module, pytree.tree_map_only(torch.Tensor, place, inputs)


def without_dropout(module: nn.Module) -> None:
    """Leaves nothing to chance: a device draws other numbers than the CPU."""
    for part in module.modules():
        for name, value in vars(part).items():
            is_chance = "drop" in name or "jitter" in name
            is_chance |= name == "p" and type(part).__name__.startswith(("Drop", "Stochastic"))
            if is_chance and isinstance(value, float):
                setattr(part, name, 0.0)
    settings = getattr(module, "config", None)
    for one in _configurations(settings):
        for name, value in list(vars(one).items()):
            if "drop" in name and isinstance(value, float):
                setattr(one, name, 0.0)


def without_zeros(module: nn.Module) -> None:
    """Numbers for what begins as zero: zeros hide mistakes, and a norm of them is a lottery."""
    for parameter in module.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, 0.0, 0.1)


def _configurations(settings: Any) -> list[Any]:
    """A model's configuration, and those of its parts."""
    if settings is None:
        return []
    parts = [value for value in vars(settings).values() if hasattr(value, "to_diff_dict")]
    return [settings, *(found for part in parts for found in _configurations(part))]


def forward(model: Model, device: str, dtype: torch.dtype = torch.float32) -> Results:
    module, inputs = prepare(model, device, dtype)
    with torch.no_grad():
        return {"outputs": module.eval()(**inputs)}


def forwards(model: Model, device: str, backend: str | None = None) -> Results:
    """One after the other, with other numbers: later ones of a compiled module are replayed."""
    module, inputs = prepare(model, device)
    module.eval()
    called = compiled(module, backend) if backend else module

    def changed(value: torch.Tensor, number: int) -> torch.Tensor:
        value = value.roll(number, 0) if value.dim() else value
        return value * (1 + number / 8) if value.is_floating_point() else value

    found = []
    with torch.no_grad():
        for number in range(4):
            other = partial(changed, number=number)
            found.append(called(**pytree.tree_map_only(torch.Tensor, other, inputs)))
    return {"outputs": found}


def train(
    model: Model,
    device: str,
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> Results:
    """Three steps: each loss, and all parameters and buffers at the end."""
    module, inputs = prepare(model, device, dtype)
    module.train()
    # An `eps` this large because Adam would make whole steps of gradients that are only rounding;
    # half types need longer steps for any to be left after rounding.
    rate = 1e-4 if dtype == torch.float32 else 1e-3
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, eps=1e-3)
    losses = []
    for _ in range(STEPS):
        kind = torch.device(device).type
        with torch.autocast(kind, dtype=autocast, enabled=autocast is not None):
            loss = model.loss(module(**inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    if dtype == torch.float32 and not 0 < (losses[0] - losses[-1]).abs() < float("inf"):
        raise ValueError(f"nothing is learnt: {losses}")
    return {"losses": losses, "parameters": dict(module.state_dict())}


def generate(model: Model, device: str) -> Results:
    module, inputs = prepare(model, device)
    module.eval()
    prompt = {name: value for name, value in inputs.items() if "labels" not in name}
    results = {}
    for way, options in model.generates.items():
        found = module.generate(
            **prompt,
            **{"max_new_tokens": 8, "output_scores": True, "return_dict_in_generate": True},
            **options,
        )
        results[way] = {"tokens": found["sequences"], "scores": found["scores"]}
    return results


def step(model: Model, device: str, change: Callable[[nn.Module], Any] | None = None) -> Results:
    """A forward and a backward in training of what `change` makes of the module."""
    module, inputs = prepare(model, device)
    module.train()
    called = change(module) if change else module
    loss = model.loss(called(**inputs))
    loss.backward()
    return {"losses": [loss.detach()], "gradients": gradients(module)}


def gradients(module: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def compiled(module: nn.Module, backend: str) -> Any:
    torch.compiler.reset()
    return torch.compile(module, backend=backend)


def checkpointed(module: nn.Module) -> Any:
    """Its layers recomputed in the backward, or all of it where it doesn't know how."""
    if getattr(module, "supports_gradient_checkpointing", False):
        module.gradient_checkpointing_enable({"use_reentrant": False})
        return module
    return lambda **inputs: checkpoint(module, use_reentrant=False, **inputs)


def functional(model: Model, device: str) -> Results:
    """Gradients by `torch.func.grad` of a module that is called with its parameters."""
    module, inputs = prepare(model, device)
    module.eval()
    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return model.loss(torch.func.functional_call(module, parameters, (), inputs))

    return {"gradients": torch.func.grad(loss)(parameters)}


def ensemble(model: Model, device: str) -> Results:
    """Two models of other weights as one, by `vmap` over their parameters."""
    module, inputs = prepare(model, device)
    module.eval()
    parameters, buffers = torch.func.stack_module_state([module, module])
    parameters = {
        name: torch.stack([value[0], value[1] * 1.1]) for name, value in parameters.items()
    }

    def loss(parameters: Any, buffers: Any) -> torch.Tensor:
        return model.loss(torch.func.functional_call(module, (parameters, buffers), (), inputs))

    return {"losses": torch.vmap(loss)(parameters, buffers)}


def can_generate(model: Model) -> bool:
    return bool(model.generates)


def _compile(backend: str, judge: str | None = None) -> Mode:
    """`judge` is another backend, by which the CPU shows what PyTorch's tracing can't do."""

    def run(backend: str) -> Callable[[Model, str], Results]:
        return partial(step, change=partial(compiled, backend=backend))

    return Mode(run(backend), step, judge=run(judge) if judge else None)


_HALF, _BFLOAT = torch.float16, torch.bfloat16
#: A few roundings, as layers follow each other; more where steps do, too.
_HALF_ROUNDINGS = 4 * torch.finfo(_HALF).eps
_ROUNDINGS, _ROUNDINGS_OF_STEPS = 4 * torch.finfo(_BFLOAT).eps, 8 * torch.finfo(_BFLOAT).eps

MODES = {
    "forward": Mode(forward),
    "forward-bfloat16": Mode(partial(forward, dtype=_BFLOAT), tolerance=_ROUNDINGS),
    "forward-float16": Mode(partial(forward, dtype=_HALF), tolerance=_HALF_ROUNDINGS),
    "train": Mode(train),
    "train-bfloat16": Mode(partial(train, dtype=_BFLOAT), tolerance=_ROUNDINGS_OF_STEPS),
    "autocast": Mode(partial(train, autocast=_BFLOAT), tolerance=_ROUNDINGS_OF_STEPS),
    "generate": Mode(generate, applies=can_generate),
    "checkpoint": Mode(partial(step, change=checkpointed)),
    "functional": Mode(functional),
    "ensemble": Mode(ensemble),
    "compile-eager": _compile("eager"),
    "compile-aot_eager": _compile("aot_eager"),
    "compile-genie": _compile("genie", judge="eager"),
    "replay": Mode(
        partial(forwards, backend="genie"), forwards, judge=partial(forwards, backend="eager")
    ),
}
