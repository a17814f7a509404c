"""Runs the database on a node: ``python -m opdb --dtype float32 --variant functional``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import genie
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts" / "lib"))
from daemon import Daemon
from support import DEVICE, in_a_line, is_named

from .attempt import NothingToCompare, attempt
from .database import DTYPES, VARIANTS, has, name_of, operators, samples
from .table import page


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="opdb", description=__doc__)
    parser.add_argument("--node", metavar="ADDRESS", help="a node; else one is started")
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    parser.add_argument("--variant", action="append", choices=VARIANTS)
    parser.add_argument("--operator", action="append", help="its name, or how it begins with *")
    parser.add_argument("--samples", type=int, default=6, help="of each operator (default 6)")
    parser.add_argument("--markdown", type=Path, help="write a page of them there")
    parser.add_argument("--json", type=Path, help="write the results there")
    return parser.parse_args()


def main() -> int:
    """Run, print what fails; 1 if anything does."""
    given = arguments()
    found = [
        operator
        for operator in operators()
        if not given.operator or any(is_named(one, name_of(operator)) for one in given.operator)
    ]
    with contextlib.ExitStack() as stack:
        address = given.node or stack.enter_context(Daemon()).address
        genie.connect(address)
        results = _run_all(found, given, address)
        genie.disconnect()
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    if given.markdown:
        given.markdown.write_text(page(results, torch=torch.__version__, samples=given.samples))
    return int(any(result["failures"] for result in results))


def _run_all(found: list[Any], given: argparse.Namespace, address: str) -> list[dict[str, Any]]:
    """All results; says on the way what fails, and how many there are."""
    results = []
    began = time.monotonic()
    for dtype in given.dtype or DTYPES:
        for variant in given.variant or VARIANTS:
            ran = failed = 0
            for result in run(found, dtype, variant, given.samples, address):
                results.append(result)
                ran += 1
                if result["failures"]:
                    failed += 1
                    print(f"{dtype} {variant} {result['operator']}: {result['failures'][0]}")
            print(
                f"# {dtype} {variant}: {ran - failed} of {ran}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    return results


def run(
    found: list[Any], dtype: str, variant: str, most: int, address: str
) -> Iterator[dict[str, Any]]:
    """What became of each operator of which anything could be compared."""
    for operator in found:
        if not has(operator, DTYPES[dtype], variant):
            continue
        compared, failures = 0, []
        try:
            for sample in samples(operator, DTYPES[dtype], variant, most):
                try:
                    attempt(operator, sample, variant)
                except NothingToCompare:
                    continue
                except Exception as error:
                    failures.append(in_a_line(error))
                    _begin_anew(address)
                compared += 1
        except Exception as error:
            print(f"no samples of {name_of(operator)}: {error}", file=sys.stderr)
        if compared:
            yield {
                "operator": name_of(operator),
                "dtype": dtype,
                "variant": variant,
                "compared": compared,
                "failures": failures,
            }


def _begin_anew(address: str) -> None:
    """What failed may be raised once more, and a node may have lost its executor."""
    try:
        torch.ones(1, device=DEVICE).item()
    except genie.NodeLostError:
        print("!! the executor died", flush=True)
        genie.disconnect()
        genie.connect(address)
    except Exception:
        pass


if __name__ == "__main__":
    sys.exit(main())
