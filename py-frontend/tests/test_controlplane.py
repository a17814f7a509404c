"""Sessions through `genie-controlplane`: one door to several nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import genie
import pytest
import torch
from daemon import ControlPlane, Daemon
from support import Client, Counted, client_files, tls_arguments, wait_until

D = "remote_accelerator"
ONE_THREAD = "host:0?threads=1"


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ControlPlane, list[Daemon]]]:
    """A control plane and its two nodes; the second has two devices."""
    folder = tmp_path_factory.mktemp("cluster")
    first = Daemon(log=folder / "first.log", device=ONE_THREAD)
    second = Daemon("--device", "host:1?threads=1", log=folder / "second.log", device=ONE_THREAD)
    with first as a, second as b, ControlPlane([a, b], log=folder / "plane.log") as plane:
        yield plane, [a, b]
        for daemon in (plane, a, b):
            assert daemon.running, daemon.log()


@pytest.fixture
def make_plane(tmp_path: Path) -> Iterator[Callable[..., ControlPlane]]:
    """Starts control planes of one's own."""
    planes: list[ControlPlane] = []

    def make(nodes: list[Daemon], *arguments: str, port: int | None = None) -> ControlPlane:
        log = tmp_path / f"plane{len(planes)}.log"
        planes.append(ControlPlane(nodes, *arguments, log=log, port=port))
        planes[-1].start()
        return planes[-1]

    yield make
    for plane in planes:
        plane.stop()


def repeat(steps: int, factor: float) -> None:
    """One structure again and again, each time looked at; `factor` makes no other structure."""
    x = torch.ones(64, device=D)
    for step in range(steps):
        assert ((x * factor + step).relu().sum() * 2).item() == 128 * (factor + step)


def plans_hit(what: Callable[[], None], seconds: float = 10.0) -> None:
    """Does it until a plan is hit."""
    before = genie.stats()["plan_hits"]
    deadline = time.monotonic() + seconds
    while genie.stats()["plan_hits"] == before:
        assert time.monotonic() < deadline, "no plan was ever hit"
        what()


def test_its_nodes_are_devices_in_their_order(cluster: tuple[ControlPlane, list[Daemon]]) -> None:
    plane, (a, b) = cluster
    genie.connect(plane.address)
    try:
        devices = genie.devices()
        assert [device.node for device in devices] == [a.address, b.address, b.address]
        assert [device.name for device in devices] == ["host:0", "host:0", "host:1"]
        assert [device.index for device in devices] == [0, 1, 2]
        x = torch.randn(64, 64)
        for index in range(3):
            remote = x.to(f"{D}:{index}")
            torch.testing.assert_close((remote @ remote.t()).cpu(), x @ x.t())
        plans_hit(lambda: repeat(4, 3.0))
        sessions = plane.status()["sessions"]
        assert sorted(session["node"] for session in sessions) == sorted(
            [a.host_port, b.host_port, b.host_port]
        )
        # A node tells of them too, and shows whose they are.
        assert len(a.sessions()) == 1
        assert len(b.sessions()) == 2
        counts = {state["address"]: state["sessions"] for state in plane.status()["nodes"]}
        assert counts == {a.host_port: 1, b.host_port: 2}
    finally:
        genie.disconnect()
    wait_until(lambda: not plane.sessions() and not a.sessions() and not b.sessions(), 5, "closed")


def test_values_go_from_node_to_node(cluster: tuple[ControlPlane, list[Daemon]]) -> None:
    plane, _ = cluster
    genie.connect(plane.address)
    try:
        x = torch.randn(1 << 20)
        remote = x.to(f"{D}:0")
        torch.accelerator.synchronize()
        with Counted() as counted:
            there = remote.to(f"{D}:1")
            beside = there.to(f"{D}:2")
            torch.accelerator.synchronize()
        assert counted.bytes_sent < 4096
        assert counted.relayed_bytes == 0
        assert torch.equal(beside.cpu(), x)
    finally:
        genie.disconnect()


