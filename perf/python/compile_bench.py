"""What ``torch.compile(backend="genie")`` saves of the client's time, beside eager capture.

A GPT-2 of 12 layers and width 64 (random weights, 32 tokens) runs forward without gradients, in
turns: eager capture; Dynamo's graph as Genie runs it, with its guards and without them; the same
graph lowered to ATen operators (``aot_autograd``). A figure is the smallest of a turn, the median
of all turns; the node's work is waited for outside of it. What is promised is in SPECIFICATION.md.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import command_line
import genie
import torch
import transformers
from daemon import Daemon
from genie import _compile
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.debugging import boxed_nop

REMOTE = "remote_accelerator:0"
RUNS_IN_A_TURN = 40
EAGER, COMPILED, GRAPH, LOWERED = "eager capture", "compiled", "without guards", "lowered (aot)"

inner_seconds: list[float] = []


def watched(module: Any, inputs: list[Any]) -> Callable[..., Any]:
    """Genie's backend, which notes how long a graph took: what is left is Dynamo's guards."""
    plan = _compile.Plan(module)

    def call(*values: Any) -> Any:
        start = time.perf_counter()
        found = _compile.run(plan, values)
        inner_seconds.append(time.perf_counter() - start)
        return found

    return call


def turn(run: Callable[[], Any]) -> float:
    """The fewest milliseconds of this thread that a forward takes."""
    best = float("inf")
    for _ in range(RUNS_IN_A_TURN):
        start = time.perf_counter()
        result = run()
        best = min(best, time.perf_counter() - start)
        genie.synchronize()
        del result
    return best * 1e3


def main() -> None:
    """Measures, and prints."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=12, n_embd=64, n_head=4, vocab_size=300)
    with Daemon(device="host:0?threads=1") as node:
        genie.connect(node.address)
        model = transformers.GPT2LMHeadModel(config).eval().to(REMOTE)
        tokens = torch.randint(0, 300, (1, 32)).to(REMOTE)
        lower = aot_autograd(fw_compiler=boxed_nop)
        models = {
            EAGER: model,
            COMPILED: torch.compile(model, backend=watched),
            LOWERED: torch.compile(model, backend=lower),
        }
        taken: dict[str, list[float]] = {name: [] for name in (*models, GRAPH)}
        with torch.no_grad():
            for number in range(rounds + 1):
                for name, one in models.items():
                    inner_seconds.clear()
                    found = turn(lambda one=one: one(tokens, use_cache=False).logits)
                    # The first round compiles, and has no plans.
                    if number:
                        taken[name].append(found)
                    if number and inner_seconds:
                        taken[GRAPH].append(min(inner_seconds) * 1e3)
            recorded = {}
            for name, one in models.items():
                before = genie.stats()["operators"]
                one(tokens, use_cache=False)
                recorded[name] = genie.stats()["operators"] - before
        genie.disconnect()
    eager = taken[EAGER]
    for name, found in taken.items():
        ratio = statistics.median(one / other for one, other in zip(found, eager, strict=True))
        count = recorded.get(name, recorded[COMPILED])
        print(
            f"{name:16} {statistics.median(found):6.2f} ms  {ratio:5.2f} of eager capture  "
            f"{count} operators"
        )


if __name__ == "__main__":
    main()
