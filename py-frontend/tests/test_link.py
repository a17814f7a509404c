"""A port that the kernel can't see is still a host: over a veth pair between two namespaces."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import genie
import pytest
import torch
from daemon import BINARY, Daemon
from support import REMOTE, check, wait_until
from veth import NODE, OTHER, PORT, Veth, gateway_on, node_on, skip_if_missing, veth

PING = """
import os, select, socket, struct, sys, time
target = sys.argv[1]
def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
raw.settimeout(1)
payload = b"genie" * 10
for sequence in range(1, 21):
    head = struct.pack(">BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, sequence)
    head = head[:2] + struct.pack(">H", checksum(head + payload)) + head[4:]
    raw.sendto(head + payload, (target, 0))
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            reply = raw.recv(2048)[20:]
        except TimeoutError:
            break
        if reply[0] == 0 and reply[4:8] == head[4:8]:
            assert reply[8:] == payload
            print("answered", sequence)
            sys.exit(0)
sys.exit("no answer")
"""

GET = """
import sys, urllib.request
print(urllib.request.urlopen(f"http://{sys.argv[1]}", timeout=10).read().decode())
"""


@pytest.fixture(scope="module", params=["af_packet", "af_xdp"])
def wired(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Veth, Daemon, str, Path]]:
    """A node whose port is one end of a veth pair."""
    driver = request.param
    folder = tmp_path_factory.mktemp(driver)
    with veth() as wire, node_on(wire, driver, folder) as node:
        skip_if_missing(node)
        yield wire, node, driver, folder
        assert node.running, node.log()
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=False).stdout
    assert not any(name in listed for name in wire.names)


def test_ping_is_answered(wired: tuple[Veth, Daemon, str, Path]) -> None:
    """By a kernel on the other side, which finds the node by ARP."""
    wire, node, _, _ = wired
    wire.run(1, "ip", "address", "replace", f"{OTHER}/24", "dev", wire.interfaces[1])
    said = wire.run(1, sys.executable, "-c", PING, NODE).stdout
    assert said.startswith("answered"), node.log()


def test_the_control_channel_connects_through_it(wired: tuple[Veth, Daemon, str, Path]) -> None:
    """HTTP and gRPC from a kernel on the other side."""
    wire, node, driver, _ = wired
    wire.run(1, "ip", "address", "replace", f"{OTHER}/24", "dev", wire.interfaces[1])
    said = wire.run(1, sys.executable, "-c", GET, f"{NODE}:{PORT}/healthz").stdout
    assert said.strip() == "ready", node.log()
    status = wire.run(1, str(BINARY), "status", f"{NODE}:{PORT}").stdout
    assert "dpdk" in status
    assert driver in status


def test_a_gateway_on_the_other_side(wired: tuple[Veth, Daemon, str, Path]) -> None:
    """Tensors over the link, with frames of 1500 bytes."""
    wire, node, driver, folder = wired
    wire.run(1, "ip", "address", "flush", "dev", wire.interfaces[1])
    gateway, address = gateway_on(wire, driver, folder)
    with gateway:
        wait_until(lambda: "level 1" in gateway.log(), 10, "the link is up")
        genie.connect(address)
        try:
            check(lambda x: (x @ x.T).relu(), torch.randn(200, 200))
            sent = torch.randint(0, 256, (3 << 20,), dtype=torch.uint8)
            assert torch.equal(sent.to(REMOTE).cpu(), sent), gateway.log() + node.log()
            assert genie.stats()["transport"] == "dpdk", gateway.log()
        finally:
            genie.disconnect()


def received(wire: Veth) -> int:
    """Frames that the node has received on its link."""
    said = wire.run(0, sys.executable, "-c", GET, f"127.0.0.1:{PORT}/metrics").stdout
    values = dict(line.rsplit(" ", 1) for line in said.splitlines() if " " in line)
    return int(values["genie_link_frames_received_total"])


@pytest.mark.parametrize(
    ("driver", "wire_mtu", "mtu"),
    [("af_packet", 9000, 9000), ("af_packet", 4000, 4000), ("af_xdp", 3438, 3438)],
)
def test_frames_are_as_long_as_the_wire_allows(
    driver: str, wire_mtu: int, mtu: int, tmp_path: Path
) -> None:
    """The interface's own MTU: 8 KiB of a tensor in a frame where it is jumbo."""
    with veth(wire_mtu) as wire, node_on(wire, driver, tmp_path) as node:
        skip_if_missing(node)
        gateway, address = gateway_on(wire, driver, tmp_path)
        with gateway:
            wait_until(lambda: "level 1" in gateway.log(), 10, "the link is up")
            assert f"MTU {mtu}" in gateway.log()
            genie.connect(address)
            try:
                sent = torch.randint(0, 256, (16 << 20,), dtype=torch.uint8)
                before = received(wire)
                there = sent.to(REMOTE)
                assert int(there[-1].item()) == int(sent[-1])
                frames = received(wire) - before
                assert torch.equal(there.cpu(), sent), gateway.log() + node.log()
                assert genie.stats()["transport"] == "dpdk", gateway.log()
            finally:
                genie.disconnect()
            # Of 1500 bytes there would be 12000; acknowledgements and repeats have room.
            assert frames < sent.numel() / (0.6 * mtu)


def test_af_xdp_on_longer_frames_says_what_to_do(tmp_path: Path) -> None:
    """The kernel would refuse with no more than a number, after DPDK has taken memory."""
    with veth(9000) as wire, node_on(wire, "af_xdp", tmp_path) as node:
        skip_if_missing(node)
        here = wire.interfaces[0]
        assert "level 2 (TCP)" in node.log()
        assert f"`ip link set {here} mtu 3438`, at its other end too" in node.log()
        for side, interface in enumerate(wire.interfaces):
            wire.run(side, "ip", "link", "set", interface, "mtu", "3438")
        wait_until(lambda: "level 1" in node.log(), 10, "it is tried again, and works")


@pytest.mark.parametrize("driver", ["af_packet", "af_xdp"])
def test_an_interface_that_comes_later_is_waited_for_in_silence(
    driver: str, tmp_path: Path
) -> None:
    """The daemon looks every 2 s, and DPDK does not repeat what is missing each time."""
    with veth() as wire:
        wanted = wire.interfaces[0]
        wire.run(0, "ip", "link", "set", wanted, "down")
        wire.run(0, "ip", "link", "set", wanted, "name", "other0")
        with node_on(wire, driver, tmp_path) as node:
            skip_if_missing(node)
            assert f'there is no network interface "{wanted}"' in node.log()
            # More than one look, of which nothing is to be seen in the log.
            time.sleep(4.5)
            for word in ("EAL", "PMD", "init_internals", "ethdev", "libxdp", "vdev"):
                assert word not in node.log(), node.log()
            assert node.log().count("there is no network interface") == 1
            wire.run(0, "ip", "link", "set", "other0", "name", wanted)
            wire.run(0, "ip", "link", "set", wanted, "up")
            wait_until(lambda: "level 1" in node.log(), 10, "the interface is taken")


def test_what_the_kernel_does_not_allow_is_named(tmp_path: Path) -> None:
    """A daemon without capabilities serves by TCP and says which it needs."""
    with veth() as wire:
        node = Daemon(
            *("--dpdk-port", f"af_packet:{wire.interfaces[0]}"),
            *("--dpdk-address", f"{NODE}/24", "--insecure"),
            log=tmp_path / "node.log",
            before=(*wire.inside(0), "setpriv", "--bounding-set=-all", "--inh-caps=-all"),
            port=PORT,
        )
        with node:
            if "no DPDK:" in node.log():
                pytest.skip(node.log())
            assert "needs CAP_NET_RAW, which this process does not have" in node.log()
            assert "EAL:" not in node.log()
