"""Models whose operators are small: here, captured on a node, and replayed there.

Random weights, one thread here and one on the node, each step looked at. In turns in one run:
PyTorch on this CPU, eager capture, and ``genie.replay``. A figure is the median step of a turn, the
printed one the median of all turns; what is looked at must be the same within 1e-4. Goals are
ratios to local; what is promised is in SPECIFICATION.md.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import command_line
import genie
import torch
import transformers
from daemon import Daemon
from torch import nn

REMOTE = "remote_accelerator:0"
LOCAL, CAPTURED, REPLAYED = "local", "captured", "replayed"

#: A step, which gives what was looked at.
Step = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """A model, its use, and what the ratios are to be at most."""

    model: Callable[[], nn.Module]
    use: Callable[[Any, str], Step]
    goals: dict[str, float]
    steps: int = 40
    #: The first ones of a turn compile, or have no plans.
    warm: int = 15


def gpt2(layers: int) -> nn.Module:
    """Of width 64, without dropout."""
    config = transformers.GPT2Config(
        n_layer=layers,
        n_embd=64,
        n_head=4,
        vocab_size=300,
        bos_token_id=0,
        eos_token_id=0,
        attn_pdrop=0,
        embd_pdrop=0,
        resid_pdrop=0,
    )
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    """Of four layers, in bfloat16."""
    config = transformers.LlamaConfig(
        num_hidden_layers=4,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        vocab_size=300,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16)


def mlp() -> nn.Module:
    """Of twenty layers."""
    layers = [[nn.Linear(256, 256), nn.ReLU()] for _ in range(20)]
    return nn.Sequential(*(one for pair in layers for one in pair))


def decode(model: Any, device: str) -> Step:
    """A token a step, with a cache that grows."""
    start = torch.randint(0, 300, (1, 8), generator=torch.Generator().manual_seed(1))
    state: dict[str, Any] = {"token": start.to(device), "cache": None}

    def step() -> float:
        with torch.no_grad():
            out = model(state["token"], past_key_values=state["cache"], use_cache=True)
        state["cache"] = out.past_key_values
        state["token"] = out.logits[:, -1:].argmax(-1)
        return float(state["token"].item())

    return step


def forward(*shape: int) -> Callable[[Any, str], Step]:
    """One batch again and again."""

    def use(model: Any, device: str) -> Step:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)

        def step() -> float:
            with torch.no_grad():
                return float(first(model(x)).sum().item())

        return step

    return use


def train(*shape: int, is_text: bool = False) -> Callable[[Any, str], Step]:
    """A step of AdamW, and its loss."""

    def use(model: Any, device: str) -> Step:
        generator = torch.Generator().manual_seed(1)
        x = (
            torch.randint(0, 300, shape, generator=generator)
            if is_text
            else torch.randn(shape, generator=generator)
        ).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def step() -> float:
            optimizer.zero_grad()
            loss = model(x, labels=x).loss if is_text else first(model(x)).square().mean()
            loss.backward()
            optimizer.step()
            return float(loss.item())

        return step

    return use


def first(out: Any) -> torch.Tensor:
    """The result, of those that have a state as well."""
    found: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return found


def lstm() -> nn.Module:
    """Of one layer."""
    return nn.LSTM(32, 32, batch_first=True)


CASES = {
    "decode": Case(lambda: gpt2(12), decode, {CAPTURED: 1.25, REPLAYED: 0.8}, 60, 20),
    "mlp": Case(mlp, forward(4, 256), {CAPTURED: 1.3}),
    "train": Case(lambda: gpt2(8), train(2, 16, is_text=True), {CAPTURED: 0.95}),
    "lstm": Case(lstm, forward(4, 100, 32), {CAPTURED: 1.3}),
    "lstm-train": Case(lstm, train(4, 100, 32), {CAPTURED: 1.3}),
    "bfloat16": Case(llama, decode, {CAPTURED: 1.1}, 60, 20),
}


def turn(case: Case, model: Any, device: str) -> tuple[list[float], float]:
    """What was looked at, and the milliseconds of the median step."""
    step = case.use(model, device)
    seen, taken = [], []
    for _ in range(case.steps):
        start = time.perf_counter()
        seen.append(step())
        taken.append((time.perf_counter() - start) * 1e3)
    return seen, statistics.median(taken[case.warm :])


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """The milliseconds of a step by name, a turn each."""
    torch.manual_seed(0)
    model = case.model()
    taken: dict[str, list[float]] = {LOCAL: [], CAPTURED: [], REPLAYED: []}
    replayed: dict[str, Any] = {}
    for number in range(rounds + 1):
        seen = {}
        for name, steps in taken.items():
            # Each turn begins with the same weights; what is replayed is traced once.
            if name == REPLAYED:
                if not replayed:
                    module = copy.deepcopy(model).to(REMOTE)
                    replayed.update(module=module, run=genie.replay(module))
                replayed["module"].load_state_dict(model.state_dict())
                run = replayed["run"]
            else:
                run = copy.deepcopy(model).to("cpu" if name == LOCAL else REMOTE)
            seen[name], step = turn(case, run, "cpu" if name == LOCAL else REMOTE)
            if number:
                steps.append(step)
        for name, found in seen.items():
            torch.testing.assert_close(
                torch.tensor(found),
                torch.tensor(seen[LOCAL]),
                rtol=1e-4,
                atol=1e-4,
                msg=lambda text, name=name: f"{name}: {text}",
            )
    return taken


def main() -> int:
    """Measures, and prints; 1 where a goal is missed."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="default: %(default)s")
    parser.add_argument("--only", nargs="*", choices=sorted(CASES), help="some of them")
    given = parser.parse_args()
    torch.set_num_threads(1)
    missed = 0
    with Daemon(device="host:0?threads=1") as node:
        genie.connect(node.address)
        for name in given.only or CASES:
            case = CASES[name]
            taken = measure(case, given.rounds)
            for way, steps in taken.items():
                pairs = zip(steps, taken[LOCAL], strict=True)
                ratio = statistics.median(one / other for one, other in pairs)
                goal = case.goals.get(way)
                missed += goal is not None and ratio > goal
                said = (
                    ""
                    if goal is None
                    else f"  (goal {goal}: {'met' if ratio <= goal else 'missed'})"
                )
                figure = f"{statistics.median(steps):7.2f} ms a step  {ratio:5.2f} of local"
                print(f"{name:12} {way:10} {figure}{said}", flush=True)
        genie.disconnect()
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
