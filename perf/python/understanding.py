"""What Genie takes the zoo's models for: the matrix of kinds of work, and what it is sure of.

Every model of py-frontend/tests/zoo is run once on a node of this machine under ``genie.explain``,
and with --ways also a training step, and the generation of models that generate. What a model is,
its family says. Names of modules have no say: they are not looked at.

Exit status: 0; 1 with --check where less than 95% of the answers at 0.7 or more are right, or these
are less than 80% of all.
"""

from __future__ import annotations

import collections
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "py-frontend" / "tests"))

import command_line
import genie
import torch
from daemon import Daemon
from torch.utils import _pytree as pytree

REMOTE = "remote_accelerator:0"
#: From where an answer is one.
SURE = 0.7
KINDS = ("llm", "vision", "recsys", "multimodal", "audio", "training", "other")
OF_FAMILY = {
    "decoders": "llm",
    "mixtures": "llm",
    "state_space": "llm",
    "encoders": "llm",
    "sequence_to_sequence": "llm",
    "vision": "vision",
    "convolutional": "vision",
    "segmentation_detection": "vision",
    "audio": "audio",
    "multimodal": "multimodal",
    "diffusion": "vision",
    "recommendation": "recsys",
    "recurrent": "llm",
    "generative": "other",
    "graph": "other",
    "time_series": "other",
    "science": "other",
}
#: Models that are something else than their family.
OF_MODEL = {
    "vae": "vision",
    "vq_vae": "vision",
    # They are given vectors, not tokens.
    "transformer": "other",
    "transformer-decoder": "other",
    # It changes weights by gradients to answer.
    "maml": "training",
}


def expected(family: str, name: str) -> str:
    """What it is."""
    return OF_MODEL.get(name, OF_FAMILY[family])


def remote(value: Any) -> Any:
    """On the node."""
    return pytree.tree_map(lambda leaf: leaf.to(REMOTE) if torch.is_tensor(leaf) else leaf, value)


def ways(model: Any, module: Any, inputs: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is done with a model."""

    def forward() -> None:
        with torch.no_grad():
            module(**inputs)

    def train() -> None:
        model.loss(module(**inputs)).backward()

    yield "forward", forward
    yield "training", train
    if model.generates:
        given = {name: value for name, value in inputs.items() if name != "labels"}
        yield "generate", lambda: module.generate(**given, max_new_tokens=4, do_sample=False)


def answers(
    names: list[str] | None, wanted: list[str]
) -> Iterator[tuple[str, str, str, str, float]]:
    """Family, model with what is done, what it is, and what it was taken for, how surely."""
    from zoo.models import FAMILIES

    for family, models in FAMILIES.items():
        for name, model in models.items():
            if names and name not in names and family not in names:
                continue
            torch.manual_seed(0)
            module = model.build().eval().to(REMOTE)
            inputs = remote(model.inputs())
            for way, run in ways(model, module, inputs):
                if way not in wanted:
                    continue
                try:
                    told = json.loads(genie.explain(run, format="json"))
                except Exception as error:  # noqa: BLE001 (the next one goes on)
                    print(f"{name} {way}: {type(error).__name__}: {error}"[:200], file=sys.stderr)
                    continue
                work = told["workload"]
                kind = "training" if way == "training" else expected(family, name)
                yield family, f"{name} {way}", kind, work["class"], work["confidence"]


def main() -> int:
    """Measures, and prints."""
    parser = command_line.parser(__doc__)
    parser.add_argument("models", nargs="*", help="models or families (default: all)")
    parser.add_argument(
        "--ways", nargs="*", default=["forward"], help="forward, training, generate"
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 if a promise is missed")
    given = parser.parse_args()
    matrix: collections.Counter[tuple[str, str]] = collections.Counter()
    sure = right = count = 0
    with Daemon() as node:
        genie.connect(node.address)
        for family, name, kind, found, confidence in answers(given.models, given.ways):
            matrix[kind, found] += 1
            count += 1
            is_sure = confidence >= SURE
            sure += is_sure
            right += is_sure and kind == found
            if kind != found:
                said = "" if is_sure else ", not sure"
                print(f"{family} {name}: {kind}, taken for {found} at {confidence:.2f}{said}")
        genie.disconnect()
    print(f"\n{'is, taken for':12}" + "".join(f"{kind:>12}" for kind in KINDS))
    for kind in KINDS:
        print(f"{kind:12}" + "".join(f"{matrix[kind, found]:12}" for found in KINDS))
    if not count:
        return 1
    exact = sum(number for (kind, found), number in matrix.items() if kind == found)
    print(f"\n{count} answers, {exact / count:.1%} right")
    print(f"{sure / count:.1%} at {SURE} or more, of these {right / max(sure, 1):.1%} right")
    return int(given.check and (right < 0.95 * sure or sure < 0.8 * count))


if __name__ == "__main__":
    sys.exit(main())
