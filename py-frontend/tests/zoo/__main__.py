"""Runs the zoo on a node and prints a table: ``python -m zoo --model llama --mode train``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import genie

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts" / "lib"))
from daemon import Daemon
from support import in_a_line, is_named

from .attempt import ONE_THREAD, NotOnTheCpuError, attempt
from .known import KNOWN
from .models import FAMILIES
from .modes import MODES

#: Widths of family, model, parameters, mode and seconds; the result has the rest.
ROW = "{:<21} {:<22} {:>10} {:<18} {:>6} {}"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="zoo",
        description="Small models with random weights on a node, against the CPU: a line for each "
        "model and mode, with the largest error over the largest magnitude, or what failed.",
        epilog=f"families: {', '.join(FAMILIES)}. modes: {', '.join(MODES)}. The exit status is 1 "
        "if anything fails that is not known to (zoo/known.py), or works that is.",
    )
    parser.add_argument(
        "--node", metavar="ADDRESS", help="a node; else one is started, of one thread"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="its name, its beginning with *, or a family",
    )
    parser.add_argument("--mode", action="append", choices=MODES, metavar="MODE", help="see below")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--failures", action="store_true", help="print only what does not pass")
    return parser.parse_args()


def main() -> int:
    """Run, print; 1 if anything is not as it is known to be."""
    given = arguments()
    results = []
    print(ROW.format("family", "model", "parameters", "mode", "s", "result"))
    with contextlib.ExitStack() as stack:
        address = given.node or stack.enter_context(Daemon(device=ONE_THREAD)).address
        genie.connect(address)
        for result in run(given.model, given.mode or list(MODES), address):
            results.append(result)
            if not (given.failures and result["result"] == "passed"):
                print(_row(result), flush=True)
            if given.json:
                given.json.write_text(json.dumps(results, indent=1))
        genie.disconnect()
    counts = Counter(result["result"] for result in results)
    print("# " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    return int(any(counts[what] for what in ("failed", "passed, though known to fail")))


def _row(result: dict[str, Any]) -> str:
    detail = result["error"] if result["largest"] is None else f"{result['largest']:.0e}"
    return ROW.format(
        result["family"],
        result["model"],
        result["parameters"],
        result["mode"],
        f"{result['seconds']:.1f}",
        f"{result['result']}: {detail}",
    )


def run(wanted: list[str] | None, modes: list[str], address: str) -> Iterator[dict[str, Any]]:
    """What became of each model in each mode."""
    for family, models in FAMILIES.items():
        for name, model in models.items():
            if wanted and not any(one == family or is_named(one, name) for one in wanted):
                continue
            parameters = sum(value.numel() for value in model.build().parameters())
            for mode in modes:
                if not MODES[mode].applies(model):
                    continue
                began = time.monotonic()
                what, largest, error = outcome(name, mode, model, address)
                yield {
                    "family": family,
                    "model": name,
                    "parameters": parameters,
                    "mode": mode,
                    "result": what,
                    "largest": largest,
                    "error": error,
                    "seconds": time.monotonic() - began,
                }


def outcome(name: str, mode: str, model: Any, address: str) -> tuple[str, float | None, str]:
    """What it is called, the largest error if there is one, and what was raised."""
    is_known = (name, mode) in KNOWN
    try:
        largest = attempt(model, MODES[mode])
    except NotOnTheCpuError as error:
        return "not on the CPU", None, str(error)
    except genie.NodeLostError as error:
        genie.disconnect()
        genie.connect(address)
        return "failed", None, str(error)
    except Exception as error:
        return "known to fail" if is_known else "failed", None, in_a_line(error)
    return "passed, though known to fail" if is_known else "passed", largest, ""


if __name__ == "__main__":
    sys.exit(main())
