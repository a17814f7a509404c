"""ResNet-18 and GPT-2 through genie on a device, beside the same models in plain PyTorch.

What plain PyTorch computes comes from a process of its own, on the same device: the same kernels,
without genie.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import genie
import torch
from daemon import Daemon, DaemonError
from gpu_models import MODELS
from torch import Tensor

# Of the largest value. The kernels are the same, their order of sums may not be.
DIFFERENCE_MAX = 1e-4
REFERENCE_SECONDS_MAX = 600
# What a check may raise: it has failed then, and the report is written all the same.
FAILURES = (
    genie.GenieError,
    DaemonError,
    subprocess.SubprocessError,
    OSError,
    RuntimeError,
    ValueError,
)


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a part of the largest value; infinite where shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.is_floating_point():
        return float((found != wanted).any())
    scale = max(float(wanted.abs().max()), 1e-30)
    return float((found - wanted).abs().max()) / scale


def reference(device: str, folder: Path) -> dict[str, dict[str, Tensor]]:
    """What plain PyTorch computes on `device` (`cpu`, `cuda:0`), in a process without genie."""
    file = folder / "reference.pt"
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("gpu_models.py")), "--device", device, file],
        check=True,
        timeout=REFERENCE_SECONDS_MAX,
        stdin=subprocess.DEVNULL,
    )
    loaded: dict[str, dict[str, Tensor]] = torch.load(file, weights_only=True)
    return loaded


def compare(name: str, wanted: dict[str, Tensor]) -> dict[str, Any]:
    """Runs a model through genie; a check of the report."""
    started = time.monotonic()
    check: dict[str, Any] = {"name": f"{name}_parity", "status": "passed", "reason": None}
    try:
        found = MODELS[name]("remote_accelerator:0")
        differences = {key: difference(found[key], wanted[key]) for key in wanted}
        check["found"] = {"difference_max": differences, "allowed": DIFFERENCE_MAX}
        if not all(value <= DIFFERENCE_MAX for value in differences.values()):
            check |= {"status": "failed", "reason": f"differs from plain PyTorch: {differences}"}
    except FAILURES as error:
        check |= {"status": "failed", "reason": f"{type(error).__name__}: {error}", "found": None}
    check["seconds"] = time.monotonic() - started
    return check


def parity(device: str) -> list[dict[str, Any]]:
    """All models on the daemon's `device`, beside plain PyTorch on the same hardware."""
    libtorch = str(Path(torch.__file__).resolve().parent)
    with tempfile.TemporaryDirectory(prefix="genie-gpu-check-") as folder:
        wanted = reference("cpu" if device.startswith("host") else device, Path(folder))
        log = Path(folder) / "daemon.log"
        with Daemon("--tensors", "pools", "--libtorch", libtorch, device=device, log=log) as daemon:
            genie.connect(daemon.address)
            try:
                return [compare(name, wanted[name]) for name in MODELS]
            finally:
                genie.disconnect()


def main() -> int:
    """Adds the parity checks to a report; 1 if anything in it failed or was skipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--native", type=Path, required=True, help="genie-gpu-check's report")
    parser.add_argument("--json", type=Path, required=True, help="where the whole report goes")
    options = parser.parse_args()
    report = json.loads(options.native.read_text())
    report["torch"] = torch.__version__
    try:
        checks = parity(options.device)
    except FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
        checks = [
            {"name": f"{name}_parity", "status": "failed", "reason": reason, "seconds": 0.0}
            for name in MODELS
        ]
    for check in checks:
        print(f"{check['status']:8} {check['name']:20} {check['seconds']:6.2f} s", file=sys.stderr)
    report["checks"] += checks
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(any(check["status"] != "passed" for check in report["checks"]))


if __name__ == "__main__":
    sys.exit(main())
