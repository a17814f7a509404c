"""A port that the kernel can't see is still a host: over a veth pair between two namespaces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import genie
import pytest
import torch
from daemon import BINARY, Daemon
from support import REMOTE, check, wait_until
from veth import Veth, veth

NODE = "10.78.0.1"
OTHER = "10.78.0.2"
PORT = 7700

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
print(urllib.request.urlopen(f"http://{sys.argv[1]}/healthz", timeout=10).read().decode())
"""


@pytest.fixture(scope="module", params=["af_packet", "af_xdp"])
def wired(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Veth, Daemon, str, Path]]:
    """A node whose port is one end of a veth pair."""
    driver = request.param
    folder = tmp_path_factory.mktemp(driver)
    with veth() as wire:
        node = Daemon(
            *("--dpdk-port", f"{driver}:{wire.interfaces[0]}"),
            *("--dpdk-address", f"{NODE}/24"),
            log=folder / "node.log",
            before=wire.inside(0),
            port=PORT,
        )
        with node:
            if f"port {driver}:" not in node.log():
                reason = [line for line in node.log().splitlines() if "data path" in line]
                pytest.skip(f"no {driver} here: {reason}")
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
    said = wire.run(1, sys.executable, "-c", GET, f"{NODE}:{PORT}").stdout
    assert said.strip() == "ready", node.log()
    status = wire.run(1, str(BINARY), "status", f"{NODE}:{PORT}").stdout
    assert "dpdk" in status
    assert driver in status


def test_a_gateway_on_the_other_side(wired: tuple[Veth, Daemon, str, Path]) -> None:
    """Tensors over the link, with frames of 1500 bytes."""
    wire, node, driver, folder = wired
    wire.run(1, "ip", "address", "flush", "dev", wire.interfaces[1])
    socket = folder / "gateway.sock"
    gateway = Daemon(
        *("--gateway", str(socket), "--node-dpdk", f"{NODE}:{PORT}"),
        *("--dpdk-port", f"{driver}:{wire.interfaces[1]}"),
        *("--dpdk-address", f"{OTHER}/24"),
        log=folder / "gateway.log",
        before=wire.inside(1),
        device="",
    )
    with gateway:
        wait_until(lambda: "level 1" in gateway.log(), 10, "the link is up")
        genie.connect(f"unix://{socket}")
        try:
            check(lambda x: (x @ x.T).relu(), torch.randn(200, 200))
            sent = torch.randint(0, 256, (3 << 20,), dtype=torch.uint8)
            assert torch.equal(sent.to(REMOTE).cpu(), sent), gateway.log() + node.log()
            assert genie.stats()["transport"] == "dpdk", gateway.log()
        finally:
            genie.disconnect()
