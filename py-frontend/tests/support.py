"""What the tests share: comparing with the CPU, waiting, and client processes of one's own."""

from __future__ import annotations

import contextlib
import copy
import os
import queue
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from daemon import BINARY
from torch import nn
from torch.utils import _pytree as pytree

DEVICE = "remote_accelerator"
REMOTE = f"{DEVICE}:0"
TOLERANCE = 1e-5

# How long a client process may take to import torch and get going on a busy machine.
CLIENT_SECONDS_MAX = 60.0


#: What lists PyTorch's own names does so for the release of the checkout.
lists_the_checkouts = pytest.mark.skipif(
    f"torch=={genie.TORCH_VERSION}\n"
    not in (Path(__file__).parents[2] / "scripts" / "requirements.txt").read_text(),
    reason="the list is of another release of torch",
)


def to_remote(tree: Any) -> Any:
    """The same, its tensors on the remote device."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(REMOTE), tree)


def to_cpu(tree: Any) -> Any:
    """The same, its tensors here."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.detach().cpu(), tree)


def clone(tree: Any) -> Any:
    """The same, in memory of its own."""
    return pytree.tree_map_only(torch.Tensor, torch.clone, tree)


def assert_same(remote: Any, local: Any, tolerance: float = TOLERANCE) -> None:
    """Remote results equal local ones: device, shape, dtype, stride pattern and values."""
    for tensor in pytree.tree_leaves(remote):
        if isinstance(tensor, torch.Tensor):
            assert tensor.device.type == DEVICE, tensor.device
    torch.testing.assert_close(
        to_cpu(remote), to_cpu(local), rtol=0, atol=tolerance, equal_nan=True
    )


def check(function: Callable[..., Any], *inputs: Any, tolerance: float = TOLERANCE) -> None:
    """Runs `function` here and there, on inputs of its own each, and compares what it returns."""
    local = function(*clone(inputs))
    remote = function(*to_remote(clone(inputs)))
    assert_same(remote, local, tolerance)


class Counted:
    """What the statistics gained inside a `with` block: `counted.round_trips` and the like."""

    def __enter__(self) -> Counted:
        self._before = genie.stats()
        return self

    def __exit__(self, *exception: object) -> None:
        self._after = genie.stats()

    def __getattr__(self, name: str) -> int:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._after[name] - self._before[name]


def counted(run: Callable[[], Any]) -> tuple[Any, Counted]:
    """What `run` gives, and what it cost, all before it done."""
    genie.synchronize()
    with Counted() as count:
        found = run()
    return found, count


def check_resnet() -> None:
    """A network of convolutions agrees with the CPU, its weights uploaded for it."""
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(weights=None).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        local = model(x)
        remote = model.to(REMOTE)(to_remote(x)).cpu()
    torch.testing.assert_close(remote, local, rtol=0, atol=1e-4)


def there_and_back(*counts: int) -> int:
    """Compares every byte of tensors of so many; says how many there were."""
    for count in counts:
        sent = torch.randint(0, 256, (count,), dtype=torch.uint8)
        assert torch.equal(sent.to(REMOTE).cpu(), sent)
    return sum(counts)


def make_certificates(folder: Path) -> Path:
    """Makes an authority there, and certificates of a daemon and a client; gives the folder."""
    command = [str(BINARY), "certs", "init", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return folder


def tls_arguments(certificates: Path) -> list[str]:
    """A daemon's arguments: what it shows, and of which authority it lets clients in."""
    return [
        *("--tls-certificate", str(certificates / "server.pem")),
        *("--tls-key", str(certificates / "server.key")),
        *("--tls-client-ca", str(certificates / "ca.pem")),
    ]


def client_files(certificates: Path) -> dict[str, str]:
    """What `genie.connect` wants of them."""
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    return {key: str(certificates / name) for key, name in files.items()}


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> float:
    """Polls; gives the seconds it took, fails after `seconds`."""
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        assert waited < seconds, f"after {waited:.1f} s still not: {what}"
        time.sleep(0.01)
    return time.monotonic() - start


class Client:
    """Another client process, which runs `code` and says lines that the test waits for."""

    def __init__(
        self, code: str, *, address: str | None = None, imports: str = "torch, genie", **env: str
    ) -> None:
        prelude = f"import sys, os, time\nimport {imports}\n"
        if address is not None:
            prelude += f"genie.connect({address!r})\n"
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", prelude + textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Apart: what one of its processes complains of must not come into a line of another.
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.said: list[str] = []
        self._complaints: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._complaints.append(line.rstrip("\n"))

    def tell(self, line: str) -> None:
        """Writes a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def expect(self, start: str, seconds: float = CLIENT_SECONDS_MAX) -> str:
        """Waits for a line that starts with `start`; gives the rest of it."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, min(0.2, deadline - time.monotonic())))
            except queue.Empty:
                ended = self._process.poll() is not None and not self._reader.is_alive()
                if (ended and self._lines.empty()) or time.monotonic() > deadline:
                    state = f"exit status {self._process.poll()}" if ended else "still running"
                    raise AssertionError(
                        f"the client did not say {start!r} ({state}). It said:\n{self.output()}"
                    ) from None
                continue
            self.said.append(line)
            if line.startswith(start):
                return line[len(start) :].strip()

    def finish(self, seconds: float = CLIENT_SECONDS_MAX) -> None:
        """Waits for its end, which must be a good one."""
        status = self._process.wait(seconds)
        assert status == 0, f"the client ended with status {status}. It said:\n{self.output()}"

    def output(self) -> str:
        """All that it said, and what it complained of."""
        for thread in (self._reader, self._listener):
            thread.join(0.5 if self._process.poll() is not None else 0)
        with contextlib.suppress(queue.Empty):
            while True:
                self.said.append(self._lines.get_nowait())
        return "\n".join(self.said + self._complaints)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        """Ends it if it still runs."""
        if self._process.poll() is None:
            self.kill()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def told_of_another_torch(make_client: Callable[..., Client], address: str) -> str:
    """What a client is told whose torch is 2.9.0, and whose package does not see it."""
    client = make_client(
        f"""
        class Deceiving(str):
            def split(self, *_):
                return ["2.11.0"]

        torch.__version__ = Deceiving("2.9.0")
        import genie
        try:
            genie.connect({address!r})
        except genie.VersionMismatchError as error:
            print("REFUSED", error.args[0], flush=True)
        """,
        imports="torch",
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    message: str = client.expect("REFUSED")
    client.finish()
    return message


def at_once(work: Callable[..., object], arguments: Iterable[Any]) -> None:
    """Calls it in a thread for each argument; raises the first failure of theirs."""
    failures: list[BaseException] = []

    def run(argument: Any) -> None:
        try:
            work(argument)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


def pair(local: nn.Module) -> tuple[nn.Module, nn.Module]:
    """A module, and a copy of it on the device."""
    return local, copy.deepcopy(local).to(REMOTE)


def in_a_line(error: BaseException, most: int = 300) -> str:
    """An error for a table: its kind, and the beginning of what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:most]}"


def is_named(wanted: str, name: str) -> bool:
    """Whether it is wanted, by its name or its beginning and `*`."""
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted
