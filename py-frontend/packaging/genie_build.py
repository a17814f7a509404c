"""Builds the package: maturin's backend, against the torch of the environment it is built for.

The native library fits the release of torch that it is built for. An installer builds in an
environment of its own, which hides that torch, and torch is too large to be loaded once more for a
build. So this looks for it where the package is going, and asks for another only if there is none.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
_FIND = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')"


class BuildError(SystemExit):
    """What is missing, and what to do: an installer shows it as it is."""

    def __init__(self, text: str) -> None:
        super().__init__(f"\ngenie can't be built: {text}\n")


def releases() -> list[str]:
    """The releases of torch that this source fits, the preferred one first."""
    text = (PROJECT / "pyproject.toml").read_text()
    found = re.search(r"^torch-releases = \[(.*)\]$", text, re.MULTILINE)
    assert found, "pyproject.toml names no releases of torch"
    return re.findall(r'"([^"]+)"', found[1])


def find_torch() -> Path | None:
    """The folder of the torch to build against; None where there is none."""
    named = os.environ.get("GENIE_TORCH")
    if named:
        if not (Path(named) / "version.py").is_file():
            raise BuildError(f"GENIE_TORCH={named} is no folder of an installed torch")
        return Path(named)
    # Isolated, this Python sees what is installed beside it, and not what the installer put before.
    for python in (sys.executable, *_python_of_environment()):
        found = subprocess.run(
            [python, "-I", "-c", _FIND], capture_output=True, text=True, check=False
        ).stdout.strip()
        if found:
            return Path(found).parent
    # A build without isolation, or one for which torch was asked for.
    for folder in map(Path, filter(None, sys.path)):
        if (folder / "torch" / "version.py").is_file():
            return folder / "torch"
    return None


def _python_of_environment() -> Iterator[str]:
    activated = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    if activated and (Path(activated) / "bin" / "python").is_file():
        yield str(Path(activated) / "bin" / "python")


def check_torch(folder: Path) -> None:
    """Raise for a release that this source does not fit."""
    found = re.search(r"__version__ = '([^'+]+)", (folder / "version.py").read_text())
    release = found[1] if found else "of an unknown release"
    if release not in releases():
        raise BuildError(
            f"this source fits torch {' and '.join(releases())}, and the torch in {folder} is "
            f"{release}: pip install torch=={releases()[0]}, or name another by GENIE_TORCH"
        )


def check_tools() -> None:
    """Raise where a compiler is missing."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
    if shutil.which(compiler) is None:
        raise BuildError(
            f"there is no C++ compiler ({compiler}): apt-get install g++, or name one by CXX"
        )
    if shutil.which("cargo") is None:
        raise BuildError(
            "there is no cargo: install Rust (https://rustup.rs), and open a new shell"
        )


@contextmanager
def _environment() -> Iterator[None]:
    check_tools()
    torch = find_torch()
    if torch is None:
        raise BuildError(
            f"there is no torch to build against: pip install torch=={releases()[0]} first, or "
            "name its folder by GENIE_TORCH"
        )
    check_torch(torch)
    before = os.environ.get("GENIE_TORCH")
    # Cargo takes another name for another torch, and builds all anew.
    if torch.resolve() != (PROJECT.parent / ".venv" / "torch").resolve():
        os.environ["GENIE_TORCH"] = str(torch)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("GENIE_TORCH", None)
        else:
            os.environ["GENIE_TORCH"] = before


# ---- PEP 517 -------------------------------------------------------------------------------------


def get_requires_for_build_wheel(_settings: Any = None) -> list[str]:
    """Torch, where the environment has none."""
    torch = find_torch()
    if torch is not None:
        check_torch(torch)
    return [] if torch is not None else [f"torch=={releases()[0]}"]


def get_requires_for_build_sdist(_settings: Any = None) -> list[str]:
    """Nothing."""
    return []


def get_requires_for_build_editable(_settings: Any = None) -> list[str]:
    """In place nothing is built: scripts/setup has put the native library there."""
    return ["setuptools>=70.1"]


def prepare_metadata_for_build_wheel(folder: str, settings: Any = None) -> str:
    """As maturin does."""
    import maturin  # noqa: PLC0415

    return str(maturin.prepare_metadata_for_build_wheel(folder, settings))


def build_wheel(folder: str, settings: Any = None, metadata: str | None = None) -> str:
    """As maturin does, against the environment's torch."""
    with _environment():
        import maturin  # noqa: PLC0415

        return str(maturin.build_wheel(folder, settings, metadata))


def build_sdist(folder: str, settings: Any = None) -> str:
    """As maturin does."""
    import maturin  # noqa: PLC0415

    return str(maturin.build_sdist(folder, settings))


def build_editable(folder: str, settings: Any = None, metadata: str | None = None) -> str:
    """As setuptools does."""
    from setuptools import build_meta  # noqa: PLC0415

    return str(build_meta.build_editable(folder, settings, metadata))


if __name__ == "__main__":
    # Cargo's build asks so where nothing else says which torch is meant.
    print(find_torch() or "")
