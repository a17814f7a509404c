"""The package as it is installed: its pins, its versions, its command line's address."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from packaging.requirements import Requirement

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


def test_the_releases_of_torch_are_the_same_everywhere(building: Any) -> None:
    releases = building.releases()
    assert releases[0] == pinned("torch")
    (required,) = (
        Requirement(one)
        for one in importlib.metadata.requires("genie") or []
        if one.startswith("torch")
    )
    for release in ("2.10.0", "2.11.0", "2.12.0", "2.12.1", "2.13.0", "2.14.0"):
        assert (release in required.specifier) == (release in releases), release
    assert torch.__version__.split("+")[0] == pinned("torch")
    assert pinned("torch") == genie.TORCH_VERSION


#: What is run with another release: each part of the frontend that knows torch's inside.
ELSEWHERE = (
    "ahead", "capture", "compile", "device_module", "errors", "inspect", "intent", "layouts",
    "long_lists", "operator_database", "out", "profile", "programs", "recurrent", "replay",
    "tensors", "training", "transforms", "triggers", "undo",
)  # fmt: skip


@pytest.mark.slow(seconds=3600)
def test_the_other_release_of_torch(building: Any) -> None:
    """Builds for it, and runs a good part of the tests there: half an hour on two cores."""
    (other,) = building.releases()[1:]
    done = subprocess.run(
        [
            ROOT / "scripts" / "with-torch", other, "python", "-m", "pytest",
            "--rootdir", "py-frontend", "--config-file", "py-frontend/pyproject.toml",
            "-q", "-m", "not slow",
            *(f"py-frontend/tests/test_{name}.py" for name in ELSEWHERE),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


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


# ---- building it ---------------------------------------------------------------------------------


@pytest.fixture
def building(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "py-frontend" / "packaging"))
    monkeypatch.delenv("GENIE_TORCH", raising=False)
    return importlib.import_module("genie_build")


def test_a_build_finds_the_torch_of_its_environment(
    building: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Path(torch.__file__).parent
    assert building.find_torch() == ours
    assert building.get_requires_for_build_wheel() == []
    building.check_torch(ours)
    monkeypatch.setattr(building, "find_torch", lambda: None)
    assert building.get_requires_for_build_wheel() == [f"torch=={pinned('torch')}"]


def test_a_build_says_what_it_lacks(
    building: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "version.py").write_text("__version__ = '2.9.1+cpu'\n")
    monkeypatch.setenv("GENIE_TORCH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"is 2\.9\.1: pip install torch=="):
        building.build_wheel(str(tmp_path))
    monkeypatch.setenv("GENIE_TORCH", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match="is no folder of an installed torch"):
        building.build_wheel(str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(SystemExit, match="no C\\+\\+ compiler"):
        building.build_wheel(str(tmp_path))
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="there is no cargo"):
        building.build_wheel(str(tmp_path))


def test_programs_run_with_the_environments_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from genie import _binaries

    built = ROOT / "target" / "release"
    assert _binaries.find("genie-dataplane") == built / "genie-dataplane"
    told = _binaries.environment()
    assert told["GENIE_LIBTORCH"] == str(Path(torch.__file__).parent)
    assert told["GENIE_EXECUTOR"] == str(built / "genie-executor")
    monkeypatch.setenv("GENIE_LIBTORCH", "/elsewhere")
    assert _binaries.environment()["GENIE_LIBTORCH"] == "/elsewhere"
    # Without a checkout: what is on the PATH, but for the scripts that lead here.
    monkeypatch.setattr(_binaries, "_BUILT", tmp_path / "none")
    script, program = tmp_path / "scripts", tmp_path / "programs"
    for folder in (script, program):
        folder.mkdir()
    (script / "genie-perf").write_text("#!/bin/sh\n")
    (script / "genie-perf").chmod(0o755)
    shutil.copy("/bin/true", program / "genie-perf")
    monkeypatch.setenv("PATH", f"{script}:{program}")
    assert _binaries.find("genie-perf") == program / "genie-perf"
    monkeypatch.setenv("PATH", str(script))
    with pytest.raises(SystemExit, match="scripts/wheel makes one"):
        _binaries.perf()


def test_the_scripts_lead_to_the_programs() -> None:
    for name in ("dataplane", "controlplane", "perf"):
        entry = f"genie._binaries:{name}"
        assert f'genie-{name} = "{entry}"' in (ROOT / "py-frontend" / "pyproject.toml").read_text()
        code = f"from genie import _binaries; _binaries.{name}()"
        shown = subprocess.run(
            [sys.executable, "-c", code, "--version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        assert shown.strip() == f"genie-{name} {genie.__version__}"


#: With the wheel's own node.
PROGRAM = """
import os, subprocess, sys
import torch, genie

assert "env/lib" in genie.__file__, genie.__file__
node = subprocess.Popen(
    [os.path.join(os.path.dirname(sys.executable), "genie-dataplane"), "--listen", "127.0.0.1:0"],
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
)
ready = next(line for line in node.stdout if "ready on " in line)
genie.connect("tcp://" + ready.partition("ready on ")[2].split()[0])
print((torch.arange(4.0, device="remote_accelerator:0") * 2).sum().item())
genie.disconnect()
node.terminate()
sys.exit(node.wait(20))
"""


@pytest.mark.slow
def test_a_wheel_brings_a_node(tmp_path: Path) -> None:
    subprocess.run(
        [str(ROOT / "scripts" / "wheel"), str(tmp_path)], check=True, timeout=560, cwd=tmp_path
    )
    (wheel,) = tmp_path.glob("genie-*.whl")
    assert "manylinux" in wheel.name
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True, timeout=60)
    python = tmp_path / "env" / "bin" / "python"
    # The torch of this environment, and not its genie.
    (site,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    (site / "torch.pth").write_text(str(Path(torch.__file__).parents[1]) + "\n")
    install = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    (tmp_path / "program.py").write_text(PROGRAM)
    shown = subprocess.run(
        [str(python), "program.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert shown.stdout.strip() == "12.0", shown.stdout + shown.stderr
    assert shown.returncode == 0, shown.stderr
