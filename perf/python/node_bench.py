"""What a node costs: idle, with a session, at the start; and over DPDK, with a gateway before it.

Starts daemons of its own. Linux only (reads /proc). Memory is counted as the kernel does:
`resident` has shared pages of libraries in full, `private` is what would be free if the process
went. What is idle over DPDK is a node and a gateway, joined by memif; each is promised to take
less than 10% of a core, also while a client has a session and does nothing (SPECIFICATION.md).

Exit status: 0; 1 with --check if an idle daemon over DPDK takes more, or there is no DPDK.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import command_line
from daemon import Daemon, Gateway, children_of, link_arguments
from usage import idle_cpu, memory

MEBIBYTE = 1 << 20
# Percent of a core, of a daemon with its executors, that SPECIFICATION.md promises over DPDK.
IDLE_MAX = 10.0
# So begin the names of the figures that are held against it.
OVER_DPDK = "over DPDK, "
# A program of its own, so that importing torch is not counted as connecting.
CLIENT = """
import sys, time, torch, genie
start = time.perf_counter()
genie.connect(sys.argv[1])
tensor = torch.ones(4, device="remote_accelerator:0") + 1
assert tensor.cpu().tolist() == [2.0] * 4
print(time.perf_counter() - start, genie.stats()["transport"], flush=True)
sys.stdin.readline()
"""

Figures = dict[str, float]


@contextlib.contextmanager
def session(address: str) -> Iterator[tuple[float, str]]:
    """A client that has a tensor and then does nothing: seconds to its first result, transport."""
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        said = client.stdout.readline().split()
        if len(said) != 2:
            raise SystemExit(f"a client of {address} ended before its first result")
        time.sleep(0.3)
        yield float(said[0]), said[1]
    finally:
        client.stdin.close()
        client.wait(20)


def by_tcp(options: argparse.Namespace, folder: Path) -> Figures:
    """A node alone."""
    figures: Figures = {}
    starts, firsts = [], []
    for turn in range(options.turns):
        began = time.perf_counter()
        with Daemon(log=folder / f"{turn}.log"):
            starts.append(time.perf_counter() - began)
    figures["start to ready, ms"] = statistics.median(starts) * 1e3
    with Daemon(log=folder / "node.log") as daemon:
        time.sleep(2)
        processes = [daemon.pid, *children_of(daemon.pid)]
        figures["idle, % of a core"] = idle_cpu([processes], options.seconds)[0]
        each = {pid: memory(pid) for pid in processes}
        resident, private = (sum(sizes) / MEBIBYTE for sizes in zip(*each.values(), strict=True))
        figures["idle, resident, daemon, MiB"] = each[daemon.pid][0] / MEBIBYTE
        figures["idle, resident, all processes, MiB"] = resident
        figures["idle, private, all processes, MiB"] = private
        for _ in range(options.turns):
            known = set(children_of(daemon.pid))
            with session(daemon.address) as (first, _):
                firsts.append(first)
                executors = [pid for pid in children_of(daemon.pid) if pid not in known]
                private = sum(memory(pid)[1] for pid in executors)
                figures["a session with a tensor, private, MiB"] = private / MEBIBYTE
                figures["a session that idles, % of a core"] = idle_cpu(
                    [[*processes, *executors]], options.seconds / options.turns
                )[0]
    figures["connect to the first result, ms"] = statistics.median(firsts) * 1e3
    return figures


def over_dpdk(options: argparse.Namespace, folder: Path) -> Figures:
    """A node and a gateway that do nothing, without a session and with one; none without DPDK."""
    figures: Figures = {}
    with (
        Daemon(*link_arguments(folder, "server"), log=folder / "node.log") as node,
        Gateway(node, folder) as gateway,
    ):
        if not gateway.wait_for("dpdk"):
            print(f"no DPDK: {gateway.transport()[1]}", file=sys.stderr)
            return figures

        def measure(what: str) -> None:
            # They look at the link more often while it is new.
            time.sleep(2)
            groups = [[end.pid, *children_of(end.pid)] for end in (node, gateway)]
            for name, percent in zip(
                ("node", "gateway"), idle_cpu(groups, options.seconds), strict=True
            ):
                figures[f"{OVER_DPDK}{what}, {name}, % of a core"] = percent

        measure("idle")
        with session(gateway.address) as (_, transport):
            if transport != "dpdk":
                print(f"the session is not over DPDK but {transport}", file=sys.stderr)
                return {}
            measure("a session that idles")
    return figures


def check(figures: Figures) -> int:
    """Says which promise does not hold; 1 if one does not, or none was measured."""
    promised = {name: value for name, value in figures.items() if name.startswith(OVER_DPDK)}
    missed = {name: value for name, value in promised.items() if value >= IDLE_MAX}
    for name, value in missed.items():
        print(f"{name}: {value:.1f}, less than {IDLE_MAX:.0f} is promised", file=sys.stderr)
    return int(bool(missed) or not promised)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each idle measurement")
    parser.add_argument("--turns", type=int, default=5, help="starts and connects (%(default)s)")
    parser.add_argument("--only", choices=("tcp", "dpdk"), help="a node alone, or over DPDK")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"exit status 1 unless each daemon that idles over DPDK takes less than "
        f"{IDLE_MAX:.0f}%% of a core",
    )
    options = parser.parse_args()
    if options.check and options.only == "tcp":
        parser.error("--check is for what is measured over DPDK")
    return options


def main() -> int:
    """Measures and prints; the exit status."""
    options = arguments()
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="genie-bench-") as name:
        for what, measure in (("tcp", by_tcp), ("dpdk", over_dpdk)):
            if options.only in (None, what):
                folder = Path(name) / what
                folder.mkdir()
                figures |= measure(options, folder)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        for what, value in figures.items():
            print(f"{what:54} {value:10.2f}")
    return check(figures) if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
