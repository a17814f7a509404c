"""Two network namespaces joined by a veth pair: a wire that the kernel has on one side only."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

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
def veth() -> Iterator[Veth]:
    """Makes the wire, and takes it away. Skips where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    wire = Veth(f"{os.getpid() % 100000}")
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
        import sys

        for side, interface in enumerate(wire.interfaces):
            wire.run(side, sys.executable, "-c", _SWITCH_OFF, interface)
            # What the kernel says there by itself (IPv6) is not for this wire.
            wire.run(side, "sysctl", "-q", "-w", f"net.ipv6.conf.{interface}.disable_ipv6=1")
            wire.run(side, "ip", "link", "set", interface, "up")
            wire.run(side, "ip", "link", "set", "lo", "up")
        yield wire
