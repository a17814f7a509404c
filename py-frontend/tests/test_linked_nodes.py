"""Values between two nodes that have a DPDK link (memif) to each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import genie
import pytest
import torch
from daemon import Daemon, link_arguments
from support import Counted, wait_until

D = "remote_accelerator"
ONE_THREAD = "host:0?threads=1"


def wait_linked(nodes: list[Daemon]) -> None:
    """Both have the link up; skips where there is no DPDK."""
    for node in nodes:
        reason = node.transport()[1]
        if "no DPDK" in reason and not node.wait_for("dpdk", 0.5):
            pytest.skip(reason)
        assert node.wait_for("dpdk"), node.log()


@pytest.fixture(scope="module", params=["sealed", "summed"])
def linked(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[list[Daemon]]:
    folder = tmp_path_factory.mktemp("linked")
    seal = () if request.param == "sealed" else ("--dpdk-seal", "false")
    first = Daemon(
        *link_arguments(folder, "server"), *seal, log=folder / "a.log", device=ONE_THREAD
    )
    second = Daemon(
        *link_arguments(folder, "client"), *seal, log=folder / "b.log", device=ONE_THREAD
    )
    with first as a, second as b:
        wait_linked([a, b])
        yield [a, b]
        assert a.running, a.log()
        assert b.running, b.log()


def ways() -> dict[tuple[int, int], str]:
    return {(link["from"], link["to"]): link["way"] for link in genie.stats()["links"]}


def test_values_go_by_the_link(linked: list[Daemon]) -> None:
    genie.connect([node.address for node in linked])
    try:
        with Counted() as counted:
            for count in (0, 1, 1000, 5000, 300_000, 4 << 20):
                x = torch.randn(count)
                there = x.to(f"{D}:0").to(f"{D}:1")
                assert torch.equal(there.cpu(), x)
                assert torch.equal((there * 2).to(f"{D}:0").cpu(), x * 2)
        assert counted.relayed_bytes == 0
        assert ways() == {(0, 1): "dpdk", (1, 0): "dpdk"}
    finally:
        genie.disconnect()
    wait_until(lambda: not any(node.sessions() for node in linked), 5, "closed")


def test_what_is_urgent_goes_ahead_and_what_is_freed_stays(linked: list[Daemon]) -> None:
    a, b = linked
    genie.connect([node.address for node in linked])
    try:
        big = torch.ones(64 << 20, device=f"{D}:0")  # 256 MiB
        small = torch.arange(100, device=f"{D}:0")
        assert small.to(f"{D}:1").sum().item() == 4950
        genie.synchronize()
        before = b.metric("genie_peer_bytes_received_total")
        there = big.to(f"{D}:1")
        assert small.to(f"{D}:1").sum().item() == 4950
        assert b.metric("genie_peer_bytes_received_total") - before == 800
        assert there[-1].item() == 1
        huge = torch.ones(256 << 20, device=f"{D}:0")  # 1 GiB
        genie.synchronize()
        sent = a.metric("genie_peer_bytes_sent_total")
        for _ in range(3):
            there = huge.to(f"{D}:1")
            del there
            assert small.to(f"{D}:1").sum().item() == 4950
        time.sleep(0.5)
        assert a.metric("genie_peer_bytes_sent_total") - sent < 2 << 30
        del huge
        for _ in range(10):
            gone = big.to(f"{D}:1")
            del gone
        assert big.to(f"{D}:1").sum().item() == 64 << 20
        # Twice at a time, from one place.
        twice = [big.to(f"{D}:1"), big.to(f"{D}:1")]
        assert [one[-1].item() for one in twice] == [1, 1]
        del twice
        genie.synchronize()

        def held() -> int:
            genie.synchronize()
            return sum(one["memory_bytes"] for one in b.sessions())

        wait_until(lambda: held() < 1 << 20, 5, "the memory of what was freed on its way")
    finally:
        genie.disconnect()


def test_many_go_ahead_of_one_that_is_long(linked: list[Daemon]) -> None:
    """They travel apart, too, each in its midst."""
    genie.connect([node.address for node in linked])
    try:
        big = torch.ones(128 << 20, device=f"{D}:0")  # 512 MiB
        urgent = torch.arange(64 << 10, device=f"{D}:0")  # 512 KiB
        wanted = urgent.sum().item()
        for _ in range(3):
            there = big.to(f"{D}:1")
            ahead = [urgent.to(f"{D}:1") for _ in range(40)]
            assert [one.sum().item() for one in ahead] == [wanted] * 40
            assert there.sum().item() == 128 << 20
            del there, ahead
    finally:
        genie.disconnect()


def test_without_room_at_the_receiver_nothing_travels(tmp_path: Path) -> None:
    first = Daemon(*link_arguments(tmp_path, "server"), log=tmp_path / "a.log", device=ONE_THREAD)
    second = Daemon(
        *link_arguments(tmp_path, "client"),
        log=tmp_path / "b.log",
        device=f"{ONE_THREAD}&memory=64MiB",
    )
    with first as a, second as b:
        wait_linked([a, b])
        genie.connect([a.address, b.address])
        try:
            big = torch.ones(64 << 20, device=f"{D}:0")  # 256 MiB
            x = torch.randn(1 << 20)
            for _ in range(3):
                there = big.to(f"{D}:1")
                with pytest.raises(torch.OutOfMemoryError):
                    there[0].item()
                del there
                assert torch.equal(x.to(f"{D}:0").to(f"{D}:1").cpu(), x)
            assert big[-1].item() == 1
            assert set(ways().values()) == {"dpdk"}
        finally:
            genie.disconnect()


def test_a_pool_over_the_link(linked: list[Daemon]) -> None:
    genie.connect([node.address for node in linked], placement="pool", policy="random:7")
    try:
        torch.manual_seed(1)
        model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(6)))
        x = torch.randn(8, 64)
        wanted = model(x)
        got = model.to(D)(x.to(D))
        torch.testing.assert_close(got.cpu(), wanted, rtol=0, atol=1e-5)
        assert set(ways().values()) == {"dpdk"}
    finally:
        genie.disconnect()


def test_a_node_that_dies_fails_what_was_on_its_way(tmp_path: Path) -> None:
    first = Daemon(*link_arguments(tmp_path, "server"), log=tmp_path / "a.log", device=ONE_THREAD)
    second = Daemon(*link_arguments(tmp_path, "client"), log=tmp_path / "b.log", device=ONE_THREAD)
    with first as a, second as b:
        wait_linked([a, b])
        genie.connect([a.address, b.address])
        try:
            kept = torch.ones(4, device=f"{D}:1")
            torch.ones(4, device=f"{D}:0").to(f"{D}:1").cpu()
            assert ways() == {(0, 1): "dpdk"}
            big = torch.ones(64 << 20, device=f"{D}:0")
            genie.synchronize()
            coming = big.to(f"{D}:1") + 1
            a.kill()
            began = time.monotonic()
            with pytest.raises(genie.NodeLostError, match=a.host_port):
                coming.cpu()
            assert time.monotonic() - began < 3
            assert (kept + 1).tolist() == [2] * 4
        finally:
            genie.disconnect()


def test_a_link_that_leads_elsewhere_is_no_way(
    tmp_path: Path, make_daemon: Callable[..., Daemon]
) -> None:
    """One node has a link, the other none, or one of another network: values go by TCP."""
    folder = tmp_path / "link"
    folder.mkdir()
    first = Daemon(*link_arguments(folder, "server"), log=folder / "a.log", device=ONE_THREAD)
    with first as a:
        b = make_daemon(device=ONE_THREAD)
        genie.connect([a.address, b.address])
        try:
            x = torch.randn(1000)
            assert torch.equal(x.to(f"{D}:0").to(f"{D}:1").cpu(), x)
            assert torch.equal(x.to(f"{D}:1").to(f"{D}:0").cpu(), x)
            assert set(ways().values()) == {"tcp"}
        finally:
            genie.disconnect()
