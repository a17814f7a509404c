"""Starts and stops `genie-dataplane`: for the demo, the tests and the benchmarks.

Every wait is bounded, and only processes that were started here are ever signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target" / "release" / "genie-dataplane"

_START_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 10.0
_START_ATTEMPTS = 3
#: What a daemon says whose port another has.
_PORT_TAKEN = "the port is taken"
_POLL_SECONDS = 0.02


class DaemonError(RuntimeError):
    """The daemon did not start; the message ends with what it logged."""


def free_port() -> int:
    """A TCP port on the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children_of(pid: int) -> list[int]:
    """Processes below `pid`: children, their children, and so on."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # pid (name) state ppid ...; the name may hold spaces and brackets.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    ahead = [pid]
    while ahead:
        below = parents.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


def name_of(pid: int) -> str | None:
    """The kernel's name of a process; None once it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def is_running(pid: int) -> bool:
    """True while there is such a process, unless it only waits to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


class Daemon:
    """A `genie-dataplane` process of one's own, on a free port of the loopback address.

    Usable as a context manager: leaving it stops the process.
    """

    binary = BINARY

    def __init__(
        self,
        *arguments: str,
        log: Path | None = None,
        device: str = "host:0",
        env: dict[str, str] | None = None,
        before: tuple[str, ...] = (),
        port: int | None = None,
    ) -> None:
        """`before` is put before the command; `port` is one that is known to be free."""
        self._arguments = arguments
        self._before = before
        self._port = port
        self._device = device
        self._env = env or {}
        self.log_path = log or ROOT / "target" / f"{self.binary.name}-{os.getpid()}.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host_port(self) -> str:
        """The address as `genie-dataplane status` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """The address as `genie.connect` takes it."""
        return f"tcp://{self.host_port}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, "the daemon was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process is there."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What it logged so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> Daemon:
        """Starts it and waits until it is ready.

        Raises:
            DaemonError: it ended or was not ready in time.
        """
        if not self.binary.exists():
            raise DaemonError(f"{self.binary} is missing: run scripts/setup")
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                return self._start_once()
            except DaemonError as error:
                # Somebody else may take the port between our looking and our binding.
                if attempt == _START_ATTEMPTS or _PORT_TAKEN not in str(error):
                    raise
        raise AssertionError("not reached")

    def start_on(self, port: int) -> Daemon:
        """As `start`, on the port of another daemon, which may be about to end."""
        deadline = time.monotonic() + _STOP_SECONDS_MAX
        while True:
            try:
                return self._start_once(port)
            except DaemonError as error:
                if time.monotonic() > deadline or _PORT_TAKEN not in str(error):
                    raise
                time.sleep(_POLL_SECONDS)

    def _start_once(self, port: int | None = None) -> Daemon:
        self.port = port or self._port or free_port()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        # A test runner that is killed leaves no daemon behind: SIGTERM comes when it is gone.
        # (setpriv replaces itself with the daemon: the process id is the daemon's.)
        command = [
            *self._before,
            "setpriv",
            "--pdeathsig",
            "TERM",
            str(self.binary),
            "--listen",
            self.host_port,
        ]
        if self._device:
            command += ["--device", self._device]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._env},
                # Ctrl-C in a terminal is for us; we then stop it in order.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS_MAX
        while time.monotonic() < deadline:
            status = self._process.poll()
            if status is not None:
                raise DaemonError(f"{self.binary.name} ended with status {status}:\n{self.log()}")
            if f"ready on {self.host_port}" in self.log():
                return self
            time.sleep(_POLL_SECONDS)
        self.stop()
        raise DaemonError(
            f"{self.binary.name} was not ready within {_START_SECONDS_MAX:.0f} s:\n{self.log()}"
        )

    def stop(self) -> int | None:
        """SIGTERM, then SIGKILL if it takes too long; gives the exit status."""
        if self._process is None:
            return None
        if self.running:
            below = children_of(self.pid)
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
            _kill_rest(below)
        return self._process.returncode

    def kill(self) -> None:
        """SIGKILL: the node is gone from one moment to the next."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP_SECONDS_MAX)

    def processes(self) -> list[int]:
        """Processes below the daemon: zygotes and executors."""
        return children_of(self.pid) if self.running else []

    def executors(self) -> list[int]:
        """Processes that run a session's operators."""
        return [pid for pid in self.processes() if name_of(pid) == "genie-session"]

    def zygotes(self) -> list[int]:
        """Processes that executors are started from."""
        return [pid for pid in self.processes() if name_of(pid) == "genie-executor"]

    def status(self) -> dict[str, Any]:
        """What its `status --json` says.

        Raises:
            DaemonError: it says that the node is not ready, or nothing.
        """
        done = subprocess.run(
            [str(self.binary), "status", self.host_port, "--json"],
            capture_output=True,
            text=True,
            timeout=_STOP_SECONDS_MAX,
            check=False,
        )
        if done.returncode != 0:
            raise DaemonError(f"status {self.host_port}: {done.stderr or done.stdout}")
        reply: dict[str, Any] = json.loads(done.stdout)
        return reply

    def transport(self) -> tuple[str, str]:
        """What carries tensors ("dpdk" or "tcp"), and which link, or why no better one."""
        status = self.status()
        return str(status["transport"]), str(status["transport_reason"])

    def wait_for(self, transport: str, seconds: float = 10.0) -> bool:
        """Waits until `transport` carries tensors; false if it does not in time."""
        deadline = time.monotonic() + seconds
        while self.transport()[0] != transport:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def metric(self, name: str) -> int:
        """One number of `/metrics`.

        Raises:
            KeyError: there is none of that name.
        """
        with urllib.request.urlopen(f"http://{self.host_port}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return int(float(values[name]))

    def sessions(self) -> list[dict[str, Any]]:
        """The sessions that the node knows."""
        found: list[dict[str, Any]] = self.status()["sessions"]
        return found

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class Gateway(Daemon):
    """A gateway of one's own in front of `node`, joined to it by a DPDK link (memif).

    Where DPDK can't be had the gateway passes everything on by TCP, and says why.
    """

    def __init__(self, node: Daemon, folder: Path, *arguments: str) -> None:
        self.socket = folder / "gateway.sock"
        super().__init__(
            *("--gateway", str(self.socket), "--node", node.host_port),
            *("--node-dpdk", f"{NODE_ON_LINK}:{node.port}"),
            *link_arguments(folder, "client"),
            *arguments,
            log=folder / "gateway.log",
            device="",
        )

    @property
    def address(self) -> str:
        """The address as `genie.connect` takes it."""
        return f"unix://{self.socket}"


# The two hosts on the link that `link_arguments` makes.
NODE_ON_LINK = "10.77.0.1"
_GATEWAY_ON_LINK = "10.77.0.2"


def link_arguments(folder: Path, role: str) -> list[str]:
    """What joins a node ("server") and a gateway ("client") by a memif link in `folder`."""
    address = NODE_ON_LINK if role == "server" else _GATEWAY_ON_LINK
    port = f"memif:{folder / 'link.sock'},{role}"
    # A port needs TLS, or this.
    return ["--dpdk-port", port, "--dpdk-address", f"{address}/24", "--insecure"]


def _kill_rest(pids: list[int]) -> None:
    """Ends what a daemon that was stopped left behind; there should be nothing."""
    deadline = time.monotonic() + 1.0
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for pid in filter(is_running, pids):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


class ControlPlane(Daemon):
    """A `genie-controlplane` in front of nodes."""

    binary = ROOT / "target" / "release" / "genie-controlplane"

    def __init__(
        self,
        nodes: list[Daemon],
        *arguments: str,
        log: Path | None = None,
        port: int | None = None,
    ) -> None:
        named = [part for node in nodes for part in ("--node", node.host_port)]
        super().__init__(*named, *arguments, log=log, device="", port=port)
