"""torch.distributed.rpc as a peer to measure against: a client and a worker, a process each.

The benchmark starts `Pair`. The client reads requests (JSON, a line each) from its standard input
and answers with the seconds that each repetition took.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from typing import IO, Any

CLIENT, WORKER = "client", "worker"
START_SECONDS_MAX = 120.0


class Pair:
    """A client and a worker of torch.distributed.rpc on this machine."""

    def __init__(self, kind: str, port: int, threads: int) -> None:
        self.kind = kind
        self._processes: list[subprocess.Popen[str]] = []
        for role in (WORKER, CLIENT):
            command = [sys.executable, __file__, role, kind, str(port), str(threads)]
            self._processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if role == CLIENT else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if role == CLIENT else None,
                    text=True,
                    env={**os.environ, "PYTHONWARNINGS": "ignore"},
                )
            )
        self._read()  # ready
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def measure(self, elements: int, repeats: int) -> list[float]:
        """Seconds of each repetition: send a tensor, relu there, get it back.

        Between its turns a pair is stopped: its reactors poll, and would take the cores of
        whoever is measured then.
        """
        self._signal(signal.SIGCONT)
        try:
            return self._measure(elements, repeats)
        finally:
            self._signal(signal.SIGSTOP)

    def _measure(self, elements: int, repeats: int) -> list[float]:
        client = self._processes[1]
        assert client.stdin is not None
        print(json.dumps({"elements": elements, "repeats": repeats}), file=client.stdin, flush=True)
        seconds: list[float] = self._read()
        return seconds

    def _read(self) -> Any:
        client = self._processes[1]
        assert client.stdout is not None
        line = client.stdout.readline()
        if not line:
            raise RuntimeError(f"the client of torch.distributed.rpc ({self.kind}) ended")
        return json.loads(line)

    def close(self) -> None:
        """Ends both processes."""
        self._signal(signal.SIGCONT)
        client = self._processes[1]
        if client.stdin is not None:
            client.stdin.close()
        for process in reversed(self._processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _serve(role: str, kind: str, port: int, threads: int) -> None:
    # Both find each other over loopback, whatever the host's name resolves to.
    os.environ.setdefault("TP_SOCKET_IFNAME", "lo")
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    import torch
    from torch.distributed import rpc

    torch.set_num_threads(threads)
    chosen: dict[str, Any] = {}
    if kind == "tcp":
        chosen = {"_transports": ["uv"], "_channels": ["basic"]}
    options = rpc.TensorPipeRpcBackendOptions(
        init_method=f"tcp://127.0.0.1:{port}", rpc_timeout=START_SECONDS_MAX, **chosen
    )
    rpc.init_rpc(role, rank=int(role == WORKER), world_size=2, rpc_backend_options=options)
    if role == CLIENT:
        _answer(sys.stdin, sys.stdout, torch, rpc)
    rpc.shutdown()


def _answer(requests: IO[str], answers: IO[str], torch: Any, rpc: Any) -> None:
    print(json.dumps("ready"), file=answers, flush=True)
    for line in requests:
        request = json.loads(line)
        tensor = torch.randn(request["elements"])
        rpc.rpc_sync(WORKER, torch.relu, args=(tensor,))  # warms, after the pause
        seconds = []
        for _ in range(request["repeats"]):
            start = time.perf_counter()
            rpc.rpc_sync(WORKER, torch.relu, args=(tensor,))
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), file=answers, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=[CLIENT, WORKER])
    parser.add_argument("kind", choices=["tcp", "shm"])
    parser.add_argument("port", type=int)
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    _serve(arguments.role, arguments.kind, arguments.port, arguments.threads)
