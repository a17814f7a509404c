"""Through a gateway: shared memory, a DPDK link (memif) to the node, and TCP where that fails."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import genie
import pytest
import torch
from daemon import NODE_ON_LINK, Daemon, DaemonError, Gateway, link_arguments
from linked import MAPPED, Linked, forged_offer, make_linked
from support import (
    REMOTE,
    Client,
    check,
    check_resnet,
    client_files,
    tls_arguments,
    wait_until,
)

DEATH_SECONDS_MAX = 10.0


@pytest.fixture
def connected(linked: Linked) -> Iterator[Linked]:
    """This process connected through the gateway."""
    genie.connect(linked.gateway.address)
    yield linked
    genie.disconnect()


def test_says_what_carries_tensors(connected: Linked) -> None:
    """The transport that is really used is in the statistics, and on both daemons."""
    torch.ones(3, device=REMOTE).cpu()
    stats = genie.stats()
    assert stats["transport"] == "dpdk"
    assert "memif" in connected.node.status()["transport_reason"]
    assert connected.gateway.transport()[0] == "dpdk"


def test_operators_agree_with_the_cpu(connected: Linked) -> None:
    """Forward and backward, small and large."""
    check(lambda x: (x @ x.T).softmax(-1).sum(0), torch.randn(64, 64))
    layer = torch.nn.Linear(256, 128)
    remote = torch.nn.Linear(256, 128)
    remote.load_state_dict(layer.state_dict())
    remote = remote.to(REMOTE)
    x = torch.randn(32, 256)
    layer(x).sum().backward()
    remote(x.to(REMOTE)).sum().backward()
    torch.testing.assert_close(remote.weight.grad.cpu(), layer.weight.grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4096, 4097, 65536, 1 << 20, (8 << 20) + 13])
def test_every_byte_there_and_back(connected: Linked, count: int) -> None:
    """Lengths around the bounds: inline, one part, several parts."""
    sent = torch.randint(0, 256, (count,), dtype=torch.uint8)
    assert torch.equal(sent.to(REMOTE).cpu(), sent)


def test_more_bulk_than_the_arena_holds(connected: Linked) -> None:
    """Shared memory is bounded, tensors need not be: uploads wait for room."""
    tensors = [torch.full((32 << 20,), value, dtype=torch.int8) for value in range(12)]
    remote = [tensor.to(REMOTE) for tensor in tensors]
    for tensor, there in zip(tensors, remote, strict=True):
        assert torch.equal(there.cpu(), tensor)


def test_many_small_tensors_in_order(connected: Linked) -> None:
    """Each has its own bytes."""
    remote = [torch.full((300,), float(value)).to(REMOTE) for value in range(500)]
    total = torch.stack(remote).sum(1).cpu()
    assert torch.equal(total, torch.arange(500.0) * 300)


def test_the_source_may_change_once_it_was_sent(connected: Linked) -> None:
    """`.to` has copied or consumed the bytes when it returns."""
    source = torch.ones(4 << 20)
    remote = source.to(REMOTE)
    source.zero_()
    assert remote.sum().item() == 4 << 20


def test_clients_do_not_disturb_each_other(
    linked: Linked, make_client: Callable[..., Client]
) -> None:
    """Several processes at once, one of them killed in the middle of bulk."""
    code = f"""
        genie.connect({linked.gateway.address!r})
        print("connected")
        x = torch.arange(1 << 20, dtype=torch.float32)
        for turn in range(20):
            assert torch.equal((x.to("remote_accelerator:0") + turn).cpu(), x + turn)
        print("equal")
    """
    victim = make_client(f"""
        genie.connect({linked.gateway.address!r})
        print("connected")
        x = torch.ones(8 << 20)
        while True:
            x.to("remote_accelerator:0")
    """)
    victim.expect("connected")
    others = [make_client(code) for _ in range(2)]
    for other in others:
        other.expect("connected")
    victim.kill()
    for other in others:
        other.expect("equal")
    wait_until(lambda: not linked.node.sessions(), DEATH_SECONDS_MAX, "no session is left")
    wait_until(
        lambda: not linked.node.executors(),
        DEATH_SECONDS_MAX,
        "no executor is left",
    )


def test_a_client_that_dies_leaves_nothing_in_the_gateway(
    tmp_path: Path, make_client: Callable[..., Client]
) -> None:
    """Neither a descriptor nor a mapping."""
    linked = make_linked(tmp_path)

    def held() -> tuple[int, int]:
        process = Path(f"/proc/{linked.gateway.pid}")
        maps = (process / "maps").read_text().count("memfd:genie")
        return len(list((process / "fd").iterdir())), maps

    before = held()
    for _ in range(3):
        client = make_client(f"""

            genie.connect({linked.gateway.address!r})
            torch.ones(1 << 20).to("remote_accelerator:0").cpu()
            print("done")
            import time; time.sleep(60)
        """)
        client.expect("done")
        assert held() != before
        client.kill()
    wait_until(lambda: held() <= before, DEATH_SECONDS_MAX, f"{held()} is {before} again")
    linked.stop()


def test_garbage_at_the_socket_is_refused(linked: Linked) -> None:
    """Whatever is said there: an answer or an end, and the gateway goes on."""
    path = str(linked.gateway.socket)
    hellos = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GENIEGW1" + bytes([9, 2]) + struct.pack("<H", 0),
        b"GENIEGW1" + bytes([2, 1]) + struct.pack("<H", 0),
        b"GENIEGW1" + bytes([2, 2]) + struct.pack("<H", 65535) + b"x" * 100,
        b"GENIEGW1" + bytes([2, 2]) + struct.pack("<H", 10) + b"\xff" * 10,
        os.urandom(64),
        b"",
    ]
    for hello in hellos:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(8)
            client.connect(path)
            client.sendall(hello)
            client.shutdown(socket.SHUT_WR)
            # Bytes that nobody reads make the end a reset.
            with contextlib.suppress(ConnectionResetError):
                client.recv(4096)
    genie.connect(linked.gateway.address)
    try:
        assert torch.ones(2, device=REMOTE).sum().item() == 2
    finally:
        genie.disconnect()


def test_who_forges_offers_gets_nothing_and_others_go_by_tcp_meanwhile(linked: Linked) -> None:
    """All of a link's connections taken by connections to nowhere: they end, and are free again."""
    path, node = str(linked.gateway.socket), linked.node
    with contextlib.ExitStack() as stack:

        def ask(hello: bytes) -> int:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(8)
            client.connect(path)
            client.sendall(hello)
            status = client.recv(3)[0]
            if status == 0:
                client.sendall(MAPPED)
                client.recv(1)
            return status

        # Status 0 is yes, 1 is TCP instead, 2 is no.
        assert ask(forged_offer("10.77.0.9", node.port)) == 2, "another host than the node"
        answers = [ask(forged_offer(NODE_ON_LINK, node.port)) for _ in range(80)]
        # The last ones of the yes may be a moment too early: their channels end at once.
        assert answers.count(0) < 70
        assert set(answers[70:]) == {1}
        # They end by themselves after two seconds, which may be now on a machine that is busy.
        for _ in range(5):
            while ask(forged_offer(NODE_ON_LINK, node.port)) == 0:
                pass
            genie.connect(linked.gateway.address)
            assert torch.ones(2, device=REMOTE).sum().item() == 2
            stats = genie.stats()
            genie.disconnect()
            if stats["transport"] == "tcp":
                break
        assert stats["transport"] == "tcp"
        assert "sessions are on the link already" in stats["transport_reason"]

    def is_free() -> bool:
        genie.connect(linked.gateway.address)
        used = genie.stats()["transport"]
        genie.disconnect()
        return used == "dpdk"

    wait_until(is_free, DEATH_SECONDS_MAX, "the link takes sessions again")


