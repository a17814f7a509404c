"""Sessions over several devices, on one node and on several."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import genie
import pytest
import torch
from daemon import Daemon, free_port
from support import Client, wait_until

D = "remote_accelerator"
ONE_THREAD = "host:0?threads=1"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Two nodes; the second has two devices."""
    folder = tmp_path_factory.mktemp("nodes")
    first = Daemon(log=folder / "first.log", device=ONE_THREAD)
    second = Daemon("--device", "host:1?threads=1", log=folder / "second.log", device=ONE_THREAD)
    with first as a, second as b:
        yield [a, b]
        assert a.running, a.log()
        assert b.running, b.log()


@pytest.fixture(scope="module")
def session(nodes: list[Daemon]) -> Iterator[list[Daemon]]:
    """This process connected to both."""
    genie.connect([node.address for node in nodes])
    yield nodes
    genie.disconnect()


def test_devices_count_through_in_order(session: list[Daemon]) -> None:
    a, b = session
    devices = genie.devices()
    assert [device.index for device in devices] == [0, 1, 2]
    assert [device.node for device in devices] == [a.address, b.address, b.address]
    assert [device.name for device in devices] == ["host:0", "host:0", "host:1"]
    assert all(device.alive and device.memory_limit_bytes > 0 for device in devices)
    assert torch.accelerator.device_count() == 3


@pytest.mark.parametrize("index", range(3))
def test_each_device_computes(session: list[Daemon], index: int) -> None:
    x = torch.randn(64, 64)
    remote = x.to(f"{D}:{index}")
    assert remote.device.index == index
    result = (remote @ remote.t()).relu() + torch.ones(64, 64, device=f"{D}:{index}")
    assert result.device.index == index
    torch.testing.assert_close(result.cpu(), (x @ x.t()).relu() + 1)
    ranged = torch.arange(10, device=f"{D}:{index}")
    assert ranged.device.index == index
    assert ranged.tolist() == list(range(10))


def test_values_move_between_devices(session: list[Daemon]) -> None:
    x = torch.randn(100, 30)
    moved = x.to(f"{D}:0")
    for index in (1, 2, 0, 2):
        moved = (moved + 1).to(f"{D}:{index}")
        assert moved.device.index == index
    torch.testing.assert_close(moved.cpu(), x + 4)
    # Views, other types, and into a part of what is there.
    target = torch.zeros(30, 100, dtype=torch.float64, device=f"{D}:1")
    target[3:].copy_(moved.t()[3:])
    torch.testing.assert_close(target.cpu()[3:], (x + 4).t()[3:].double())
    assert target.cpu()[:3].abs().sum() == 0


def test_two_devices_in_one_operator_are_refused_as_elsewhere(session: list[Daemon]) -> None:
    a, b = torch.ones(2, device=f"{D}:0"), torch.ones(2, device=f"{D}:1")
    with pytest.raises(RuntimeError, match="same device"):
        a + b
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([a, b])
    assert (a + a).tolist() == (b + b).tolist() == [2, 2]


def test_a_device_that_is_not_there(session: list[Daemon]) -> None:
    with pytest.raises(RuntimeError, match=r"remote_accelerator:3 does not exist"):
        torch.ones(2, device=f"{D}:3")


