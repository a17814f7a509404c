"""Connecting, disconnecting, the address in the environment, refusals, statistics."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import genie
import pytest
import torch
from daemon import Daemon, free_port
from support import REMOTE, Client, Counted, assert_same, told_of_another_torch, wait_until

# "Quickly" for a machine that runs other things too.
REFUSED_SECONDS_MAX = 10.0


@pytest.fixture(autouse=True)
def disconnected() -> Iterator[None]:
    """Each test begins and ends without a session."""
    genie.disconnect()
    yield
    genie.disconnect()


def test_connect_work_disconnect(daemon: Daemon) -> None:
    genie.connect(daemon.address)
    assert_same(torch.ones(3, device=REMOTE) * 2, torch.full((3,), 2.0))
    assert len(daemon.sessions()) == 1
    genie.disconnect()
    wait_until(lambda: not daemon.sessions(), 5, "the session is gone")


def test_tensors_of_an_earlier_session_raise(daemon: Daemon) -> None:
    genie.connect(daemon.address)
    old = torch.ones(3, device=REMOTE)
    kept = old[1:]
    genie.disconnect()
    with pytest.raises(genie.GenieError):
        old.cpu()
    genie.connect(daemon.address)
    new = torch.full((3,), 5.0, device=REMOTE)
    for use in (old.cpu, kept.cpu, lambda: old + new, lambda: new.copy_(old)):
        with pytest.raises(genie.StaleTensorError):
            use()
    assert_same(new, torch.full((3,), 5.0))
    assert old.shape == (3,)  # what is local still is there


def test_tensors_of_an_earlier_session_take_no_memory(daemon: Daemon) -> None:
    def taken() -> tuple[int, int, int]:
        module = torch.remote_accelerator
        free, total = module.mem_get_info()
        return module.memory_allocated(), module.max_memory_allocated(), total - free

    genie.connect(daemon.address)
    old = torch.ones(1 << 10, device=REMOTE)
    assert taken() == (4096, 4096, 4096)
    genie.disconnect()
    assert torch.remote_accelerator.memory_allocated() == 0
    genie.connect(daemon.address)
    assert taken() == (0, 0, 0)
    new = torch.ones(1 << 8, device=REMOTE)
    assert taken() == (1024, 1024, 1024)
    del old
    assert taken() == (1024, 1024, 1024)
    del new
    assert taken() == (0, 1024, 0)


def test_disconnect_twice_does_no_harm(daemon: Daemon) -> None:
    genie.connect(daemon.address)
    genie.disconnect()
    genie.disconnect()
    assert not genie.is_connected()
    genie.connect(daemon.address)
    assert genie.is_connected()


def test_without_a_session_the_device_says_what_to_do() -> None:
    with pytest.raises(genie.NotConnectedError, match=r"genie\.connect|GENIE_ADDRESS"):
        torch.ones(2, device=REMOTE).cpu()
    assert not torch.remote_accelerator.is_available()
    assert torch.remote_accelerator.device_count() == 0
    assert torch.ones(2).sum().item() == 2.0


def test_a_second_session_is_refused(daemon: Daemon) -> None:
    genie.connect(daemon.address)
    with pytest.raises(RuntimeError, match=r"disconnect|already"):
        genie.connect(daemon.address)
    assert torch.ones(2, device=REMOTE).sum().item() == 2.0


def test_the_scheme_may_be_left_out(daemon: Daemon) -> None:
    genie.connect(daemon.host_port)
    assert torch.ones(2, device=REMOTE).sum().item() == 2.0


@pytest.mark.parametrize("address", ["", "http://localhost:1", "tcp://", "tcp://h:99999", "a b:1"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises((genie.GenieError, ValueError), match="address"):
        genie.connect(address)


def test_a_node_that_is_not_there() -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    start = time.monotonic()
    with pytest.raises(genie.ConnectError, match=address.removeprefix("tcp://")):
        genie.connect(address)
    assert time.monotonic() - start < REFUSED_SECONDS_MAX
    assert torch.ones(2).sum().item() == 2.0


def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(genie.ConnectError, match="nowhere"):
        genie.connect("tcp://nowhere.invalid:7700")


def test_something_else_listens() -> None:
    """It accepts, and never says a word of Genie's."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        start = time.monotonic()
        with pytest.raises(genie.ConnectError):
            genie.connect(f"tcp://127.0.0.1:{other.getsockname()[1]}")
        assert time.monotonic() - start < 3 * REFUSED_SECONDS_MAX


def test_a_failed_connect_leaves_nothing_half_done(daemon: Daemon) -> None:
    with pytest.raises(genie.ConnectError):
        genie.connect(f"tcp://127.0.0.1:{free_port()}")
    genie.connect(daemon.address)
    assert torch.ones(2, device=REMOTE).sum().item() == 2.0


