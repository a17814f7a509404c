"""Gets what can be had without touching the system.

That is a virtual environment, and unpacked packages, below `target/peers`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .processes import MeasureError, run

#: Package, and what else it imports here. Their other dependencies are for GPUs.
PACKAGES = {
    "libucx-cu12": (),
    "nixl-cu12": ("numpy",),
    "mooncake-transfer-engine-non-cuda": (),
}
LIMIT = 300.0


class Place:
    """Where things are installed."""

    def __init__(self, root: Path, may_install: bool) -> None:
        self.root = root
        self._may_install = may_install
        self._failures: dict[str, str] = {}

    @property
    def python(self) -> Path:
        """The virtual environment's."""
        return self.root / "venv" / "bin" / "python"

    def package(self, name: str) -> Path:
        """Where Python packages are, with `name` among them."""
        if name in self._failures:
            raise MeasureError(self._failures[name])
        try:
            return self._package(name)
        except MeasureError as failure:
            # Once is enough: the next round would ask again.
            self._failures[name] = str(failure)
            raise

    def _package(self, name: str) -> Path:
        if not self.python.exists():
            self._ask(f"{name} needs a virtual environment")
            run([sys.executable, "-m", "venv", str(self.root / "venv")], LIMIT)
        packages = next((self.root / "venv" / "lib").glob("python3*")) / "site-packages"
        if not any(packages.glob(f"{name.replace('-', '_')}-*.dist-info")):
            self._ask(f"{name} is not in {self.root / 'venv'}")
            pip = [str(self.python), "-m", "pip", "install", "--quiet", "--no-deps"]
            run([*pip, "--disable-pip-version-check", name, *PACKAGES[name]], LIMIT)
        return packages

    def program(self, name: str, package: str) -> str:
        """A program of the system, or of a Debian package that is unpacked here."""
        if found := shutil.which(name):
            return found
        unpacked = self.root / "debian" / "usr" / "bin" / name
        if not unpacked.exists():
            if package in self._failures:
                raise MeasureError(self._failures[package])
            try:
                self._unpack(package)
            except MeasureError as failure:
                self._failures[package] = f"{name} is missing, and {failure}"
                raise MeasureError(self._failures[package]) from failure
        return str(unpacked)

    def _unpack(self, package: str) -> None:
        self._ask(f"Debian's {package} is not installed")
        if not shutil.which("apt-get"):
            raise MeasureError("this is no Debian to get a package from")
        folder = self.root / "debian"
        folder.mkdir(parents=True, exist_ok=True)
        script = 'cd "$1" && apt-get download -q "$2" && dpkg -x "$2"_*.deb .'
        run(["sh", "-c", script, "sh", str(folder), package], LIMIT)

    def _ask(self, why: str) -> None:
        if not self._may_install:
            raise MeasureError(f"{why} (--no-install)")
