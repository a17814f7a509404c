"""The package as it is installed: its pins, its versions, its command line's address."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import genie
import torch

ROOT = Path(__file__).resolve().parents[2]


def pinned(name: str) -> str:
    requirements = (ROOT / "scripts" / "requirements.txt").read_text()
    found = re.search(rf"^{name}==(\S+)$", requirements, re.MULTILINE)
    assert found, f"scripts/requirements.txt pins no {name}"
    return found[1]


def test_the_version_is_one() -> None:
    cargo = re.search(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert cargo
    assert importlib.metadata.version("genie") == cargo[1]
    assert genie.__version__ == cargo[1]


def test_the_pin_of_torch_is_one() -> None:
    assert f"torch=={pinned('torch')}" in importlib.metadata.requires("genie")
    assert torch.__version__.split("+")[0] == pinned("torch")
    assert pinned("torch") == genie.TORCH_VERSION


def test_torch_finds_the_backend_by_itself() -> None:
    backends = importlib.metadata.entry_points(group="torch.backends")
    assert "genie" in backends.names
    assert callable(backends["genie"].load())


def test_the_readme_shows_the_real_names() -> None:
    """Every genie.NAME that the documents mention exists."""
    text = (ROOT / "README.md").read_text()
    mentioned = set(re.findall(r"\bgenie\.([a-z_A-Z]+)\(", text))
    assert {"connect", "stats"} <= mentioned
    for name in mentioned:
        assert hasattr(genie, name), name
