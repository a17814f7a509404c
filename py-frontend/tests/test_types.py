"""The package's types: for a program under a strict type checker, and of the native module."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import genie
import torch
from daemon import Daemon
from genie import remote_accelerator
from support import DEVICE
from typed import public_api

FRONTEND = Path(__file__).parents[1]
PROGRAM = FRONTEND / "tests" / "typed" / "public_api.py"


def checker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=FRONTEND,
        env={**os.environ, "MYPYPATH": "python"},
    )


def names_of(tree: ast.AST, module: str) -> set[str]:
    """What a program reads of a module that it calls so."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == module
    }


def test_the_program_uses_all_that_is_public() -> None:
    tree = ast.parse(PROGRAM.read_text())
    assert set(genie.__all__) <= names_of(tree, "genie")
    assert set(remote_accelerator.__all__) <= names_of(tree, "device_module")


def test_a_strict_checker_finds_what_is_wrong_and_no_more(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import genie\nfrom genie import remote_accelerator\n"
        "genie.connect(7700)\ngenie.devices()[0].speeds\nremote_accelerator.memory_allocated(0.5)\n"
    )
    done = checker("mypy", str(PROGRAM), str(wrong))
    found = re.findall(r"^(.*?):(\d+): error", done.stdout, re.MULTILINE)
    assert [(Path(path).name, line) for path, line in found] == [
        (wrong.name, "3"),
        (wrong.name, "4"),
        (wrong.name, "5"),
    ], done.stdout


def test_the_program_runs(daemon: Daemon) -> None:
    public_api.use_errors()
    try:
        public_api.use_a_session(daemon.address)
    finally:
        genie.disconnect()


def test_the_native_module_is_what_its_stub_says() -> None:
    done = checker("mypy.stubtest", "genie._native")
    assert done.returncode == 0, done.stdout


def test_the_typed_module_has_the_device_modules_objects() -> None:
    for name in remote_accelerator.__all__:
        assert getattr(remote_accelerator, name) is getattr(torch.get_device_module(DEVICE), name)
