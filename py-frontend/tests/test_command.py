"""``python -m genie``: what it prints, and its exit status."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import genie
import pytest
import torch
from daemon import Daemon, free_port
from genie import _catalogue
from genie.__main__ import main


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "genie", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
    )


def test_the_command_prints_pages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.split("\n\n")[0].splitlines()] == _catalogue.names()
    assert main(["errors", "fork"]) == main(["errors", "genie.ForkError"]) == 0
    assert capsys.readouterr().out == _catalogue.read("fork") * 2
    assert main(["errors", "ConnectError"]) == 0
    assert capsys.readouterr().out.count("## What to try") == 4
    assert main(["errors", "nonsense"]) == 1
    assert "no page nonsense" in capsys.readouterr().err
    for wrong in ([], ["nonsense"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)


def test_the_command_tells_what_a_report_needs(daemon: Daemon) -> None:
    done = command("info", GENIE_ADDRESS=daemon.address)
    assert done.returncode == 0, done.stderr
    for line in (
        rf"genie +{genie.__version__}",
        rf"torch +{re.escape(torch.__version__)} ",
        r"genie-dataplane +/.*/genie-dataplane",
        rf"GENIE_ADDRESS +{daemon.address}",
        r"GENIE_CONFIG +not set",
        r"nodes +reachable",
        rf"remote_accelerator:0 +{daemon.address} host:0 ",
    ):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), (line, done.stdout)


def test_the_command_tells_of_a_node_that_is_not_there() -> None:
    done = command("info", GENIE_ADDRESS=f"tcp://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "no session: ConnectError: no node answers" in done.stdout
