"""Two network namespaces joined by a veth pair: a wire that the kernel has on one side only."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon

NODE = "10.78.0.1"
OTHER = "10.78.0.2"
PORT = 7700

# A test may have a wire while another's is still there.
_NUMBERS = itertools.count()

# struct ifreq and the ioctl that switches a device's checksum offload (linux/ethtool.h): without
# the hardware that the kernel counts on, its own checksums would be missing.
_SWITCH_OFF = """
import array, fcntl, socket, struct, sys
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17
value = array.array("B", struct.pack("II", ETHTOOL_STXCSUM, 0))
request = struct.pack("16sP", sys.argv[1].encode(), value.buffer_info()[0])
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCETHTOOL, request)
"""


class Veth:
    """`names`: two namespaces, in each of which `interfaces` has one end of the wire."""

    def __init__(self, tag: str) -> None:
        self.names = (f"genie-{tag}-a", f"genie-{tag}-b")
        self.interfaces = (f"g{tag}a", f"g{tag}b")

    def run(self, side: int, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Runs a command in a namespace; it must succeed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.names[side], *command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def inside(self, side: int) -> tuple[str, ...]:
        """What to put before a command to have it run in a namespace."""
        return ("ip", "netns", "exec", self.names[side])


@contextlib.contextmanager
def veth(mtu: int = 1500) -> Iterator[Veth]:
    """Makes a wire for packets of `mtu` bytes, and takes it away. Skips where it may not be."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    wire = Veth(f"{os.getpid() % 100000}-{next(_NUMBERS)}")
    with contextlib.ExitStack() as stack:
        for name in wire.names:
            made = subprocess.run(
                ["ip", "netns", "add", name], capture_output=True, text=True, check=False
            )
            if made.returncode != 0:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
            stack.callback(
                subprocess.run, ["ip", "netns", "del", name], capture_output=True, check=False
            )
        one, two = wire.interfaces
        made = subprocess.run(
            [
                *("ip", "link", "add", one, "netns", wire.names[0], "type", "veth"),
                *("peer", "name", two, "netns", wire.names[1]),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            pytest.skip(f"no veth here: {made.stderr.strip()}")
        for side, interface in enumerate(wire.interfaces):
            wire.run(side, sys.executable, "-c", _SWITCH_OFF, interface)
            # What the kernel says there by itself (IPv6) is not for this wire.
            wire.run(side, "sysctl", "-q", "-w", f"net.ipv6.conf.{interface}.disable_ipv6=1")
            wire.run(side, "ip", "link", "set", interface, "mtu", str(mtu), "up")
            wire.run(side, "ip", "link", "set", "lo", "up")
        yield wire


def node_on(wire: Veth, driver: str, folder: Path, *arguments: str) -> Daemon:
    """A node whose port is the first end of the wire."""
    return Daemon(
        *("--dpdk-port", f"{driver}:{wire.interfaces[0]}"),
        *("--dpdk-address", f"{NODE}/24", "--insecure"),
        *arguments,
        log=folder / "node.log",
        before=wire.inside(0),
        port=PORT,
    )


def gateway_on(wire: Veth, driver: str, folder: Path) -> tuple[Daemon, str]:
    """A gateway whose port is the other end, and its address for `genie.connect`."""
    socket = folder / "gateway.sock"
    gateway = Daemon(
        *("--gateway", str(socket), "--node-dpdk", f"{NODE}:{PORT}"),
        *("--dpdk-port", f"{driver}:{wire.interfaces[1]}"),
        *("--dpdk-address", f"{OTHER}/24", "--insecure"),
        log=folder / "gateway.log",
        before=wire.inside(1),
        device="",
    )
    return gateway, f"unix://{socket}"


def skip_if_missing(node: Daemon) -> None:
    """Skips, with the daemon's own reason, where the machine lacks what its port needs."""
    for line in node.log().splitlines():
        if any(lack in line for lack in ("no DPDK:", "needs CAP_", "has not loaded")):
            pytest.skip(line)
