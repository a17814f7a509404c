"""Sessions over several devices, on one node and on several."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
import transformers
from daemon import Daemon, free_port
from support import Client, client_files, tls_arguments, wait_until
from torch.utils._pytree import tree_map

D = "remote_accelerator"
ONE_THREAD = "host:0?threads=1"


class Forwarder:
    """A port that leads clients to a node, and no other node."""

    def __init__(self, port: int) -> None:
        """`port` is the node's."""
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ends: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                first = near.recv(8)
                if first == b"GENIEPR1":
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._port))
                far.sendall(first)
                self._ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *exception: object) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Two nodes; the second has two devices."""
    folder = tmp_path_factory.mktemp("nodes")
    first = Daemon(log=folder / "first.log", device=ONE_THREAD)
    second = Daemon("--device", "host:1?threads=1", log=folder / "second.log", device=ONE_THREAD)
    with first as a, second as b:
        yield [a, b]
        assert a.running, a.log()
        assert b.running, b.log()


@pytest.fixture
def session(nodes: list[Daemon]) -> Iterator[list[Daemon]]:
    """This process connected to both."""
    genie.connect([node.address for node in nodes])
    yield nodes
    genie.disconnect()


def test_devices_count_through_in_order(session: list[Daemon]) -> None:
    a, b = session
    devices = genie.devices()
    assert [device.index for device in devices] == [0, 1, 2]
    assert [device.node for device in devices] == [a.address, b.address, b.address]
    assert [device.name for device in devices] == ["host:0", "host:0", "host:1"]
    assert all(device.alive and device.memory_limit_bytes > 0 for device in devices)
    assert torch.accelerator.device_count() == 3


@pytest.mark.parametrize("index", range(3))
def test_each_device_computes(session: list[Daemon], index: int) -> None:
    x = torch.randn(64, 64)
    remote = x.to(f"{D}:{index}")
    assert remote.device.index == index
    result = (remote @ remote.t()).relu() + torch.ones(64, 64, device=f"{D}:{index}")
    assert result.device.index == index
    torch.testing.assert_close(result.cpu(), (x @ x.t()).relu() + 1)
    ranged = torch.arange(10, device=f"{D}:{index}")
    assert ranged.device.index == index
    assert ranged.tolist() == list(range(10))


def test_values_move_between_devices(session: list[Daemon]) -> None:
    x = torch.randn(100, 30)
    moved = x.to(f"{D}:0")
    for index in (1, 2, 0, 2):
        moved = (moved + 1).to(f"{D}:{index}")
        assert moved.device.index == index
    torch.testing.assert_close(moved.cpu(), x + 4)
    # Views, other types, and into a part of what is there.
    target = torch.zeros(30, 100, dtype=torch.float64, device=f"{D}:1")
    target[3:].copy_(moved.t()[3:])
    torch.testing.assert_close(target.cpu()[3:], (x + 4).t()[3:].double())
    assert target.cpu()[:3].abs().sum() == 0


def test_two_devices_in_one_operator_are_refused_as_elsewhere(session: list[Daemon]) -> None:
    a, b = torch.ones(2, device=f"{D}:0"), torch.ones(2, device=f"{D}:1")
    with pytest.raises(RuntimeError, match="same device"):
        a + b
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([a, b])
    assert (a + a).tolist() == (b + b).tolist() == [2, 2]


def test_a_device_that_is_not_there(session: list[Daemon]) -> None:
    with pytest.raises(RuntimeError, match=r"remote_accelerator:3 does not exist"):
        torch.ones(2, device=f"{D}:3")


def test_a_model_over_three_devices_trains_as_on_the_cpu(session: list[Daemon]) -> None:
    torch.manual_seed(3)
    local = [torch.nn.Linear(32, 64), torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)]
    remote = [torch.nn.Linear(m.in_features, m.out_features) for m in local]
    for index, (one, other) in enumerate(zip(remote, local, strict=True)):
        one.load_state_dict(other.state_dict())
        one.to(f"{D}:{index}")
    ours = torch.optim.AdamW([p for m in remote for p in m.parameters()], lr=1e-2)
    theirs = torch.optim.AdamW([p for m in local for p in m.parameters()], lr=1e-2)
    for _ in range(4):
        x = torch.randn(16, 32)
        y = x.to(f"{D}:0")
        for index, layer in enumerate(remote):
            y = layer(y.to(f"{D}:{index}")).tanh()
        loss = y.square().mean()
        z = x
        for layer in local:
            z = layer(z).tanh()
        expected = z.square().mean()
        torch.testing.assert_close(loss.cpu(), expected)
        for optimizer, value in ((ours, loss), (theirs, expected)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    for one, other in zip(remote, local, strict=True):
        torch.testing.assert_close(one.weight.cpu(), other.weight.detach(), atol=1e-4, rtol=1e-3)


def test_a_look_anywhere_raises_what_failed_first(session: list[Daemon]) -> None:
    other = torch.ones(3, device=f"{D}:0") * 5
    table = torch.ones(2, 2, device=f"{D}:2")
    bad = torch.linalg.cholesky(-torch.eye(3, device=f"{D}:1"))
    table[torch.tensor([5], device=f"{D}:2")] = 0
    # Of three devices that were used since the last look, two have failed.
    with pytest.raises(torch.linalg.LinAlgError):
        other.tolist()
    genie.synchronize()
    assert other.tolist() == [5, 5, 5]
    assert bad.shape == (3, 3)
    assert table.tolist() == [[1, 1], [1, 1]]
    assert (torch.ones(3, device=f"{D}:1") + 1).tolist() == [2, 2, 2]


def test_a_look_asks_nobody_who_has_done_nothing(session: list[Daemon]) -> None:
    used = [torch.ones(3, device=f"{D}:{index}") for index in range(3)]
    genie.synchronize()
    before = genie.stats()["round_trips"]
    for _ in range(5):
        (used[1] + 1).cpu()
    assert genie.stats()["round_trips"] - before == 5


def test_seeds_give_each_device_its_own_numbers(session: list[Daemon]) -> None:
    torch.manual_seed(1)
    first = [torch.rand(4, device=f"{D}:{index}").tolist() for index in range(3)]
    torch.manual_seed(1)
    assert [torch.rand(4, device=f"{D}:{index}").tolist() for index in range(3)] == first


def test_addresses_come_with_commas_too(
    make_daemon: Callable[..., Daemon], make_client: Callable[..., Client]
) -> None:
    a, b = make_daemon(), make_daemon()
    code = """
