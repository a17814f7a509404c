"""What a node costs: idle, with a session, at the start. Linux only (reads /proc).

Starts a `genie-dataplane` of its own. Memory is counted as the kernel does: `resident` has shared
pages of libraries in full, `private` is what would be free if the process went.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

from daemon import Daemon

MEBIBYTE = 1 << 20
# A program of its own, so that importing torch is not counted as connecting.
CLIENT = """
import sys, time, torch, genie
start = time.perf_counter()
genie.connect(sys.argv[1])
tensor = torch.ones(4, device="remote_accelerator:0") + 1
assert tensor.cpu().tolist() == [2.0] * 4
print(time.perf_counter() - start, flush=True)
sys.stdin.readline()
"""


def children(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


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
    """User and system time of processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle_cpu(pids: list[int], seconds: float) -> float:
    """Percent of a core that processes take while nothing happens."""
    before = cpu_seconds(pids)
    time.sleep(seconds)
    return (cpu_seconds(pids) - before) / seconds * 100


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each idle measurement")
    parser.add_argument("--turns", type=int, default=5, help="starts and connects (%(default)s)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    starts, firsts = [], []
    with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder:
        for turn in range(options.turns):
            began = time.perf_counter()
            with Daemon(log=Path(folder) / f"{turn}.log"):
                starts.append(time.perf_counter() - began)
        figures["start to ready, ms"] = statistics.median(starts) * 1e3
        with Daemon(log=Path(folder) / "node.log") as daemon:
            time.sleep(2)
            processes = [daemon.pid, *children(daemon.pid)]
            figures["idle, % of a core"] = idle_cpu(processes, options.seconds)
            each = {pid: memory(pid) for pid in processes}
            figures["idle, resident, daemon, MiB"] = each[daemon.pid][0] / MEBIBYTE
            figures["idle, resident, all processes, MiB"] = (
                sum(one[0] for one in each.values()) / MEBIBYTE
            )
            figures["idle, private, all processes, MiB"] = (
                sum(one[1] for one in each.values()) / MEBIBYTE
            )
            for _ in range(options.turns):
                known = set(children(daemon.pid))
                client = subprocess.Popen(
                    [sys.executable, "-c", CLIENT, daemon.address],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert client.stdin is not None
                assert client.stdout is not None
                firsts.append(float(client.stdout.readline()))
                time.sleep(0.3)
                session = [pid for pid in children(daemon.pid) if pid not in known]
                private = sum(memory(pid)[1] for pid in session)
                figures["a session with a tensor, private, MiB"] = private / MEBIBYTE
                figures["a session that idles, % of a core"] = idle_cpu(
                    [*processes, *session], options.seconds / options.turns
                )
                client.stdin.close()
                client.wait(20)
        figures["connect to the first result, ms"] = statistics.median(firsts) * 1e3
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:45} {value:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
