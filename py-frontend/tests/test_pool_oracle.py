"""Any placement is right: operators placed by lot give bit for bit what one device gives."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from opdb.database import operators
from support import to_cpu, to_remote
from torch.utils._pytree import tree_leaves
from zoo.model import Model
from zoo.models import MODELS

D = "remote_accelerator:0"
ONE_THREAD = "host:0?threads=1"
# A new one in each run, which GENIE_SEED repeats.
SEED = int(os.environ.get("GENIE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Three nodes of one thread."""
    folder = tmp_path_factory.mktemp("nodes")
    logs = [folder / f"{name}.log" for name in "abc"]
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Daemon(log=log, device=ONE_THREAD)) for log in logs]
        yield [node.address for node in nodes]
        assert all(node.running for node in nodes)


def placed(addresses: list[str], policy: str, work: Callable[[], Any]) -> Any:
    """What `work` gives with its operators placed by a policy."""
    genie.connect(addresses, placement="pool", policy=policy)
    try:
        given = work()
        moves = genie.stats()["moves"]
    finally:
        genie.disconnect()
    assert (moves > 0) == policy.startswith("random"), "it was placed as it should be"
    return given


def bits(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def assert_same(ours: Any, theirs: Any, what: str) -> None:
    pairs = list(zip(tree_leaves(ours), tree_leaves(theirs), strict=True))
    assert pairs, what
    for at, (one, other) in enumerate(pairs):
        if torch.is_tensor(one):
            assert (one.dtype, one.shape) == (other.dtype, other.shape), what
            assert torch.equal(bits(one), bits(other)), (
                f"{what}: result {at} differs (GENIE_SEED={SEED} repeats it)"
            )
        else:
            assert one == other or one != one, f"{what} (GENIE_SEED={SEED})"


TRAINED = (
    "gpt2", "llama", "mixtral-eager", "t5", "bert", "vit", "clip", "convolutions", "lstm", "dlrm",
    "transformer",
)  # fmt: skip
GENERATED: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"do_sample": True}),
    ("llama", {"num_beams": 2}),
    ("t5", {"do_sample": False}),
]


def made(model: Model) -> tuple[Any, dict[str, Any]]:
    """A model and its inputs on the device, where dropout will draw, too."""
    torch.manual_seed(11)
    module, inputs = model.build(), to_remote(model.inputs())
    torch.manual_seed(12)
    return module.to(D), inputs


@pytest.mark.parametrize("name", TRAINED)
def test_three_steps_of_a_model(addresses: list[str], name: str) -> None:
    def work() -> list[torch.Tensor]:
        module, inputs = made(MODELS[name])
        module.train()
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
        losses = []
        for _ in range(3):
            loss = MODELS[name].loss(module(**inputs))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().cpu())
        return losses + [value.detach().cpu() for value in module.state_dict().values()]

    ours = placed(addresses, f"random:{SEED}", work)
    assert_same(ours, placed(addresses, "single", work), name)


@pytest.mark.parametrize(("name", "options"), GENERATED)
def test_what_a_model_generates(addresses: list[str], name: str, options: dict[str, Any]) -> None:
    def work() -> torch.Tensor:
        module, inputs = made(MODELS[name])
        prompt = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        return module.eval().generate(**prompt, max_new_tokens=10, **options).cpu()

    ours = placed(addresses, f"random:{SEED}", work)
    assert_same(ours, placed(addresses, "single", work), name)


@pytest.mark.parametrize("turn", range(4))
def test_three_hundred_operators(addresses: list[str], turn: int) -> None:
    """Of PyTorch's own database; each with three of its samples, on what a view is of, too."""
    chosen = random.Random(SEED).sample(operators(), 300)[turn::4]

    def work() -> dict[str, Any]:
        given: dict[str, Any] = {}
        for operator in chosen:
            for dtype in {torch.float32, torch.int64} & set(operator.dtypes):
                torch.manual_seed(3)
                samples = operator.sample_inputs("cpu", dtype, requires_grad=False)
                for nth, sample in enumerate(itertools.islice(samples, 3)):
                    options = {**sample.kwargs}
                    if "device" in options:
                        options["device"] = D
                    # Not on the list, not on this device, a bad sample: as it may be, on both.
                    with contextlib.suppress(Exception):
                        result = operator.op(
                            to_remote(sample.input), *to_remote(sample.args), **to_remote(options)
                        )
                        given[f"{operator.name} {dtype} {nth}"] = to_cpu(result)
        return given

    ours = placed(addresses, f"random:{SEED + turn}", work)
    theirs = placed(addresses, "single", work)
    assert list(ours) == list(theirs)
    assert len(ours) > 100
    for name, result in ours.items():
        # Uninitialised memory has no value to compare.
        if tree_leaves(result) and "empty" not in name:
            assert_same(result, theirs[name], name)


def same_storage(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def program(seed: int) -> list[torch.Tensor]:
    """A made-up program of views, writes through them, resizes, and values that die."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    pool = [torch.randn(8, 8).to(D) for _ in range(6)]
    for _ in range(120):
        at = rng.randrange(6)
        a, b = pool[at], pool[rng.randrange(6)]
        if same_storage(a, b):
            # What it reads must not be what it writes.
            b = b.clone()
        match rng.randrange(16):
            case 0:
                a.add_(b.t())
            case 1:
                pool[at] = (a @ b).tanh()
            case 2:
                a[2:5].mul_(b[:3])
            case 3:
                a.t()[1].copy_(b[0])
            case 4:
                pool[at] = torch.cat([a[:4], b[4:]])
            case 5:
                a.as_strided((32,), (2,)).fill_(rng.random())
            case 6:
                # Two names of one storage.
                pool[at] = b.t() if rng.random() < 0.5 else b[:, :]
            case 7:
                pool[at] = a.detach().clone()
            case 8:
                a.index_copy_(0, torch.tensor([1, 3]).to(D), b[:2])
            case 9:
                pool[at] = torch.add(a, b, out=torch.zeros(8, 8, device=D).t())
            case 10:
                pool[at] = torch.rand(8, 8, device=D)
            case 11:
                a.uniform_() if rng.random() < 0.5 else a.zero_()
            case 12:
                # Grown in place, from nothing.
                grown = torch.empty(0, device=D)
                pool[at] = torch.mul(a, 2, out=grown)
            case 13:
                torch._foreach_add_([a, b], 0.25)
            case 14:
                # The whole storage is overwritten from here.
                fresh = torch.empty(8, 8, device=D)
                fresh.copy_(torch.randn(8, 8))
                pool[at] = fresh
            case _:
                a += float(b[rng.randrange(8), rng.randrange(8)].clamp(-1, 1))
    return [value.cpu() for value in pool]


@pytest.mark.parametrize("turn", range(20))
def test_a_program_of_views_and_writes(addresses: list[str], turn: int) -> None:
    def work() -> list[torch.Tensor]:
        return program(SEED + turn)

    ours = placed(addresses, f"random:{SEED + turn}", work)
    assert_same(ours, placed(addresses, "single", work), f"turn {turn}")


def test_a_program_is_the_same_wherever_it_is_placed(addresses: list[str]) -> None:
    """And the same as where the program chose its device."""
    genie.connect(addresses[0])
    theirs = program(5)
    genie.disconnect()
    for policy in ("single", "locality", "semantic", "blind"):
        genie.connect(addresses, placement="pool", policy=policy)
        assert_same(program(5), theirs, policy)
        genie.disconnect()