def test_frames_of_nobody_are_counted(connected: Linked) -> None:
    """Nothing is dropped on a sound link; what was is in the metrics."""
    daemons = (connected.node, connected.gateway)
    # Connections that ended before this one may have left a last frame on the link.
    torch.ones(1).to(REMOTE).cpu()
    dropped = [daemon.metric("genie_link_frames_dropped_total") for daemon in daemons]
    torch.ones(1 << 20).to(REMOTE).cpu()
    for daemon, before in zip(daemons, dropped, strict=True):
        assert daemon.metric("genie_transport_level") == 1
        assert daemon.metric("genie_link_frames_received_total") > 100
        assert daemon.metric("genie_link_frames_dropped_total") == before


def test_without_a_link_it_is_tcp_and_says_why(tmp_path: Path) -> None:
    """A gateway without DPDK serves all the same."""
    with Daemon(log=tmp_path / "node.log") as node:
        gateway = Gateway(node, tmp_path, "--transport", "tcp")
        with gateway:
            genie.connect(gateway.address)
            try:
                check(lambda x: x * 2 + 1, torch.randn(1 << 16))
                stats = genie.stats()
            finally:
                genie.disconnect()
            assert stats["transport"] == "tcp"
            assert "transport is set to tcp" in stats["transport_reason"]


