"""Processes that end with this one, with their time, and with all that they started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class MeasureError(Exception):
    """Something was not measured; says why."""


def _settle() -> None:
    # A group to end it by. Not a session: the kernel shares cores out by session, and all are to
    # have the same share.
    os.setpgid(0, 0)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(command: Sequence[str], env: Mapping[str, str] | None, out) -> subprocess.Popen:
    try:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            # No thread is ever started here.
            preexec_fn=_settle,  # noqa: PLW1509
        )
    except OSError as error:
        raise MeasureError(f"{command[0]}: {error.strerror}") from error


def _end(process: subprocess.Popen) -> None:
    """Ends a process and its group: asked first, then not."""
    for number, patience in ((signal.SIGINT, 3.0), (signal.SIGKILL, 3.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    # Those of the group that outlived its leader.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def run(command: Sequence[str], limit: float, env: Mapping[str, str] | None = None) -> str:
    """Runs to the end, `limit` seconds at most; what it wrote."""
    with tempfile.TemporaryFile("w+b") as out:
        process = _start(command, env, out)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise MeasureError(
                f"{Path(command[0]).name} did not end within {limit:.0f} s"
            ) from None
        finally:
            _end(process)
        out.seek(0)
        text = out.read().decode(errors="replace")
    if code != 0:
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "no word")
        raise MeasureError(f"{Path(command[0]).name} ended with {code}: {last.strip()[:200]}")
    return text


class Other:
    """A process beside the one that measures."""

    def __init__(self, process: subprocess.Popen, out: Path) -> None:
        self.process = process
        self._out = out

    def text(self) -> str:
        """What it wrote so far."""
        return self._out.read_text(errors="replace")

    def wait_for(self, text: str, limit: float) -> str:
        """Waits until it has written `text`."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            if text in (said := self.text()):
                return said
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        lines = [line for line in self.text().splitlines() if line.strip()]
        raise MeasureError(f"it did not get ready: {lines[-1][:200] if lines else 'no word'}")

    def wait_listening(self, port: int, limit: float) -> None:
        """Waits until somebody listens on a TCP port, without a connection to it."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and self.process.poll() is None:
            if _listens(port):
                return
            time.sleep(0.02)
        raise MeasureError(f"nobody listens on port {port}")


def _listens(port: int) -> bool:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                # 0A: LISTEN.
                if state == "0A" and int(local.rsplit(":", 1)[1], 16) == port:
                    return True
    return False


@contextlib.contextmanager
def beside(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator[Other]:
    """A process while the block runs."""
    with tempfile.TemporaryDirectory(prefix="genie-peers-") as folder:
        out = Path(folder) / "out"
        with out.open("wb") as file:
            process = _start(command, env, file)
        try:
            yield Other(process, out)
        finally:
            _end(process)
