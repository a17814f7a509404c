"""A pool of nodes beside one node: a model that one has no memory for, and nodes that do nothing.

Two nodes with 320 MiB each for a session run a model that one of them has no memory for, and one
node with twice the memory runs the same, turn by turn; all have one thread, and each of the two a
core of its own where there are so many. A session in a pool of one node is put beside one whose
program chose the device. Then three nodes have a session that does nothing, and their time is
counted. Prints medians and ratios; what is promised stands in SPECIFICATION.md.

Exit status: 0; 1 with --check if a promise is missed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import genie
import rounds
import torch
from daemon import Daemon
from usage import idle_cpu

D = "remote_accelerator:0"
SMALL = "host:0?threads=1&memory=320MiB"
LARGE = "host:0?threads=1&memory=640MiB"
FORWARD_RATIO_MAX = 1.15
IDLE_PERCENT_MAX = 3.0
IDLE_SECONDS = 10.0


def on_core(number: int) -> tuple[str, ...]:
    """What starts a process on a core of its own, where there is one."""
    return ("taskset", "-c", str(number % (os.cpu_count() or 1)))


def model() -> torch.nn.Sequential:
    """About 480 MiB of weights: more than one small node has."""
    torch.manual_seed(2)
    return torch.nn.Sequential(*(torch.nn.Linear(1600, 1600) for _ in range(48)))


@torch.inference_mode()
def forward(addresses: list[str]) -> float:
    """Milliseconds of a forward, the best of several, with the weights where they are."""
    genie.connect(addresses, placement="pool")
    try:
        net = model().to(D)
        x = torch.randn(64, 1600).to(D)
        took = []
        for _ in range(6):
            began = time.perf_counter()
            net(x)[0, 0].item()
            took.append((time.perf_counter() - began) * 1e3)
        moved = genie.stats()["moves"]
        assert (moved > 0) == (len(addresses) > 1), "it ran where it should"
        return min(took[2:])
    finally:
        genie.disconnect()


def idle(nodes: list[Daemon], placement: str) -> float:
    """Percent of a core of the busiest node, with a session that does nothing."""
    genie.connect([node.address for node in nodes], placement=placement)
    try:
        for _ in range(30):
            torch.ones(8, device=D).sum().item()
        time.sleep(1)
        return max(idle_cpu([[node.pid, *node.processes()] for node in nodes], IDLE_SECONDS))
    finally:
        genie.disconnect()


def small_steps(address: str, **options: str) -> float:
    """Microseconds an operator of a chain of small ones, looked at once."""
    genie.connect([address], **options)
    try:
        x = torch.ones(4, 4).to(D)
        best = 1e9
        for _ in range(12):
            y = x
            began = time.perf_counter()
            for _ in range(300):
                y = torch.nn.functional.relu(y @ x)
            y[0, 0].item()
            best = min(best, (time.perf_counter() - began) / 600 * 1e6)
        return best
    finally:
        genie.disconnect()


def main() -> int:
    """Measures."""
    options = rounds.arguments(__doc__)
    figures = rounds.Figures()
    note = figures.note
    with tempfile.TemporaryDirectory(prefix="genie-pool-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)

        def node(label: str, device: str, core: int) -> Daemon:
            made = Daemon(log=folder / f"{label}.log", device=device, before=on_core(core))
            return stack.enter_context(made)

        pair = [node("first", SMALL, 0), node("second", SMALL, 1)]
        whole = node("whole", LARGE, 0)
        third = node("third", "host:0?threads=1", 1)
        for _ in range(options.rounds):
            together = forward([one.address for one in pair])
            alone = forward([whole.address])
            note("forward over two nodes: ms", together)
            note("on one with twice the memory: ms", alone)
            note("two over one", together / alone)
            ways: list[Callable[[], float]] = [
                lambda: small_steps(third.address),
                lambda: small_steps(third.address, placement="pool"),
            ]
            pinned, pooled = (way() for way in ways)
            note("small operator, pinned: us", pinned)
            note("small operator, pool of one: us", pooled)
            note("pool over pinned", pooled / pinned)
        for placement in ("pinned", "pool"):
            busiest = idle([*pair, third], placement)
            note(f"busiest of three idle nodes, {placement}: % of a core", busiest)
    figures.tell(options.json)
    missed = [what for what, value in figures.medians().items() if is_missed(what, value)]
    for what in missed:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if options.check and missed else 0


def is_missed(what: str, value: float) -> bool:
    """Whether a figure is worse than promised."""
    if what == "two over one":
        return value > FORWARD_RATIO_MAX
    return what.startswith("busiest of") and value > IDLE_PERCENT_MAX


if __name__ == "__main__":
    sys.exit(main())
