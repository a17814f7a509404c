"""A pool of nodes beside one node: a model that one has no memory for, and nodes that do nothing.

Two nodes with 320 MiB each for a session run a model that one of them has no memory for, and one
node with twice the memory runs the same, turn by turn; all have one thread, and each of the two a
core of its own where there are so many. A session in a pool of one node is put beside one whose
program chose the device. Then three nodes have a session that does nothing, and their time is
counted. Prints medians and ratios; what is promised stands in SPECIFICATION.md.

Exit status: 0; 1 with --check if a promise is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import command_line
import genie
import torch
from daemon import Daemon, children_of

D = "remote_accelerator:0"
SMALL = "host:0?threads=1&memory=320MiB"
LARGE = "host:0?threads=1&memory=640MiB"
FORWARD_RATIO_MAX = 1.15
IDLE_PERCENT_MAX = 3.0
IDLE_SECONDS = 10.0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a promise is missed")
    return parser.parse_args()


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


def cpu_seconds(pid: int) -> float:
    """What a node and all below it took of a core."""
    ticks = 0
    for one in [pid, *children_of(pid)]:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle(nodes: list[Daemon], placement: str) -> float:
    """Percent of a core of the busiest node, with a session that does nothing."""
    genie.connect([node.address for node in nodes], placement=placement)
    try:
        for _ in range(30):
            torch.ones(8, device=D).sum().item()
        time.sleep(1)
        before = [cpu_seconds(node.pid) for node in nodes]
        time.sleep(IDLE_SECONDS)
        after = [cpu_seconds(node.pid) for node in nodes]
    finally:
        genie.disconnect()
    taken = [late - early for late, early in zip(after, before, strict=True)]
    return max(taken) / IDLE_SECONDS * 100


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
    options = arguments()
    figures: dict[str, list[float]] = {}

    def note(what: str, value: float) -> None:
        figures.setdefault(what, []).append(value)

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
    medians = {what: statistics.median(values) for what, values in figures.items()}
    for what, values in figures.items():
        print(f"{what:50} {medians[what]:8.3f}   {min(values):.3f} to {max(values):.3f}")
    if options.json:
        Path(options.json).write_text(json.dumps({"medians": medians, "rounds": figures}))
    missed = [what for what, value in medians.items() if is_missed(what, value)]
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
