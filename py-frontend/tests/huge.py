"""The machine's pool of 2 MiB pages: what a test may take from it, and gives back."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
PAGE_MIB = 2
# The tests of the crates lock this file, too, while they change the pool (hugepages/tests/turn).
_TURN = Path(tempfile.gettempdir()) / "genie-hugepages-tests.lock"
_TURN_SECONDS_MAX = 60.0


def pool(name: str) -> int:
    """A number of the pool: "nr", "free", "resv" or "surplus" pages."""
    return int((POOL / f"{name}_hugepages").read_text())


def free_pages() -> int:
    """Pages that a process could have now."""
    return pool("free") - pool("resv")


@contextlib.contextmanager
def reserved_pages(count: int) -> Iterator[None]:
    """So many free pages, and what was added is taken off again; skips where they can't be had."""
    if not POOL.exists():
        pytest.skip("this machine has no pages of 2 MiB")
    with _turn():
        had = _kept()
        try:
            _set(had + count - free_pages())
        except OSError as error:
            pytest.skip(f"huge pages can't be reserved: {error}")
        try:
            if free_pages() != count:
                pytest.skip(f"the kernel finds no room for {count} huge pages")
            # A virtual machine's host may give it memory slowly, the first time that it is used.
            with taken_pages(count):
                pass
            yield
        finally:
            _set(had)


@contextlib.contextmanager
def taken_pages(count: int) -> Iterator[None]:
    """So many huge pages, each of them written to, held by this process."""
    file = os.memfd_create("taken", 0x4)  # MFD_HUGETLB
    try:
        os.ftruncate(file, count << 21)
        with mmap.mmap(file, count << 21) as pages:
            pages[:: 2 << 20] = b"x" * count
            yield
    finally:
        os.close(file)


def mapped_mib(pid: int | str) -> int:
    """MiB of huge pages that a process has mapped, touched or not."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    pages = (part for part in text.split("VmFlags") if "KernelPageSize:     2048 kB" in part)
    sizes = (part.split("\nSize:")[1].split()[0] for part in pages)
    return sum(map(int, sizes)) >> 10


def touched_mib(pid: int | str) -> int:
    """MiB of huge pages that a process has, as the kernel counts them (HugetlbPages)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = next(line.split() for line in lines if line.startswith("HugetlbPages:"))
    assert fields[2] == "kB", fields
    return int(fields[1]) >> 10


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    """The pool is the machine's: one test at a time."""
    try:
        file = _TURN.open("a")
    except PermissionError:
        # Another user's.
        file = _TURN.open()
    with file:
        deadline = time.monotonic() + _TURN_SECONDS_MAX
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    pytest.skip(f"another test holds the huge pages ({_TURN})")
                time.sleep(0.05)
        yield


def _kept() -> int:
    """Pages that stay when nobody uses them: surplus pages leave with their users."""
    return pool("nr") - pool("surplus")


def _set(pages: int) -> None:
    """Makes the pool keep so many; the kernel looks again once memory is in order."""
    for _ in range(2):
        (POOL / "nr_hugepages").write_text(str(pages))
        if _kept() >= pages:
            return
        Path("/proc/sys/vm/compact_memory").write_text("1")
