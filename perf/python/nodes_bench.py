"""Values between two nodes of this machine, beside what genie-perf moves between processes.

Starts two nodes with one thread each, and one with two devices; moves a tensor from one device to
another and looks at one element of it there; and sends a small one back and forth many times before
one look. In each round everything is measured once, genie-perf's transfers of the same size by TCP
too. Prints medians and ratios; what is promised stands in SPECIFICATION.md.

Exit status: 0; 1 with --check if a promise is missed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import genie
import rounds
import torch
from daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]
D = "remote_accelerator"
DEVICE = "host:0?threads=1"
LARGE_BYTES = 64 << 20
SMALL_BYTES = 4 << 10
HOPS = 200
RATIO_MIN = 0.9
SMALL_MS_MAX = 0.2


def main() -> int:
    """Measures."""
    options = rounds.arguments(__doc__)
    figures = rounds.Figures()
    note = figures.note
    with tempfile.TemporaryDirectory(prefix="genie-nodes-") as name:
        folder = Path(name)
        first = Daemon(log=folder / "first.log", device=DEVICE)
        second = Daemon("--device", "host:1?threads=1", log=folder / "second.log", device=DEVICE)
        with first, second:
            genie.connect([first.address, second.address])
            warm(1)
            warm(2)
            for _ in range(options.rounds):
                bulk = genie_perf()
                note("genie-perf, TCP, 64 MiB: GB/s", bulk)
                between = LARGE_BYTES / large(0, 1) / 1e9
                note("node to node, 64 MiB: GB/s", between)
                note("the same over genie-perf's", between / bulk)
                note("within a node, 64 MiB: GB/s", LARGE_BYTES / large(1, 2) / 1e9)
                note("node to node, 4 KiB: ms", small(0, 1) * 1e3)
                note("within a node, 4 KiB: ms", small(1, 2) * 1e3)
            relayed = genie.stats()["relayed_bytes"]
            genie.disconnect()
    if relayed:
        print("the nodes did not reach each other: nothing was measured", file=sys.stderr)
        return 1
    figures.tell(options.json)
    if not options.check:
        return 0
    medians = figures.medians()
    missed = (
        medians["the same over genie-perf's"] < RATIO_MIN
        or medians["node to node, 4 KiB: ms"] > SMALL_MS_MAX
    )
    return int(missed)


def warm(to: int) -> None:
    """Connects the devices, and touches their memory."""
    for _ in range(3):
        large(to - 1, to)
    small(to - 1, to)


def large(source: int, target: int) -> float:
    """Seconds for 64 MiB from one device to another, until an element of it was seen there."""
    value = torch.ones(LARGE_BYTES // 4, device=f"{D}:{source}")
    genie.synchronize()
    began = time.perf_counter()
    moved = value.to(f"{D}:{target}")
    assert moved[-1].item() == 1
    return time.perf_counter() - began


def small(source: int, target: int) -> float:
    """Seconds a move, of a value that goes back and forth."""
    value = torch.ones(SMALL_BYTES // 4, device=f"{D}:{source}")
    genie.synchronize()
    began = time.perf_counter()
    for _ in range(HOPS // 2):
        value = value.to(f"{D}:{target}").to(f"{D}:{source}")
    assert value[0].item() == 1
    return (time.perf_counter() - began) / HOPS


def genie_perf() -> float:
    """GB/s of transfers of 64 MiB between two processes by TCP."""
    command = [str(ROOT / "target/release/genie-perf"), "local", "--link", "tcp", "bw"]
    command += ["--size", str(LARGE_BYTES), "--batch", "1", "--time", "1", "--json", "-"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return float(json.loads(ran.stdout)["results"][0]["gbit_per_s"]) / 8


if __name__ == "__main__":
    sys.exit(main())