def test_a_link_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """The session on it ends with an error, the next goes by TCP, and a later one by DPDK again."""
    linked = make_linked(tmp_path)
    spare = Daemon(log=tmp_path / "spare.log")
    try:
        genie.connect(linked.gateway.address)
        x = torch.ones(10, device=REMOTE)
        assert x.sum().item() == 10
        port = linked.node.port
        linked.node.kill()
        started = time.monotonic()
        with pytest.raises(genie.GenieError):
            for _ in range(1000):
                x.sum().item()
                time.sleep(0.01)
        assert time.monotonic() - started < DEATH_SECONDS_MAX
        genie.disconnect()
        assert linked.gateway.wait_for("tcp"), linked.gateway.log()

        # The same node without its link: by TCP.
        spare._arguments = ()
        spare.start_on(port)
        genie.connect(linked.gateway.address)
        assert torch.ones(10, device=REMOTE).sum().item() == 10
        assert genie.stats()["transport"] == "tcp"
        genie.disconnect()
        spare.stop()

        # And with it: by DPDK again.
        spare._arguments = tuple(link_arguments(tmp_path, "server"))
        spare.start_on(port)
        assert linked.gateway.wait_for("dpdk"), linked.gateway.log()
        genie.connect(linked.gateway.address)
        assert torch.ones(10, device=REMOTE).sum().item() == 10
        assert genie.stats()["transport"] == "dpdk"
        genie.disconnect()
        told = [line for line in linked.gateway.log().splitlines() if "data path: level" in line]
        assert any("level 2 (TCP)" in line for line in told), told
        assert "level 1 (DPDK" in told[-1], told
        # Each change with what it costs; the first line is where it began.
        assert all("a connection to the node takes" in line for line in told[1:]), told
    finally:
        genie.disconnect()
        spare.stop()
        linked.stop()


def test_tls_passes_through(tmp_path: Path, certificates: Path) -> None:
    """The control channel is the client's and the node's own business."""
    linked = Linked(tmp_path, *tls_arguments(certificates))
    try:
        if not linked.gateway.wait_for("dpdk", 3):
            pytest.skip(linked.gateway.transport()[1])
        genie.connect(linked.gateway.address, **client_files(certificates))
        check(lambda x: x.exp(), torch.randn(100))
        assert genie.stats()["transport"] == "dpdk"
    finally:
        genie.disconnect()
        linked.stop()


def test_a_link_that_is_trusted_is_not_sealed(tmp_path: Path) -> None:
    """Frames are only summed, and sent from where the bytes lie."""
    linked = make_linked(tmp_path, "--dpdk-seal", "false")
    try:
        wait_until(
            lambda: "not sealed" in linked.node.status()["transport_reason"], 10, "not sealed"
        )
        genie.connect(linked.gateway.address)
        for count in (100, 20_000, (20 << 20) + 5):
            sent = torch.randint(0, 256, (count,), dtype=torch.uint8)
            assert torch.equal(sent.to(REMOTE).cpu(), sent)
        assert genie.stats()["transport"] == "dpdk"
        for end in (linked.gateway, linked.node):
            sent_frames = end.metric("genie_link_frames_by_reference_total")
            assert sent_frames > (20 << 20) // 9000, end.log()
    finally:
        genie.disconnect()
        linked.stop()


