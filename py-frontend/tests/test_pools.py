"""Tensors in pools of the device, as they are on an accelerator; here of the host device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import genie
import pytest
import torch
from linked import make_linked
from support import REMOTE, Client, check_resnet, there_and_back, wait_until

MIB = 1 << 20
# A gateway gives what a dead client left behind 5 s to leave.
DEATH_SECONDS_MAX = 10
# Inside the stream, apart from it, in several parts, and larger than the staging memory.
SIZES = (100, 20_000, (20 << 20) + 5, 80 << 20)


class Pooled(NamedTuple):
    """A node whose tensors are in pools, and where clients connect."""

    daemon: Any
    address: str

    def metric(self, name: str) -> int:
        """What the node counts."""
        return self.daemon.metric(name)


@pytest.fixture(params=["tcp", "dpdk", "dpdk-open"])
def node(
    request: pytest.FixtureRequest, tmp_path: Path, make_daemon: Callable[..., Any]
) -> Iterator[Pooled]:
    """A node whose tensors are in pools, and this process connected to it."""
    if request.param == "tcp":
        daemon = make_daemon("--tensors", "pools")
        genie.connect(daemon.address)
        yield Pooled(daemon, daemon.address)
        genie.disconnect()
        return
    seal = str(request.param == "dpdk").lower()
    made = make_linked(tmp_path, "--tensors", "pools", "--dpdk-seal", seal)
    try:
        genie.connect(made.gateway.address)
        assert genie.stats()["transport"] == "dpdk"
        yield Pooled(made.node, made.gateway.address)
    finally:
        genie.disconnect()
        made.stop()


def staged(node: Pooled) -> tuple[int, int, int]:
    """Copies, bytes to the device, bytes from it."""
    return (
        node.metric("genie_staged_copies_total"),
        node.metric("genie_staged_to_device_bytes_total"),
        node.metric("genie_staged_from_device_bytes_total"),
    )


def test_every_byte_goes_by_the_devices_queue(node: Pooled) -> None:
    """Both ways, in parts of 8 MiB where it is long, and no more often than that."""
    before = staged(node)
    sent = there_and_back(*SIZES)
    copies, to_device, from_device = (
        now - then for now, then in zip(staged(node), before, strict=True)
    )
    assert sent - MIB < to_device <= sent
    assert sent - MIB < from_device <= sent + MIB
    # What lies in a pool of uploads leaves in parts of 1 MiB that the executor copies.
    parts = sum(-(-count // (8 * MIB)) + -(-count // MIB) for count in SIZES)
    assert copies <= parts + 2 * len(SIZES)


def test_models_are_equal(node: Pooled) -> None:
    """Weights that were staged."""
    check_resnet()
    assert staged(node)[1] > 10 * MIB


def test_results_leave_from_where_they_were_computed(node: Pooled) -> None:
    """16 MiB of a result are two copies out of the device, and none before."""
    a = torch.arange(4 * MIB, dtype=torch.float32)
    b = -a.to(REMOTE)
    b.sum().item()
    before = staged(node)[0]
    assert torch.equal(b.cpu(), -a)
    assert staged(node)[0] - before == 2


def test_pools_come_and_go_with_their_tensors(node: Pooled) -> None:
    """Three times what the first pool holds, again and again."""
    for turn in range(3):
        held = [torch.full((40 * MIB // 4,), float(turn * 10 + n)).to(REMOTE) for n in range(5)]
        for n, tensor in enumerate(held):
            assert tensor[-1].item() == turn * 10 + n
        del held
        assert torch.ones(3).to(REMOTE).sum().item() == 3


def test_a_second_session_begins_where_the_first_ended(node: Pooled) -> None:
    """What one left in pools and staging memory is none of the next one's."""
    torch.ones(100 * MIB, dtype=torch.uint8).to(REMOTE)
    genie.disconnect()
    wait_until(lambda: node.metric("genie_sessions") == 0, 10, "the first one's end")
    genie.connect(node.address)
    there_and_back(*SIZES)


def test_a_client_that_dies_leaves_nothing_on_the_node(
    node: Pooled, make_client: Callable[..., Client]
) -> None:
    """Killed in the middle of bulk both ways: no thread, descriptor or mapping of its own."""
    genie.disconnect()
    wait_until(lambda: node.metric("genie_sessions") == 0, 10, "no session")
    process = Path(f"/proc/{node.daemon.pid}")

    def held() -> tuple[int, int, int]:
        names = []
        for task in (process / "task").iterdir():
            # It may end just now.
            with contextlib.suppress(OSError):
                names.append((task / "comm").read_text())
        threads = sum(name.startswith(("read-", "write-", "close-")) for name in names)
        maps = (process / "maps").read_text().count("memfd:genie")
        return threads, len(list((process / "fd").iterdir())), maps

    wait_until(lambda: held()[0] == 0, DEATH_SECONDS_MAX, "the first session's threads ended")
    before = held()
    for _ in range(3):
        client = make_client(f"""
            genie.connect({node.address!r})
            x = torch.ones(60 << 18)
            print("connected")
            while True:
                (x.to("remote_accelerator:0") + 1).cpu()
                print("again")
        """)
        client.expect("again")
        assert held() > before
        client.kill()
    wait_until(lambda: held() <= before, DEATH_SECONDS_MAX, "nothing is left")


def test_no_room_is_an_error_that_says_so(tmp_path: Path, make_daemon: Callable[..., Any]) -> None:
    """The rest of the session lives."""
    daemon = make_daemon("--tensors", "pools", "--memory", "128MiB")
    genie.connect(daemon.address)
    try:
        kept = torch.arange(10.0).to(REMOTE)
        vast = torch.ones(200 * MIB, dtype=torch.uint8).to(REMOTE)
        with pytest.raises(torch.OutOfMemoryError):
            vast.sum().item()
        del vast
        fits = torch.ones(60 * MIB, dtype=torch.uint8).to(REMOTE)
        assert fits[5].item() == 1
        assert kept.sum().item() == 45
    finally:
        genie.disconnect()


def test_a_node_with_pools_is_level_one_and_says_why(tmp_path: Path) -> None:
    """The port's frames go to staging memory."""
    made = make_linked(tmp_path, "--tensors", "pools", "--dpdk-seal", "false")
    try:
        wait_until(lambda: "level 1" in made.node.log(), 10, "level 1")
        assert "not direct: tensors is set to pools" in made.node.log()
    finally:
        made.stop()
