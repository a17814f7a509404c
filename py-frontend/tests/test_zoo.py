"""Models of the zoo on the device against the CPU; ``python -m zoo`` makes a table of them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from daemon import Daemon
from zoo.attempt import ONE_THREAD, NotOnTheCpuError, attempt
from zoo.compare import DiffersError
from zoo.known import KNOWN
from zoo.model import Model
from zoo.models import MODELS
from zoo.modes import MODES

# A new one in each run, which GENIE_SEED repeats.
SEED = int(os.environ.get("GENIE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
#: So many models of each mode are drawn; the rest is slow.
DRAWN = {mode: 3 if mode.startswith(("compile", "replay")) else 12 for mode in MODES}


@pytest.fixture(scope="module", autouse=True)
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A node of one thread."""
    threads = torch.get_num_threads()
    log = tmp_path_factory.mktemp("node") / "genie-dataplane.log"
    with Daemon(log=log, device=ONE_THREAD) as running:
        genie.connect(running.address)
        yield running
        genie.disconnect()
        assert running.running, f"the node died during the tests:\n{running.log()}"
    torch.set_num_threads(threads)


def cases() -> list[Any]:
    """Every model in every mode; all are slow but those that are drawn."""
    drawing = random.Random(SEED)
    found = []
    for mode, one in MODES.items():
        names = [name for name, model in MODELS.items() if one.applies(model)]
        drawn = drawing.sample(names, DRAWN[mode])
        for name in names:
            marks: list[Any] = [] if name in drawn else [pytest.mark.slow]
            # Known by name and reason; strict, so that one that works again has to leave the list.
            if (name, mode) in KNOWN:
                marks.append(pytest.mark.xfail(strict=True, reason=KNOWN[name, mode]))
            found.append(pytest.param(name, mode, id=f"{name}-{mode}", marks=marks))
    return found


@pytest.mark.parametrize(("name", "mode"), cases())
def test_a_model(name: str, mode: str) -> None:
    print(f"GENIE_SEED={SEED} draws the same models again")
    try:
        attempt(MODELS[name], MODES[mode])
    except NotOnTheCpuError as error:
        assert mode not in {"forward", "train"}, "a model that does not even run on the CPU"
        # There is nothing to compare with: the reason is the CPU's own error.
        pytest.skip(f"the CPU can't, either: {error}")


class Crooked(torch.nn.Module):
    """Gives a little more on the device than on the CPU."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = self.layer(x)
        return given if given.is_cpu else given * (1 + self.error)


@pytest.mark.parametrize("mode", ["forward", "train", "checkpoint", "functional", "ensemble"])
def test_a_difference_is_seen(mode: str) -> None:
    def crooked(error: float) -> Model:
        return Model(lambda: Crooked(error), lambda: {"x": torch.ones(2, 3)})

    assert attempt(crooked(1e-6), MODES[mode]) < 1e-5
    with pytest.raises(DiffersError):
        attempt(crooked(1e-2), MODES[mode])


def test_the_table(node: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    chosen = ["--model", "lstm*", "--mode", "forward", "--mode", "train"]
    command = [sys.executable, "-m", "zoo", *chosen, "--node", node.address, "--json", str(file)]
    ran = subprocess.run(
        command,
        check=False,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    results = json.loads(file.read_text())
    assert len(results) == 6
    for result in results:
        assert result["result"] == "passed"
        assert f"{result['model']:<22} {result['parameters']:>10} {result['mode']}" in ran.stdout