def test_no_gateway_is_a_clear_error(tmp_path: Path) -> None:
    """It names the socket and what to start."""
    with pytest.raises(genie.GenieError, match=r"--gateway"):
        genie.connect(f"unix://{tmp_path / 'nobody.sock'}")


def test_models_are_equal(connected: Linked) -> None:
    """A real network over the link."""
    check_resnet()


@pytest.mark.parametrize(
    ("port", "says"),
    [
        ("af_packet:nosuch0", "no DPDK port af_packet:nosuch0"),
        ("af_xdp:nosuch0", "no DPDK port af_xdp:nosuch0"),
        ("pci:0000:ff:1f.7", "no DPDK port pci:0000:ff:1f.7"),
    ],
)
def test_a_port_that_is_not_there_is_tcp_with_the_reason(
    tmp_path: Path, port: str, says: str
) -> None:
    """The daemon starts and serves all the same."""
    arguments = ("--dpdk-port", port, "--dpdk-address", "10.77.0.1/24", "--insecure")
    with Daemon(*arguments, log=tmp_path / "node.log") as node:
        status = node.status()
        assert status["transport"] == "tcp"
        reason = status["transport_reason"]
        assert says in reason or "no DPDK" in reason, reason
        genie.connect(node.address)
        try:
            assert torch.ones(2, device=REMOTE).sum().item() == 2
        finally:
            genie.disconnect()


def test_a_port_wants_tls_or_insecure(tmp_path: Path) -> None:
    """Whatever `listen` is, and at a gateway too."""
    port = [flag for flag in link_arguments(tmp_path, "server") if flag != "--insecure"]
    gateway = ["--gateway", str(tmp_path / "gateway.sock"), "--node", "127.0.0.1:1"]
    for more in ([], gateway):
        with pytest.raises(DaemonError, match="without TLS"):
            Daemon(*port, *more, device="", log=tmp_path / "open.log").start()
    with Daemon(*port, "--insecure", log=tmp_path / "insecure.log") as node:
        warning = next(line for line in node.log().splitlines() if "--insecure" in line)
        assert "WARN" in warning
        assert "memif" in warning


def test_a_port_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    """With what may be written instead."""
    arguments = ("--dpdk-port", "eth0", "--dpdk-address", "10.77.0.1/24")
    with pytest.raises(DaemonError, match="af_xdp:INTERFACE"):
        Daemon(*arguments, log=tmp_path / "node.log").start()


def test_a_slow_upload_is_no_dead_node(linked: Linked) -> None:
    """Somebody who is there moves little at a time; that takes longer than silence may."""
    pid, done = linked.gateway.pid, threading.Event()

    def slow_down() -> None:
        while not done.wait(0.001):
            os.kill(pid, signal.SIGSTOP)
            done.wait(0.125)
            os.kill(pid, signal.SIGCONT)

    genie.connect(linked.gateway.address)
    # What is shared with the gateway holds 256 MiB of it: the rest waits for room.
    sent = torch.randint(0, 256, (300 << 20,), dtype=torch.uint8)
    slow = threading.Thread(target=slow_down)
    slow.start()
    started = time.monotonic()
    try:
        remote = sent.to(REMOTE)
        # A program's main thread leaves a copy of what does not get on.
        genie.synchronize()
        took = time.monotonic() - started
        done.set()
        slow.join()
        assert remote.sum(dtype=torch.int64).item() == sent.sum(dtype=torch.int64).item()
    finally:
        done.set()
        slow.join()
        genie.disconnect()
    assert took > 2, "it was not slow enough to tell"


def test_a_session_sends_no_faster_than_it_may(tmp_path: Path) -> None:
    """`--dpdk-session-gbit` at the node bounds what comes back."""
    linked = make_linked(tmp_path, "--dpdk-session-gbit", "1")
    try:
        genie.connect(linked.gateway.address)
        remote = torch.ones(64 << 20, dtype=torch.uint8).to(REMOTE)
        remote[0].item()
        started = time.monotonic()
        assert remote.cpu().sum().item() == 64 << 20
        assert time.monotonic() - started > 0.4, "64 MiB are 0.54 s at 1 Gbit/s"
    finally:
        genie.disconnect()
        linked.stop()