import genie, torch
x = torch.ones(3, device="remote_accelerator:1") + torch.arange(3, device="remote_accelerator:1")
print(x.to("remote_accelerator:0").tolist(), torch.accelerator.device_count())
"""
    client = make_client(code, GENIE_ADDRESS=f"{a.address}, {b.address}")
    assert client.expect("[1.0, 2.0, 3.0] 2") == ""


def test_a_node_that_is_not_there_is_named_and_nothing_stays_open(
    make_daemon: Callable[..., Daemon],
) -> None:
    node = make_daemon()
    nobody = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(genie.ConnectError, match=nobody.rpartition(":")[2]):
        genie.connect([node.address, nobody])
    assert not genie.is_connected()
    with pytest.raises(ValueError, match="twice"):
        genie.connect([node.address, node.address])
    wait_until(lambda: not node.sessions(), 2, "its session to end")
    genie.connect(node.address)
    assert torch.ones(1, device=D).item() == 1


def test_a_node_that_dies_takes_only_what_it_held(make_daemon: Callable[..., Daemon]) -> None:
    a, b = make_daemon(), make_daemon()
    genie.connect([a.address, b.address])
    kept, lost = torch.ones(4, device=f"{D}:0"), torch.ones(4, device=f"{D}:1")
    genie.synchronize()
    os.kill(b.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(genie.NodeLostError, match=b.address):
        while time.monotonic() < began + 5:
            (lost + 1).cpu()
    assert time.monotonic() - began < 2
    assert (kept + 1).tolist() == [2, 2, 2, 2]
    assert [device.alive for device in genie.devices()] == [True, False]
    with pytest.raises(genie.NodeLostError):
        kept.to(f"{D}:1")
    # Whoever connects anew starts from nothing, and leaves nothing behind.
    genie.connect(a.address)
    with pytest.raises(genie.StaleTensorError):
        kept.cpu()
    wait_until(lambda: len(a.sessions()) == 1, 2, "the old session to end")
    assert torch.ones(1, device=D).item() == 1


def test_a_share_of_the_machine(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    node = make_daemon("--device", "host:1", device="host:0?memory=64MiB")
    genie.connect(node.address)
    assert genie.devices()[0].memory_limit_bytes == 64 << 20
    with pytest.raises(torch.OutOfMemoryError):
        torch.ones(32 << 20, device=f"{D}:0").sum().item()
    assert torch.ones(32 << 20, device=f"{D}:1").sum().item() == 32 << 20


# ---- values between devices ---------------------------------------------------------------------


def test_a_device_that_is_slowed_down(make_daemon: Callable[..., Daemon]) -> None:
    """To test a pool of unequal ones: it computes the same, in so much more time, and says so."""
    node = make_daemon("--device", "host:1?threads=1&speed=0.2", device=ONE_THREAD)
    genie.connect(node.address)
    assert [device.speed for device in genie.devices()] == [1.0, 0.2]
    assert "slowed down to 0.2" in genie.devices()[1].description
    x = torch.randn(700, 700)

    def took(index: int) -> tuple[float, torch.Tensor]:
        remote = x.to(f"{D}:{index}")
        best = 60.0
        for _ in range(4):
            began = time.perf_counter()
            for _ in range(6):
                result = remote @ remote
            result[0, 0].item()
            best = min(best, time.perf_counter() - began)
        return best, result.cpu()

    (fast, ours), (slow, theirs) = took(0), took(1)
    assert torch.equal(ours, theirs)
    assert slow > 3 * fast


def test_a_gigabyte_between_nodes_is_none_of_the_clients_business(session: list[Daemon]) -> None:
    a, b = session
    big = torch.ones(32 << 20, device=f"{D}:0")  # 128 MiB
    genie.synchronize()
    before, came = (
        genie.stats(),
        [node.metric("genie_peer_bytes_received_total") for node in (a, b)],
    )
    for _ in range(4):
        big = big.to(f"{D}:1") + 1
        big = big.to(f"{D}:0") + 1
    assert big[-1].item() == 1 + 8
    after = genie.stats()
    assert after["moves"] - before["moves"] == 8
    assert after["moved_bytes"] - before["moved_bytes"] == 1 << 30
    assert after["relayed_bytes"] == before["relayed_bytes"]
    assert after["bytes_received"] - before["bytes_received"] < 64 << 10
    assert after["bytes_sent"] - before["bytes_sent"] < 64 << 10
    grown = [
        node.metric("genie_peer_bytes_received_total") - count
        for node, count in zip((a, b), came, strict=True)
    ]
    assert grown == [1 << 29, 1 << 29]


@pytest.mark.parametrize("target", [1, 0], ids=["between nodes", "within one"])
def test_what_somebody_waits_for_goes_ahead_of_what_nobody_does(
    session: list[Daemon], target: int
) -> None:
    """A small value is there before a large one that was sent earlier."""
    b = session[1]
    source, target = (0, 1) if target else (1, 2)
    big = torch.ones(256 << 20, device=f"{D}:{source}")  # 1 GiB
    small = torch.arange(100, device=f"{D}:{source}")
    (small.to(f"{D}:{target}") + 1).cpu()
    genie.synchronize()
    before = b.metric("genie_peer_bytes_received_total")
    there = big.to(f"{D}:{target}")
    assert small.to(f"{D}:{target}").cpu().tolist() == list(range(100))
    came = b.metric("genie_peer_bytes_received_total") - before
    assert came == 800, "the large one was waited for"
    assert there[-1].item() == 1
    assert b.metric("genie_peer_bytes_received_total") - before == 800 + (1 << 30)


def test_what_is_freed_on_its_way_goes_no_further(session: list[Daemon]) -> None:
    a, b = session
    big = torch.ones(256 << 20, device=f"{D}:0")  # 1 GiB
    small = torch.arange(100, device=f"{D}:0")
    genie.synchronize()
    sent = a.metric("genie_peer_bytes_sent_total")
    for _ in range(4):
        there = big.to(f"{D}:1")
        del there
        # What comes after it is not behind it, either.
        assert small.to(f"{D}:1").sum().item() == 4950
    genie.synchronize()
    time.sleep(0.5)
    went = a.metric("genie_peer_bytes_sent_total") - sent
    assert went < 2 << 30, f"{went} of {4 << 30} bytes went"
    # The way is as it was, and so is the memory.
    assert big.to(f"{D}:1").sum().item() == float(256 << 20)

    # A node says what it holds ten times a second.
    def held() -> int:
        return int(b.sessions()[0]["memory_bytes"])

    wait_until(lambda: held() < 1 << 30, 5, "the memory of what was freed")


def test_devices_of_one_node_need_no_network(session: list[Daemon]) -> None:
    node = session[1]
    sent = node.metric("genie_peer_bytes_sent_total")
    x = torch.randn(1 << 20, device=f"{D}:1")
    assert torch.equal((x.to(f"{D}:2") * 2).cpu(), x.cpu() * 2)
    assert node.metric("genie_peer_bytes_sent_total") == sent


def test_a_move_does_not_wait(session: list[Daemon]) -> None:
    x = torch.ones(4, device=f"{D}:0")
    (x.to(f"{D}:1") + 1).cpu()
    before = genie.stats()["round_trips"]
    for _ in range(50):
        x = (x + 1).to(f"{D}:1")
        x = (x * 1).to(f"{D}:2")
        x = (x * 1).to(f"{D}:0")
    assert genie.stats()["round_trips"] == before
    assert x.tolist() == [51.0] * 4


def test_every_layout_moves(session: list[Daemon]) -> None:
    base = torch.randn(6, 4, 5)
    remote = base.to(f"{D}:0")
    for view in (
        lambda t: t,
        lambda t: t.transpose(0, 2),
        lambda t: t[1:4, :, ::2],
        lambda t: t[:0],
        lambda t: t[2, 1, 3],
        lambda t: t.expand(3, 6, 4, 5),
        lambda t: t.to(torch.complex64).conj(),
        lambda t: t > 0,
    ):
        there = view(remote).to(f"{D}:1")
        assert torch.equal(there.cpu(), view(base).resolve_conj())
    assert remote.to(f"{D}:1", torch.float64).dtype == torch.float64
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    moved = image.to(f"{D}:0").to(f"{D}:2")
    assert moved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.cpu(), image)


def test_what_moved_is_a_copy(session: list[Daemon]) -> None:
    x = torch.ones(1 << 18, device=f"{D}:0")
    there = x.to(f"{D}:1")
    x.add_(1)
    there.mul_(10)
    assert there[0].item() == 10
    assert x[0].item() == 2


def test_values_that_nobody_waits_for_cost_nothing_for_good(session: list[Daemon]) -> None:
    node = session[1]
    x = torch.ones(1 << 20, device=f"{D}:0")
    for _ in range(40):
        del_me = x.to(f"{D}:1")
        del del_me
    genie.synchronize()
    (x.to(f"{D}:1")).sum().item()

    def small() -> bool:
        genie.synchronize()
        return sum(one["memory_bytes"] for one in node.sessions()) < 16 << 20

    wait_until(small, 5, "the memory of freed values")
    assert small()  # and it stays so


def test_a_failure_moves_with_its_value_and_is_raised_once(session: list[Daemon]) -> None:
    genie.synchronize()
    table = torch.randn(4, 3, device=f"{D}:0")
    kept = torch.ones(3, device=f"{D}:1")
    bad = table[torch.tensor([9], device=f"{D}:0")]  # the line of the failure
    there = bad.to(f"{D}:1") + kept
    with pytest.raises(IndexError, match=r"test_nodes\.py") as raised:
        there.cpu()
    told = re.search(r'test_nodes\.py", line (\d+)', str(raised.value))
    assert told, str(raised.value)
    lines = Path(__file__).read_text().splitlines()
    assert "the line of the failure" in lines[int(told[1]) - 1]
    genie.synchronize()
    assert kept.tolist() == [1, 1, 1]
    assert table.shape == (4, 3)
    assert torch.isfinite(table.sum()).item()


def test_no_memory_at_the_receiver_is_its_failure_alone(
    make_daemon: Callable[..., Daemon],
) -> None:
    a, b = make_daemon(), make_daemon(device="host:0?memory=64MiB")
    genie.connect([a.address, b.address])
    big, small = torch.ones(32 << 20, device=f"{D}:0"), torch.ones(4, device=f"{D}:1")
    there = big.to(f"{D}:1")
    with pytest.raises(torch.OutOfMemoryError):
        there.sum().item()
    assert small.to(f"{D}:0").tolist() == [1] * 4
    assert big.sum().item() == 32 << 20
    assert big[:4].to(f"{D}:1").tolist() == [1] * 4


def test_a_sender_that_dies_fails_what_was_on_its_way(make_daemon: Callable[..., Daemon]) -> None:
    a, b = make_daemon(), make_daemon()
    genie.connect([a.address, b.address])
    kept = torch.ones(4, device=f"{D}:1")
    torch.ones(4, device=f"{D}:0").to(f"{D}:1").cpu()
    for pid in a.processes():
        os.kill(pid, signal.SIGSTOP)
    coming = torch.ones(1 << 22, device=f"{D}:0").to(f"{D}:1") + 1
    os.kill(a.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(genie.NodeLostError, match=a.host_port):
        coming.cpu()
    assert time.monotonic() - began < 2
    assert (kept + 1).tolist() == [2] * 4


@pytest.mark.parametrize("placement", ["pinned", "pool"])
def test_a_sender_that_is_silent_fails_what_is_waited_for_within_the_lease(
    make_daemon: Callable[..., Daemon], placement: str
) -> None:
    """Its connections stay open: nobody but its client can know that it is gone."""
    a, b = (make_daemon("--lease-seconds", "8") for _ in range(2))
    genie.connect([a.address, b.address], placement=placement, policy=None)
    if placement == "pinned":
        first, second = torch.ones(4, device=f"{D}:0"), torch.ones(4, device=f"{D}:1")
        (first.to(f"{D}:1") + second).cpu()
        genie.synchronize()
    else:
        first, second = torch.ones(4).to(D), torch.ones(4).to(D)
        lost = [genie.where(one).device.node == a.address for one in (first, second)]
        assert all(lost)
    os.kill(a.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        coming = (first * 2).to(second.device) + second
        with pytest.raises(genie.NodeLostError, match=a.host_port):
            coming.cpu()
        assert time.monotonic() - began < 8
        if placement == "pinned":
            assert (second + 1).tolist() == [2] * 4
        assert (torch.ones(4).to(second.device) + 1).tolist() == [2] * 4
    finally:
        os.kill(a.pid, signal.SIGCONT)


def test_nodes_with_certificates_show_them_to_each_other(
    make_daemon: Callable[..., Daemon], certificates: Path
) -> None:
    genie.disconnect()
    server = tls_arguments(certificates)
    a, b = make_daemon(*server), make_daemon(*server)
    genie.connect([a.address, b.address], **client_files(certificates))
    x = torch.randn(1 << 16, device=f"{D}:0")
    assert torch.equal(x.to(f"{D}:1").cpu(), x.cpu())
    assert genie.stats()["relayed_bytes"] == 0


def test_nodes_that_cannot_reach_each_other_are_relayed_with_one_warning(
    make_daemon: Callable[..., Daemon],
) -> None:
    a, b = make_daemon(), make_daemon()
    with Forwarder(b.port) as forwarder:
        genie.connect([a.address, forwarder.address])
        x = torch.randn(1 << 16, device=f"{D}:0")
        with pytest.warns(UserWarning, match="can't reach") as warned:
            there, again = (x.to(f"{D}:1") for _ in range(2))
        assert len(warned) == 1
        text = str(warned[0].message)
        assert a.address in text
        assert forwarder.address in text
        assert torch.equal(there.cpu(), x.cpu())
        assert torch.equal(again.cpu(), x.cpu())
        assert genie.stats()["relayed_bytes"] == 2 * 4 << 16
        # The other way is open.
        assert torch.equal(there.to(f"{D}:0").cpu(), x.cpu())
        assert genie.stats()["relayed_bytes"] == 2 * 4 << 16
        genie.disconnect()


# ---- one device and several give the same -------------------------------------------------------


def run_program(seed: int, several: bool) -> list[torch.Tensor]:
    """Runs a made-up program; with `several`, each value is where a seeded choice puts it."""
    rng = random.Random(seed)
    torch.manual_seed(seed)

    def somewhere() -> str:
        chosen = rng.randrange(3)
        return f"{D}:{chosen if several else 0}"

    pool = [torch.randn(8, 8).to(somewhere()) for _ in range(6)]
    for _ in range(80):
        a = pool[rng.randrange(len(pool))].to(somewhere())
        b = pool[rng.randrange(len(pool))].to(a.device)
        match rng.randrange(12):
            case 0:
                made = a + b.t()
            case 1:
                made = (a @ b).tanh()
            case 2:
                made = torch.cat([a[:4], b[4:]])
            case 3:
                made = a.clone()
                made[2:5].mul_(b[:3])
            case 4:
                made = torch.softmax(a, dim=rng.randrange(2))
            case 5:
                made = a.clone().t().add_(b).relu_()
            case 6:
                made = torch.where(a > b, a, b)
            case 7:
                made = a.sum(0, keepdim=True).expand(8, 8).clone()
            case 8:
                made = a.to(torch.float64).sin().to(torch.float32)
            case 9:
                # Through a view. Of a copy: what moves is one, what stays is seen by others.
                made = b.clone().contiguous()
                made.view(64)[::2].fill_(0.5)
                made[1:] += made[:-1].clone()
            case 10:
                made = a.flip(0)
            case _:
                made = a * 2
        pool[rng.randrange(len(pool))] = made
    return [value.cpu() for value in pool]


@pytest.mark.parametrize("seed", range(12))
def test_a_program_over_three_devices_gives_what_one_gives(
    session: list[Daemon], seed: int
) -> None:
    for ours, theirs in zip(run_program(seed, True), run_program(seed, False), strict=True):
        assert torch.equal(ours, theirs)


def spread(model: torch.nn.Module, blocks: list[torch.nn.Module], several: bool) -> None:
    """Puts a model's blocks on the devices in turns, and what reaches a block there, too."""
    model.to(f"{D}:0")
    for index, block in enumerate(blocks):
        device = f"{D}:{index % 3 if several else 0}"
        block.to(device)

        def bring(_: Any, args: Any, kwargs: Any, to: str = device) -> Any:
            return tree_map(lambda x: x.to(to) if torch.is_tensor(x) else x, (args, kwargs))

        def back(_: Any, __: Any, ___: Any, output: Any) -> Any:
            return tree_map(lambda x: x.to(f"{D}:0") if torch.is_tensor(x) else x, output)

        block.register_forward_pre_hook(bring, with_kwargs=True)
        block.register_forward_hook(back, with_kwargs=True)


def test_gpt2_over_three_devices_trains_as_on_one(session: list[Daemon]) -> None:
    config = transformers.GPT2Config(
        n_layer=5, n_embd=48, n_head=4, vocab_size=200, n_positions=64, attn_pdrop=0.0,
        resid_pdrop=0.0, embd_pdrop=0.0,
    )  # fmt: skip
    torch.manual_seed(7)
    source = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(0, 200, (2, 24))
    results = []
    for several in (True, False):
        model = copy.deepcopy(source)
        spread(model, list(model.transformer.h), several)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for _ in range(3):
            remote = tokens.to(f"{D}:0")
            loss = model(remote, labels=remote, use_cache=False).loss
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        results.append((losses, [parameter.detach().cpu() for parameter in model.parameters()]))
    (ours, weights), (theirs, others) = results
    assert ours == theirs
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


def test_where_a_value_is(session: list[Daemon]) -> None:
    place = genie.where(torch.ones(2, device=f"{D}:2"))
    assert place.device == genie.devices()[2]
    assert "remote_accelerator:2" in place.why
    with pytest.raises(TypeError, match="cpu"):
        genie.where(torch.ones(2))