def test_a_pool_behind_it_places_by_its_plans(cluster: tuple[ControlPlane, list[Daemon]]) -> None:
    plane, _ = cluster
    genie.connect(plane.address, placement="pool", policy="semantic")
    try:
        cache = torch.zeros(1, 8, 64, device=D)
        row = torch.ones(1, 1, 64, device=D)
        for _step in range(200):
            cache = torch.cat([cache, row], dim=1)
            ((cache + 1).sum() * 2).item()
            if genie.stats()["placement_hits"]:
                break
            time.sleep(0.01)
        stats = genie.stats()
        assert stats["placement_plans"] > 0
        assert stats["placement_hits"] > 0
        assert stats["states"] > 0
    finally:
        genie.disconnect()


def test_programs_outlive_their_control_plane(
    make_daemon: Callable[..., Daemon], make_plane: Callable[..., ControlPlane]
) -> None:
    nodes = [make_daemon(device=ONE_THREAD), make_daemon(device=ONE_THREAD)]
    plane = make_plane(nodes)
    genie.connect(plane.address)
    try:
        x = torch.randn(1000)
        remote = x.to(f"{D}:0")
        plans_hit(lambda: repeat(4, 3.0))
        plane.kill()
        # What was planned goes on, what is new is planned by the nodes, and they find each other.
        plans_hit(lambda: repeat(4, 3.0))
        plans_hit(lambda: (remote.exp().tanh().sum() + 1).item())
        assert torch.equal(remote.to(f"{D}:1").cpu(), x)
        assert genie.stats()["relayed_bytes"] == 0
    finally:
        genie.disconnect()
    wait_until(lambda: not any(node.sessions() for node in nodes), 5, "closed")


def test_a_control_plane_that_began_anew_disturbs_nobody(
    make_daemon: Callable[..., Daemon],
    make_plane: Callable[..., ControlPlane],
    make_client: Callable[..., Client],
) -> None:
    node = make_daemon(device=ONE_THREAD)
    plane = make_plane([node])
    genie.connect(plane.address)
    try:
        plans_hit(lambda: repeat(4, 3.0))
        plane.kill()
        again = make_plane([node], port=plane.port)
        x = torch.randn(1000, device=D)
        plans_hit(lambda: (x.exp().tanh().sum() + 1).item())
        assert len(node.sessions()) == 1
        # It opens others meanwhile.
        other = make_client(
            "print(torch.ones(2, device='remote_accelerator:0').sum().item())\ninput()",
            address=again.address,
        )
        other.expect("2.0")
        assert len(again.sessions()) == 1
        assert len(node.sessions()) == 2
    finally:
        genie.disconnect()


def test_a_node_that_is_not_there_is_left_out_until_it_is(
    make_daemon: Callable[..., Daemon], make_plane: Callable[..., ControlPlane]
) -> None:
    first, second = make_daemon(device=ONE_THREAD), make_daemon(device=ONE_THREAD)
    plane = make_plane([first, second])
    port = second.port
    second.stop()
    wait_until(lambda: not plane.status()["nodes"][1]["reachable"], 5, "seen")
    assert plane.status()["nodes"][1]["reason"]
    genie.connect(plane.address)
    assert [device.node for device in genie.devices()] == [first.address]
    genie.disconnect()
    second.start_on(port)
    wait_until(lambda: plane.status()["nodes"][1]["reachable"], 10, "seen")
    genie.connect(plane.address)
    assert len(genie.devices()) == 2
    genie.disconnect()
    first.stop()
    second.stop()
    with pytest.raises(genie.ConnectError, match=r"no node is there.*127\.0\.0\.1"):
        genie.connect(plane.address)


