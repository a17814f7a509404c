"""Decoding with a model whose operators are small: here, captured, and replayed.

A GPT-2 of 12 layers and width 64 (random weights) decodes with a cache that grows, one token a
step, and looks at each. One thread here and one on the node, in turns in one run: PyTorch on this
CPU, eager capture on a node, and ``genie.replay`` there. A figure is the median step of a turn, the
printed one the median of all turns; the tokens must be the same. What is promised is in
SPECIFICATION.md.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import command_line
import genie
import torch
import transformers
from daemon import Daemon

REMOTE = "remote_accelerator:0"
PROMPT = 8
# The first steps of a turn compile, or have no plans.
WARM = 20
LOCAL, CAPTURED, REPLAYED = "local", "captured", "replayed"


def decode(model: Any, device: str, steps: int) -> tuple[list[int], float]:
    """The tokens, and the milliseconds of the median step."""
    token = torch.randint(0, 300, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    token = token.to(device)
    cache, tokens, taken = None, [], []
    with torch.no_grad():
        for _ in range(steps):
            start = time.perf_counter()
            out = model(token, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            token = out.logits[:, -1:].argmax(-1)
            tokens.append(int(token.item()))
            taken.append((time.perf_counter() - start) * 1e3)
    return tokens, statistics.median(taken[WARM:])


def main() -> None:
    """Measures, and prints."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=60, help="default: %(default)s")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=12, n_embd=64, n_head=4, vocab_size=300, bos_token_id=0, eos_token_id=0
    )
    local = transformers.GPT2LMHeadModel(config).eval()
    with Daemon(device="host:0?threads=1") as node:
        genie.connect(node.address)
        remote = copy.deepcopy(local).to(REMOTE)
        replayed = genie.replay(remote)
        runs = {LOCAL: (local, "cpu"), CAPTURED: (remote, REMOTE), REPLAYED: (replayed, REMOTE)}
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(given.rounds + 1):
            tokens = {}
            for name, (model, device) in runs.items():
                tokens[name], step = decode(model, device, given.steps)
                if number:
                    taken[name].append(step)
            if len({tuple(found) for found in tokens.values()}) != 1:
                sys.exit(f"other tokens: {tokens}")
        report = replayed.report()
        genie.disconnect()
    for name, steps in taken.items():
        pairs = zip(steps, taken[LOCAL], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        print(f"{name:10} {statistics.median(steps):6.2f} ms a token  {ratio:5.2f} of local")
    print(f"{REPLAYED}: {report}")


if __name__ == "__main__":
    main()
