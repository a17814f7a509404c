"""Fixtures: nodes in processes of their own, and a limit on how long a test may wait."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("GENIE_ADDRESS", None)

import genie
import pytest
import torch
from daemon import Daemon
from linked import Linked, make_linked
from support import Client, make_certificates
from torch._dynamo.utils import counters
from watched import plans

TEST_SECONDS_MAX = 120
SLOW_TEST_SECONDS_MAX = 600
# A wait that no signal interrupts ends the whole run this much later, with a stack of each thread.
GRACE_SECONDS = 30
LOG_CHARACTERS_SHOWN = 6000


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A node for all tests of a module."""
    with Daemon(log=tmp_path_factory.mktemp("node") / "genie-dataplane.log") as running:
        yield running
        assert running.running, f"the node died during the tests:\n{running.log()}"


@pytest.fixture(scope="module")
def session(daemon: Daemon) -> Iterator[Daemon]:
    """This process connected to the module's node."""
    genie.connect(daemon.address)
    yield daemon
    genie.disconnect()


@pytest.fixture
def compiled_anew() -> Iterator[None]:
    """Nothing compiled by another test."""
    torch.compiler.reset()
    counters.clear()
    plans.clear()
    yield
    torch.compiler.reset()


@pytest.fixture(scope="module")
def three_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A node of three devices for all tests of a module."""
    others = ("--device", "host:1?threads=1", "--device", "host:2?threads=1")
    log = tmp_path_factory.mktemp("node") / "genie-dataplane.log"
    with Daemon(*others, log=log, device="host:0?threads=1") as running:
        yield running
        assert running.running, f"the node died during the tests:\n{running.log()}"


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linked]:
    """A node and a gateway over DPDK, for all tests of a module."""
    made = make_linked(tmp_path_factory.mktemp("linked"))
    yield made
    assert made.node.running, made.node.log()
    assert made.gateway.running, made.gateway.log()
    made.stop()


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts nodes for one test. `make_daemon(*arguments, **options)`, options as of Daemon."""
    started: list[Daemon] = []

    def make(*arguments: str, **options: Any) -> Daemon:
        made = Daemon(*arguments, log=tmp_path / f"genie-dataplane-{len(started)}.log", **options)
        started.append(made)
        return made.start()

    make.started = started  # type: ignore[attr-defined]
    yield make
    with contextlib.suppress(genie.GenieError):
        genie.disconnect()
    for made in started:
        made.stop()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with an authority, and certificates of a daemon and a client."""
    return make_certificates(tmp_path / "certs")


@pytest.fixture
def make_client() -> Iterator[Callable[..., Client]]:
    """Starts other client processes for one test, as `Client` does."""
    started: list[Client] = []

    def make(code: str, **options: Any) -> Client:
        started.append(Client(code, **options))
        return started[-1]

    yield make
    for made in started:
        made.close()


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers in each test, whichever runs first."""
    torch.manual_seed(1)


@pytest.fixture(autouse=True)
def bounded(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test waits for ever."""
    slow = request.node.get_closest_marker("slow")
    limit = slow.kwargs.get("seconds", SLOW_TEST_SECONDS_MAX) if slow else TEST_SECONDS_MAX

    def expired(*_: object) -> None:
        raise TimeoutError(f"the test took more than {limit} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.alarm(limit)
    faulthandler.dump_traceback_later(limit + GRACE_SECONDS, exit=True)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Shows the end of the nodes' logs with a failure."""
    report: Any = yield
    if report.failed:
        values = getattr(item, "funcargs", {}).values()
        nodes = [value for value in values if isinstance(value, Daemon)]
        for value in values:
            nodes += getattr(value, "started", [])
        for node in dict.fromkeys(nodes):
            report.sections.append(
                (f"log of node {node.host_port}", node.log()[-LOG_CHARACTERS_SHOWN:])
            )
    return report
