"""NIXL over UCX and TCP: two processes, one writes 1 MiB pieces into the other's memory.

Prints one line of JSON. Runs with the Python of the peers' virtual environment.
"""

from __future__ import annotations

import argparse
import json
import mmap
import multiprocessing
import os
import sys
import time
from ctypes import addressof, c_char
from multiprocessing.connection import Connection

IN_FLIGHT = 8


def memory(size: int) -> tuple[mmap.mmap, int]:
    """Memory with its pages, and its address."""
    region = mmap.mmap(-1, size)
    region.write(b"\1" * size)
    return region, addressof(c_char.from_buffer(region))


def agent(name: str, address: int, size: int):
    """An agent that knows `size` bytes at `address`."""
    from nixl_cu12._api import nixl_agent, nixl_agent_config

    made = nixl_agent(name, nixl_agent_config(backends=["UCX"]))
    made.register_memory([(address, size, 0, "")], "DRAM")
    return made


def target(pipe: Connection, size: int) -> None:
    """Lets the other end write, until it says that it is done."""
    region, address = memory(size * IN_FLIGHT)
    made = agent("target", address, len(region))
    pipe.send((made.get_agent_metadata(), address))
    pipe.recv()
    # The agent's threads would keep the interpreter.
    os._exit(0)


def initiator(pipe: Connection, size: int, seconds: float) -> float:
    """Writes for `seconds`; bytes a second."""
    region, address = memory(size * IN_FLIGHT)
    made = agent("initiator", address, len(region))
    metadata, there = pipe.recv()
    name = made.add_remote_agent(metadata)
    if isinstance(name, bytes):
        name = name.decode()
    handles = []
    for at in range(0, size * IN_FLIGHT, size):
        local = made.get_xfer_descs([(address + at, size, 0)], "DRAM")
        remote = made.get_xfer_descs([(there + at, size, 0)], "DRAM")
        handles.append(made.initialize_xfer("WRITE", local, remote, name))

    def turn(deadline: float) -> int:
        """Keeps all handles busy until the deadline; transfers that were done."""
        done = 0
        busy = set(range(len(handles)))
        for handle in handles:
            made.transfer(handle)
        while busy:
            for index in list(busy):
                state = made.check_xfer_state(handles[index])
                if state == "PROC":
                    continue
                if state != "DONE":
                    raise RuntimeError(f"a transfer ended as {state}")
                done += 1
                if time.monotonic() < deadline:
                    made.transfer(handles[index])
                else:
                    busy.remove(index)
        return done

    turn(time.monotonic() + 0.3)
    began = time.monotonic()
    done = turn(began + seconds)
    rate = done * size / (time.monotonic() - began)
    pipe.send("done")
    return rate


def main() -> None:
    """Runs both ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--time", type=float, default=2.0)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, options.size), daemon=True)
    process.start()
    rate = initiator(here, options.size, options.time)
    process.join(5)
    print(json.dumps({"gbit_per_s": rate * 8 / 1e9}), flush=True)
    sys.stdout.flush()
    process.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
