"""The memory that a client and its gateway share: huge pages, and what a hostile client may do."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import struct
from pathlib import Path

import genie
import pytest
import torch
from daemon import NODE_ON_LINK, Gateway
from huge import free_pages, mapped_mib, reserved_pages, taken_pages
from linked import MAPPED, Linked, forged_offer, make_linked
from support import REMOTE, check, wait_until

DEATH_SECONDS_MAX = 10.0
# Of each client's memory.
ARENA_PAGES = 128


class Attached:
    """A client that speaks the socket's protocol, and then does as it likes."""

    def __init__(self, linked: Linked) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(8)
        self.socket.connect(str(linked.gateway.socket))
        self.socket.sendall(forged_offer(NODE_ON_LINK, linked.node.port))
        answer, files, _, _ = socket.recv_fds(self.socket, 3, 8)
        assert answer == bytes(3), answer
        *self._others, self.arena = files

    def say(self, word: bytes) -> tuple[int, str]:
        """The gateway's second answer: its status and text."""
        if word:
            self.socket.sendall(word)
        status, length = struct.unpack("<BH", self._exactly(3))
        return status, self._exactly(length).decode()

    def _exactly(self, length: int) -> bytes:
        got = b""
        while len(got) < length:
            more = self.socket.recv(length - len(got))
            assert more, "the gateway hung up"
            got += more
        return got

    def punch(self) -> None:
        """Takes every page out of the arena."""
        mode = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        if libc.fallocate(self.arena, mode, 0, os.fstat(self.arena).st_size) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        for file in (*self._others, self.arena):
            os.close(file)


def arenas(gateway: Gateway) -> tuple[int, int, int]:
    """How many clients had huge pages, ordinary ones, and were given up, says the gateway."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(8)
        client.connect(str(gateway.socket))
        client.sendall(b"GENIEGW1" + bytes([3, 2]) + struct.pack("<H", 0))
        text = client.makefile("rb").read()[3:].decode()
    line = next(line for line in text.splitlines() if line.startswith("arenas="))
    huge, ordinary, failed = map(int, line.removeprefix("arenas=").split(","))
    return huge, ordinary, failed


def wait_for_arenas(gateway: Gateway, counts: tuple[int, int, int]) -> None:
    """A client has its answer a moment before it is counted."""
    wait_until(lambda: arenas(gateway) == counts, DEATH_SECONDS_MAX, f"{counts}")


def wait_for_failed(gateway: Gateway, count: int) -> None:
    """The same for those that were given up."""
    wait_until(lambda: arenas(gateway)[2] == count, DEATH_SECONDS_MAX, f"{count} given up")


def test_shared_memory_is_in_huge_pages_while_there_are_some(tmp_path: Path) -> None:
    """A client's memory is, each byte arrives, and the next client makes do with ordinary ones."""
    linked = make_linked(tmp_path)
    try:
        with reserved_pages(ARENA_PAGES):
            genie.connect(linked.gateway.address)
            assert genie.stats()["transport"] == "dpdk"
            assert (mapped_mib(linked.gateway.pid), mapped_mib("self")) == (256, 256)
            assert free_pages() == 0
            for count in (1, 4096, 65537, (8 << 20) + 13, (40 << 20) + 1):
                sent = torch.randint(0, 256, (count,), dtype=torch.uint8)
                assert torch.equal(sent.to(REMOTE).cpu(), sent)
            wait_for_arenas(linked.gateway, (1, 0, 0))
            with Attached(linked) as other:
                assert other.say(MAPPED)[0] == 0
                wait_for_arenas(linked.gateway, (1, 1, 0))
            genie.disconnect()
            assert mapped_mib("self") == 0, "what a session held does not outlive it"
            wait_until(lambda: free_pages() == ARENA_PAGES, DEATH_SECONDS_MAX, "they are back")
        for _ in range(2):
            genie.connect(linked.gateway.address)
            check(lambda x: x * 2 + 1, torch.randn(1 << 16))
            genie.disconnect()
        wait_for_arenas(linked.gateway, (1, 3, 0))
        told = [line for line in linked.gateway.log().splitlines() if "memory of clients" in line]
        made = ["huge pages" if line.endswith(": huge pages") else "ordinary" for line in told]
        assert made == ["ordinary", "huge pages", "ordinary"], told
        assert "WARN" in told[0], told
        assert "genie-hugepages reserve 256MiB" in told[0], told
    finally:
        genie.disconnect()
        linked.stop()


def test_who_takes_huge_pages_out_of_the_shared_memory_harms_nobody(linked: Linked) -> None:
    """Before it has said that it mapped them; afterwards it can't."""
    with reserved_pages(2 * ARENA_PAGES):
        _, _, failed = arenas(linked.gateway)
        genie.connect(linked.gateway.address)
        x = torch.arange(1 << 20, dtype=torch.float32)
        remote = x.to(REMOTE)
        assert free_pages() == ARENA_PAGES
        with Attached(linked) as hostile:
            assert free_pages() == 0
            hostile.punch()
            # And keeps them for itself, so that there are none to fill the hole.
            with taken_pages(ARENA_PAGES):
                status, text = hostile.say(MAPPED)
            assert (status, "having all its pages" in text) == (2, True), text
        with Attached(linked) as hostile:
            hostile.punch()
            assert hostile.say(MAPPED)[0] == 0
            with pytest.raises(PermissionError):
                hostile.punch()
            with pytest.raises(PermissionError):
                mmap.mmap(hostile.arena, 0)
        # The first one's memory is its own all the while.
        assert torch.equal((remote + 1).cpu(), x + 1)
        genie.disconnect()
        wait_for_failed(linked.gateway, failed + 1)


def test_who_never_maps_the_shared_memory_is_given_up(linked: Linked) -> None:
    """In bounded time, counted, and with nothing left behind."""
    process = Path(f"/proc/{linked.gateway.pid}")

    def held() -> tuple[int, int]:
        maps = (process / "maps").read_text().count("memfd:genie")
        return len(list((process / "fd").iterdir())), maps

    wait_until(
        lambda: linked.gateway.metric("genie_link_connections") == 0,
        DEATH_SECONDS_MAX,
        "nobody is attached",
    )
    before, failed = held(), arenas(linked.gateway)[2]
    words = [b"m", b"garbage", os.urandom(64).replace(MAPPED, b"?")]
    # More of them than the gateway has threads for its clients.
    silent_count = 12
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Attached(linked)) for _ in range(silent_count)]
        assert held()[1] == before[1] + 3 * silent_count
        for word in words:
            client = stack.enter_context(Attached(linked))
            assert client.say(word)[0] == 2
        # Meanwhile others are served.
        genie.connect(linked.gateway.address)
        check(lambda x: x + 1, torch.randn(1 << 16))
        genie.disconnect()
        for client in silent:
            status, text = client.say(b"")
            assert (status, "was not mapped within" in text) == (2, True), text
    wait_for_failed(linked.gateway, failed + len(words) + silent_count)
    wait_until(lambda: held() <= before, DEATH_SECONDS_MAX, f"{held()} is {before} again")
