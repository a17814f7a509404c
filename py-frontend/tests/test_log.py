"""``GENIE_LOG`` in the client: what each of its components says, on standard error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from daemon import Daemon

PROGRAM = """
import sys, torch, genie
genie.connect(sys.argv[1])
x = torch.ones(4, device="remote_accelerator:0")
for _ in range(4):
    x = torch.ones(4).to("remote_accelerator:0") + x
    x.sum().item()
x.nonzero()
genie.disconnect()
"""


def said(daemon: Daemon, level: str | None) -> list[str]:
    """The lines on standard error of a program with this filter."""
    environment = {key: value for key, value in os.environ.items() if key != "GENIE_LOG"}
    if level is not None:
        environment["GENIE_LOG"] = level
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, daemon.address],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def components(lines: list[str]) -> set[str]:
    names = ("capture", "link", "plans", "session", "values")
    return {name for name in names for line in lines if f" {name}: " in line}


def test_nothing_is_said_unasked(daemon: Daemon) -> None:
    assert said(daemon, None) == []
    assert said(daemon, "") == []
    assert said(daemon, "off,genie_dataplane=trace") == []


def test_every_component_says_something(daemon: Daemon) -> None:
    lines = said(daemon, "trace")
    assert components(lines) == {"capture", "link", "plans", "session", "values"}
    assert any(
        "waits for an operator's results" in line and "aten::nonzero" in line for line in lines
    )
    assert any("new signature" in line and "aten::sum" in line for line in lines)
    assert any(" upload " in line and "bytes=16" in line for line in lines)
    # Libraries say nothing of their own.
    assert all(components([line]) for line in lines)


@pytest.mark.parametrize("component", ["capture", "link", "plans", "session", "values"])
def test_one_component(daemon: Daemon, component: str) -> None:
    assert components(said(daemon, f"{component}=trace")) == {component}


def test_levels(daemon: Daemon) -> None:
    assert components(said(daemon, "info")) == {"link", "session"}
    assert components(said(daemon, "info,link=off,capture=debug")) == {"capture", "session"}
    assert components(said(daemon, "info,session=warn")) == {"link"}


def test_what_is_not_understood_is_told(daemon: Daemon) -> None:
    lines = said(daemon, "plan=debug,session=info")
    warnings = [line for line in lines if "not understood: plan=debug" in line]
    assert len(warnings) == 1
    assert "COMPONENT=LEVEL" in warnings[0]
    assert "capture, link, plans, session, values" in warnings[0]
    assert components(lines) - {"plans"} >= {"session"}