def test_a_node_that_drains_gets_no_new_sessions(
    make_daemon: Callable[..., Daemon],
    make_plane: Callable[..., ControlPlane],
    make_client: Callable[..., Client],
) -> None:
    first, second = make_daemon(device=ONE_THREAD), make_daemon(device=ONE_THREAD)
    plane = make_plane([first, second])
    busy = make_client(
        "x = torch.ones(64, 64, device='remote_accelerator:1')\n"
        "while True:\n"
        "    x = (x @ x).clamp(0, 1)\n"
        "    x[0, 0].item()\n"
        "    print('works', flush=True)",
        address=plane.address,
    )
    busy.expect("works")
    os.kill(second.pid, signal.SIGTERM)

    def drains() -> bool:
        return "shutting down" in plane.status()["nodes"][1]["not_ready_reason"]

    wait_until(drains, 5, "seen")
    genie.connect(plane.address)
    assert [device.node for device in genie.devices()] == [first.address]
    assert torch.ones(4, device=D).sum().item() == 4
    genie.disconnect()
    busy.expect("works")


def test_a_node_that_dies_takes_what_it_held_and_the_control_plane_hears_of_it(
    make_daemon: Callable[..., Daemon], make_plane: Callable[..., ControlPlane]
) -> None:
    first, second = make_daemon(device=ONE_THREAD), make_daemon(device=ONE_THREAD)
    plane = make_plane([first, second])
    genie.connect(plane.address)
    try:
        kept, lost = torch.ones(4).to(f"{D}:0"), torch.ones(4).to(f"{D}:1")
        torch.accelerator.synchronize(f"{D}:1")
        port = second.port
        second.kill()
        with pytest.raises(genie.NodeLostError, match=second.host_port):
            lost.cpu()
        assert kept.sum().item() == 4
        # One that comes again has none of the old sessions, and the control plane knows.
        second.start_on(port)
        wait_until(
            lambda: [node["sessions"] for node in plane.status()["nodes"]] == [1, 0],
            10,
            "forgotten",
        )
    finally:
        genie.disconnect()


def test_a_node_lets_in_whom_its_control_plane_lets_in_if_it_names_it(
    make_daemon: Callable[..., Daemon],
    make_plane: Callable[..., ControlPlane],
    certificates: Path,
) -> None:
    guarded, files = tls_arguments(certificates), client_files(certificates)
    silent = make_daemon(*guarded, device=ONE_THREAD)
    plane = make_plane([silent], *guarded)
    with pytest.raises(genie.ConnectError, match=r"localhost of default.*control_planes"):
        genie.connect(plane.address, **files)

    trusting = make_daemon(*guarded, "--control-planes", "localhost", device=ONE_THREAD)
    plane = make_plane([silent, trusting], *guarded)
    genie.connect(plane.address, **files)
    try:
        assert [device.node for device in genie.devices()] == [trusting.address]
        assert torch.ones(4, device=D).sum().item() == 4
        # The node knows whose it is: its client's, and not the control plane's.
        assert "principal=client" in trusting.log()
    finally:
        genie.disconnect()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nodes is empty"),
        (("--node", "somewhere"), "HOST:PORT"),
        (("--node", "127.0.0.1:1", "--node", "127.0.0.1:1"), "127.0.0.1:1 twice"),
        (("--node", "127.0.0.1:1", "--listen", "0.0.0.0:0"), "--insecure"),
        (("--node", "127.0.0.1:1", "--config", "/nowhere.toml"), "/nowhere.toml"),
    ],
)
def test_what_it_refuses_to_start_with(arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [str(ControlPlane.binary), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") <= 5


def test_what_an_operator_sees(cluster: tuple[ControlPlane, list[Daemon]]) -> None:
    plane, (a, b) = cluster
    asked = subprocess.run(
        [str(plane.binary), "status", plane.host_port],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert asked.returncode == 0
    assert f"{a.host_port}: genie " in asked.stdout
    assert "2 = host:1" in asked.stdout
    assert plane.metric(f'genie_controlplane_node_reachable{{node="{b.host_port}"}}') == 1
    assert plane.metric("genie_controlplane_sessions") == 0
