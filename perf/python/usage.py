"""What processes take of the machine, as /proc has it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def memory(pid: int) -> tuple[int, int]:
    """Resident and private bytes of a process."""
    resident = private = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Rss":
            resident = int(value.split()[0]) * 1024
        elif name in ("Private_Clean", "Private_Dirty"):
            private += int(value.split()[0]) * 1024
    return resident, private


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes, of those that are still there."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle_cpu(groups: list[list[int]], seconds: float) -> list[float]:
    """Percent of a core that each group of processes takes while nothing happens."""
    before, start = [cpu_seconds(pids) for pids in groups], time.monotonic()
    time.sleep(seconds)
    after, taken = [cpu_seconds(pids) for pids in groups], time.monotonic() - start
    return [(late - early) / taken * 100 for early, late in zip(before, after, strict=True)]
