"""``genie-dataplane`` and the other programs, run with the torch of this environment."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

_PACKAGE = Path(__file__).resolve().parent
#: Where scripts/setup puts them, seen from the package that it installs in place.
_BUILT = _PACKAGE.parents[2] / "target" / "release"
_ELF = b"\x7fELF"


def find(name: str) -> Path | None:
    """Find a program: in this package, where a checkout builds it, or on the PATH."""
    folders = [_PACKAGE / "bin", _BUILT, *map(Path, os.get_exec_path())]
    for folder in folders:
        if _is_program(folder / name):
            return folder / name
    return None


def _is_program(path: Path) -> bool:
    # The scripts that lead here are on the PATH, too.
    try:
        with path.open("rb") as file:
            return file.read(len(_ELF)) == _ELF and os.access(path, os.X_OK)
    except OSError:
        return False


def libtorch() -> str | None:
    """Find the folder of this environment's torch. It is not imported."""
    spec = importlib.util.find_spec("torch")
    return None if spec is None or spec.origin is None else str(Path(spec.origin).parent)


def environment() -> dict[str, str]:
    """What a program is told, unless its caller has told it otherwise."""
    told = dict(os.environ)
    executor, torch = find("genie-executor"), libtorch()
    if executor is not None:
        told.setdefault("GENIE_EXECUTOR", str(executor))
    if torch is not None:
        told.setdefault("GENIE_LIBTORCH", torch)
    return told


def _run(name: str) -> NoReturn:
    program = find(name)
    if program is None:
        sys.exit(
            f"{name}: there is none in this package, and none on the PATH. Install a wheel that "
            "carries it (scripts/wheel makes one), or build it: cargo build --release -p "
            f"{_CRATES[name]} -p genie-executor, and put target/release on the PATH"
        )
    os.execve(program, [name, *sys.argv[1:]], environment())


_CRATES = {
    "genie-dataplane": "genie-dataplane",
    "genie-controlplane": "genie-controlplane-daemon",
    "genie-perf": "genie-perf",
}


def dataplane() -> NoReturn:
    """Serve this machine's accelerators."""
    _run("genie-dataplane")


def controlplane() -> NoReturn:
    """Be the one door to several nodes."""
    _run("genie-controlplane")


def perf() -> NoReturn:
    """Measure."""
    _run("genie-perf")