def test_a_model_over_three_devices_trains_as_on_the_cpu(session: list[Daemon]) -> None:
    torch.manual_seed(3)
    local = [torch.nn.Linear(32, 64), torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)]
    remote = [torch.nn.Linear(m.in_features, m.out_features) for m in local]
    for index, (one, other) in enumerate(zip(remote, local, strict=True)):
        one.load_state_dict(other.state_dict())
        one.to(f"{D}:{index}")
    ours = torch.optim.AdamW([p for m in remote for p in m.parameters()], lr=1e-2)
    theirs = torch.optim.AdamW([p for m in local for p in m.parameters()], lr=1e-2)
    for _ in range(4):
        x = torch.randn(16, 32)
        y = x.to(f"{D}:0")
        for index, layer in enumerate(remote):
            y = layer(y.to(f"{D}:{index}")).tanh()
        loss = y.square().mean()
        z = x
        for layer in local:
            z = layer(z).tanh()
        expected = z.square().mean()
        torch.testing.assert_close(loss.cpu(), expected)
        for optimizer, value in ((ours, loss), (theirs, expected)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    for one, other in zip(remote, local, strict=True):
        torch.testing.assert_close(one.weight.cpu(), other.weight.detach(), atol=1e-4, rtol=1e-3)


def test_a_failure_is_raised_on_its_device_and_the_others_go_on(session: list[Daemon]) -> None:
    other = torch.ones(3, device=f"{D}:0") * 5
    bad = torch.linalg.cholesky_ex(-torch.eye(3, device=f"{D}:2"), check_errors=False)[0]
    torch.linalg.cholesky(-torch.eye(3, device=f"{D}:1"))
    assert other.tolist() == [5, 5, 5]
    with pytest.raises(torch.linalg.LinAlgError):
        genie.synchronize()
    genie.synchronize()
    assert bad.shape == (3, 3)
    assert (torch.ones(3, device=f"{D}:1") + 1).tolist() == [2, 2, 2]


def test_seeds_give_each_device_its_own_numbers(session: list[Daemon]) -> None:
    torch.manual_seed(1)
    first = [torch.rand(4, device=f"{D}:{index}").tolist() for index in range(3)]
    torch.manual_seed(1)
    assert [torch.rand(4, device=f"{D}:{index}").tolist() for index in range(3)] == first


def test_addresses_come_with_commas_too(
    make_daemon: Callable[..., Daemon], make_client: Callable[..., Client]
) -> None:
    a, b = make_daemon(), make_daemon()
    code = """
import genie, torch
x = torch.ones(3, device="remote_accelerator:1") + torch.arange(3, device="remote_accelerator:1")
print(x.to("remote_accelerator:0").tolist(), torch.accelerator.device_count())
"""
    client = make_client(code, GENIE_ADDRESS=f"{a.address}, {b.address}")
    client.expect("[1.0, 2.0, 3.0] 2")


def test_a_node_that_is_not_there_is_named_and_nothing_stays_open(
    make_daemon: Callable[..., Daemon],
) -> None:
    genie.disconnect()
    node = make_daemon()
    nobody = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(genie.ConnectError, match=nobody.rpartition(":")[2]):
        genie.connect([node.address, nobody])
    assert not genie.is_connected()
    with pytest.raises(ValueError, match="twice"):
        genie.connect([node.address, node.address])
    wait_until(lambda: not node.sessions(), 2, "its session to end")
    genie.connect(node.address)
    assert torch.ones(1, device=D).item() == 1


def test_a_node_that_dies_takes_only_what_it_held(make_daemon: Callable[..., Daemon]) -> None:
    genie.disconnect()
    a, b = make_daemon(), make_daemon()
    genie.connect([a.address, b.address])
    kept, lost = torch.ones(4, device=f"{D}:0"), torch.ones(4, device=f"{D}:1")
    genie.synchronize()
    os.kill(b.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(genie.NodeLostError, match=b.address):
        while time.monotonic() < began + 5:
            (lost + 1).cpu()
    assert time.monotonic() - began < 2
    assert (kept + 1).tolist() == [2, 2, 2, 2]
    assert [device.alive for device in genie.devices()] == [True, False]
    with pytest.raises(genie.NodeLostError):
        kept.to(f"{D}:1")
    # Whoever connects anew starts from nothing.
    genie.connect(a.address)
    assert torch.ones(1, device=D).item() == 1


def test_a_share_of_the_machine(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    genie.disconnect()
    node = make_daemon("--device", "host:1", device="host:0?memory=64MiB")
    genie.connect(node.address)
    assert genie.devices()[0].memory_limit_bytes == 64 << 20
    with pytest.raises(torch.OutOfMemoryError):
        torch.ones(32 << 20, device=f"{D}:0").sum().item()
    assert torch.ones(32 << 20, device=f"{D}:1").sum().item() == 32 << 20
