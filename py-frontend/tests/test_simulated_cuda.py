"""A whole node on `cuda:0` with a simulated driver: there is no GPU, and operators run on the CPU.

Everything but the kernels is what a GPU would get: memory made and exported by the driver, mapped
by the executor, staging memory that is registered, copies on streams that run late. The driver is
strict (`gpudev/tests/simulated_cuda`): whatever CUDA does not allow is a line in the log.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from daemon import ROOT, Daemon
from linked import make_linked
from support import REMOTE, check_resnet

MIB = 1 << 20
SOURCES = ROOT / "gpudev/tests/simulated_cuda"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With which a program finds the simulated driver."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler to build the simulated driver")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has NVIDIA's driver")
    folder = tmp_path_factory.mktemp("driver")
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-Wl,-soname,libcuda.so"]
    include = f"-I{ROOT / 'gpudev/src/device/cuda'}"
    library = folder / "libcuda.so"
    command = [compiler, *flags, include, "-o", str(library), str(SOURCES / "driver.cpp")]
    subprocess.run(command, check=True, timeout=120)
    path = os.environ.get("LD_LIBRARY_PATH")
    return {
        "GENIE_SIMULATED_CUDA": "1",
        "LD_LIBRARY_PATH": f"{folder}:{path}" if path else str(folder),
    }


@pytest.fixture(params=["tcp", "dpdk"])
def node(
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    tmp_path: Path,
    make_daemon: Callable[..., Any],
) -> Iterator[Daemon]:
    """A node with the simulated device, and this process connected to it."""
    if request.param == "tcp":
        daemon = make_daemon(device="cuda:0", env=environment)
        genie.connect(daemon.address)
        yield daemon
        genie.disconnect()
    else:
        made = make_linked(tmp_path, device="cuda:0", env=environment)
        try:
            genie.connect(made.gateway.address)
            assert genie.stats()["transport"] == "dpdk"
            yield made.node
        finally:
            genie.disconnect()
            made.stop()
        daemon = made.node
    assert "violation" not in daemon.log(), daemon.log()
    assert "simulated CUDA: there is no GPU" in daemon.log()


def test_every_byte_there_and_back(node: Daemon) -> None:
    """Small, in parts, larger than the staging memory, and in more pools than one."""
    held = []
    for count in (100, 20_000, (20 << 20) + 5, 80 << 20):
        sent = torch.randint(0, 256, (count,), dtype=torch.uint8)
        there = sent.to(REMOTE)
        assert torch.equal(there.cpu(), sent)
        assert torch.equal((there + 1).cpu(), sent + 1)
        held.append(there)
    assert node.metric("genie_pools") > 1
    assert node.metric("genie_staged_to_device_bytes_total") > 100 * MIB


def test_models_are_equal(node: Daemon) -> None:
    """ResNet-18, its weights by the simulated device's queues."""
    check_resnet()


def test_pools_go_back_to_the_device(node: Daemon) -> None:
    """The simulated device has 8 GiB: what is not given back would be missing."""
    for turn in range(12):
        held = [torch.full((100 * MIB,), turn, dtype=torch.uint8).to(REMOTE) for _ in range(8)]
        assert held[-1][-1].item() == turn
        del held
        assert torch.ones(3).to(REMOTE).sum().item() == 3


def test_the_node_says_what_it_is(node: Daemon) -> None:
    """By the driver's own words."""
    device = node.status()["devices"][0]
    assert "simulated" in device["name"]
    assert int(device["memory_bytes"]) == 8 << 30