def test_a_node_takes_a_port_that_is_about_to_be_free(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        node = Daemon(log=tmp_path / "node.log")
        threading.Timer(0.5, other.close).start()
        try:
            assert node.start_on(port).running
        finally:
            node.stop()


def test_random_bytes_on_the_port_disturb_nobody(daemon: Daemon) -> None:
    genie.connect(daemon.address)
    tensor = torch.ones(2, device=REMOTE)
    generator = torch.Generator().manual_seed(7)
    for start in (b"", b"GENIEDT1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n"):
        for length in (0, 1, 40, 5000):
            noise = torch.randint(256, (length,), generator=generator).to(torch.uint8)
            with socket.create_connection(("127.0.0.1", daemon.port), timeout=10) as connection:
                try:
                    connection.sendall(start + bytes(noise.tolist()))
                except OSError:
                    continue  # refused in the middle: as it should be
    assert (tensor + 1).sum().item() == 4.0
    assert daemon.running


def test_errors_are_one_family() -> None:
    for name in (
        "ConnectError",
        "VersionMismatchError",
        "NodeLostError",
        "RemoteOperatorError",
        "StaleTensorError",
        "ForkError",
        "NotConnectedError",
    ):
        error = getattr(genie, name)
        assert issubclass(error, genie.GenieError)
        assert error is not genie.GenieError
    assert issubclass(genie.RemoteOperatorError, RuntimeError)


def test_statistics(daemon: Daemon) -> None:
    genie.connect(daemon.address)
    with Counted() as counted:
        local = torch.ones(1000)
        (local.to(REMOTE) + 1).cpu()
    assert counted.operators >= 1
    assert counted.round_trips == 1
    assert counted.messages_sent >= 1
    assert counted.messages_received >= 1
    assert 4000 <= counted.bytes_sent < 8000
    assert 4000 <= counted.bytes_received < 8000
    assert counted.plan_hits >= 0
    assert counted.plan_misses >= 0
    assert genie.stats()["transport"] == "tcp"


def test_statistics_without_a_session_do_not_raise() -> None:
    assert isinstance(genie.stats(), dict)


# --- Other processes ------------------------------------------------------------------------

MakeClient = Callable[..., Client]


def test_the_address_in_the_environment(daemon: Daemon, make_client: MakeClient) -> None:
    client = make_client(
        'print("SUM", torch.ones(3, device="remote_accelerator:0").sum().item(), flush=True)',
        GENIE_ADDRESS=daemon.address,
    )
    assert client.expect("SUM") == "3.0"
    client.finish()


def test_importing_torch_alone_knows_the_device(daemon: Daemon, make_client: MakeClient) -> None:
    client = make_client(
        """
        import subprocess
        code = "import torch; print(torch.ones(3, device='remote_accelerator:0').sum().item())"
        print("SUM", subprocess.check_output([sys.executable, "-c", code], text=True), flush=True)
        """,
        GENIE_ADDRESS=daemon.address,
    )
    assert client.expect("SUM") == "3.0"
    client.finish()


def test_an_address_that_nobody_listens_on_fails_at_the_first_use_only(
    make_client: MakeClient,
) -> None:
    client = make_client(
        """
        print("IMPORTED", torch.ones(2).sum().item(), flush=True)
        try:
            torch.ones(2, device="remote_accelerator:0").cpu()
        except genie.ConnectError as error:
            print("REFUSED", error, flush=True)
        """,
        GENIE_ADDRESS=f"tcp://127.0.0.1:{free_port()}",
    )
    client.expect("IMPORTED")
    client.expect("REFUSED")
    client.finish()


def test_import_alone_changes_nothing(make_client: MakeClient) -> None:
    """Not the default device, nor what torch says of the machine's own accelerators."""
    client = make_client(
        """
        assert torch.get_default_device() == torch.device("cpu")
        assert torch.ones(1).device == torch.device("cpu")
        assert not torch.remote_accelerator.is_available()
        import subprocess
        code = "import torch; print(torch.accelerator.is_available(), torch.cuda.is_available())"
        environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
        bare = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
        here = f"{torch.accelerator.is_available()} {torch.cuda.is_available()}"
        print("SAME" if bare.strip() == here else f"OTHER {bare} {here}", flush=True)
        """
    )
    client.expect("SAME")
    client.finish()


def test_another_torch_is_refused_by_the_node(daemon: Daemon, make_client: MakeClient) -> None:
    """The package's own check is deceived, so that the node's is reached."""
    message = told_of_another_torch(make_client, daemon.address)
    assert "2.9.0" in message
    assert "2.11.0" in message


def test_another_torch_is_refused_by_the_package(make_client: MakeClient) -> None:
    client = make_client(
        """
        torch.__version__ = "2.9.0"
        try:
            import genie
        except ImportError as error:
            print("REFUSED", error, flush=True)
        """,
        imports="torch",
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    message = client.expect("REFUSED")
    assert "2.9.0" in message
    assert "2.11.0" in message
    client.finish()


def test_two_clients_at_once_do_not_mix(daemon: Daemon, make_client: MakeClient) -> None:
    code = """
    own = int(os.environ["OWN"])
    total = torch.zeros(4, device="remote_accelerator:0")
    for number in range(200):
        total += own + number
        if number % 10 == 0:
            assert total[0].item() == sum(own + n for n in range(number + 1)), number
    print("TOTAL", total[3].item(), flush=True)
    """
    clients = [make_client(code, address=daemon.address, OWN=str(own)) for own in (1, 1000)]
    for client, own in zip(clients, (1, 1000)):
        assert float(client.expect("TOTAL")) == 200 * own + 19900
        client.finish()
