"""A forked child can't use its parent's session, is told so at once, and disturbs nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from daemon import Daemon
from support import Client

MakeDaemon = Callable[..., Daemon]
MakeClient = Callable[..., Client]

HELPERS = """
import multiprocessing, signal, threading
device = "remote_accelerator:0"

def in_child(body, seconds=20):
    '''Runs body() in a forked child; its exit status, or -14 if it hung.'''
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        status = 3
        try:
            status = body()
        except BaseException as error:
            print("CHILD FAILED", type(error), error, flush=True)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def told(call):
    try:
        call()
    except genie.ForkError as error:
        assert "spawn" in str(error), error
        return True
    except BaseException as error:
        print("NOT TOLD", type(error), error, flush=True)
    return False

x = torch.arange(6.0, device=device, requires_grad=True)
big = torch.ones(1 << 20, device=device).cpu()
idle = genie.stats()["operators"]
"""

ENTRIES = """
from torch.nn.functional import dropout
remote = torch.remote_accelerator
ENTRIES = {
    "ones": lambda: torch.ones(4, device=device),
    "empty": lambda: torch.empty(4, device=device),
    "randn": lambda: torch.randn(4, device=device),
    "to the device": lambda: torch.ones(4).to(device),
    "to the CPU": lambda: x.to("cpu"),
    "cpu": lambda: x.cpu(),
    "item": lambda: x[0].item(),
    "tolist": lambda: x.tolist(),
    "repr": lambda: repr(x),
    "add": lambda: x + 1,
    "a new operator": lambda: torch.special.bessel_j0(x),
    "in place": lambda: x.detach().mul_(2),
    "copy_": lambda: x.detach().copy_(torch.ones(6)),
    "copy_ out": lambda: torch.ones(6).copy_(x.detach()),
    "index": lambda: x[torch.tensor([0, 1])],
    "where": lambda: torch.where(x > 0, x, x),
    "nonzero": lambda: x.nonzero(),
    "fallback": lambda: x.detach().to_mkldnn(),
    "dropout": lambda: dropout(x, 0.5),
    "clone": lambda: x.clone(),
    "resize_": lambda: x.detach().resize_(100),
    "generator": lambda: torch.rand(4, device=device, generator=torch.Generator(device=device)),
    "manual_seed": lambda: remote.manual_seed(1),
    "manual_seed_all": lambda: remote.manual_seed_all(1),
    "get_rng_state": lambda: remote.get_rng_state(),
    "set_rng_state": lambda: remote.set_rng_state(torch.zeros(16, dtype=torch.uint8)),
    "remote.synchronize": lambda: remote.synchronize(),
    "accelerator.synchronize": lambda: torch.accelerator.synchronize(),
    "connect": lambda: genie.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:1"),
    "disconnect": lambda: genie.disconnect(),
    "stats": lambda: genie.stats(),
    "synchronize": lambda: genie.synchronize(),
}
def all_told():
    wrong = [name for name, call in ENTRIES.items() if not told(call)]
    assert not wrong, wrong
    assert not genie.is_connected()
    assert remote._is_in_bad_fork()
    torch.manual_seed(7)        # seeds what is this process's own
    return 0
"""

GOES_ON = """
assert not torch.remote_accelerator._is_in_bad_fork()
assert genie.is_connected()
assert (x * 2).sum().item() == 30.0
print("PARENT goes on", flush=True)
"""


@pytest.fixture
def parent(make_daemon: MakeDaemon, make_client: MakeClient) -> Callable[[str], Client]:
    """Starts a program with a session that forks."""
    node = make_daemon()

    def start(code: str) -> Client:
        return make_client(HELPERS + code + GOES_ON, address=node.address)

    return start


def test_every_entry_says_so(parent: Callable[[str], Client]) -> None:
    client = parent(
        ENTRIES
        + """
print("CHILD", in_child(all_told), flush=True)
assert genie.stats()["operators"] == idle
"""
    )
    assert client.expect("CHILD") == "0", client.output()
    client.expect("PARENT")
    client.finish()


def test_with_threads_in_the_midst_of_everything(parent: Callable[[str], Client]) -> None:
    """Whatever lock a thread of the parent holds when it forks stays held in the child."""
    client = parent(
        ENTRIES
        + """
stop = threading.Event()
def busy(n):
    torch.manual_seed(n)
    while not stop.is_set():
        y = torch.randn(n + 1, device=device)
        for i in range(30):
            y = y * 1.5 + i
        torch.ones(300_000).to(device).cpu()
        y.sum().item()
threads = [threading.Thread(target=busy, args=(n,)) for n in range(3)]
for thread in threads: thread.start()
results = [in_child(all_told) for _ in range(20)]
stop.set()
for thread in threads: thread.join(30)
print("CHILD", set(results), flush=True)
"""
    )
    assert client.expect("CHILD") == "{0}", client.output()
    client.expect("PARENT")
    client.finish()


def test_what_a_child_inherited_goes_quietly(parent: Callable[[str], Client]) -> None:
    """Frees, collections and the ends of programs touch nothing of the parent's."""
    client = parent(
        """
import gc
def forget():
    global x, big
    del x, big
    gc.collect()
    return 0
print("FREES", in_child(forget), flush=True)

child = os.fork()
if child == 0:
    signal.alarm(20)
    sys.exit(0)          # with its exit handlers
print("EXIT", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    )
    assert client.expect("FREES") == "0"
    assert client.expect("EXIT") == "0", client.output()
    client.expect("PARENT")
    client.finish()


def test_multiprocessing(parent: Callable[[str], Client]) -> None:
    client = parent(
        """
context = multiprocessing.get_context("fork")
def run(target):
    child = context.Process(target=target)
    child.start()
    child.join(30)
    return child.exitcode
print("CPU", run(lambda: torch.ones(2).sum()), flush=True)
def uses():
    signal.alarm(20)
    sys.exit(0 if told(lambda: x + 1) else 1)
print("DEVICE", run(uses), flush=True)
"""
    )
    assert client.expect("CPU") == "0"
    assert client.expect("DEVICE") == "0", client.output()
    client.expect("PARENT")
    client.finish()


def test_workers_of_a_data_loader(parent: Callable[[str], Client]) -> None:
    client = parent(
        """
from torch.utils.data import DataLoader, Dataset, TensorDataset

class Plain(Dataset):
    def __len__(self): return 8
    def __getitem__(self, i): return torch.full((3,), float(i)) + torch.rand(3) * 0

class Moves(Plain):
    def __getitem__(self, i): return super().__getitem__(i).to(device)

class Makes(Plain):
    def __getitem__(self, i): return torch.ones(3, device=device)

def loaded(dataset, **options):
    return list(DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork",
                           timeout=30, **options))

batches = [batch.to(device).sum().item() for batch in loaded(Plain())]
print("PLAIN", batches, flush=True)
remote = TensorDataset(torch.arange(24.0, device=device).view(8, 3))
for name, dataset in {"MOVES": Moves(), "MAKES": Makes(), "HOLDS": remote}.items():
    print(name, told(lambda: loaded(dataset)), flush=True)
"""
    )
    assert client.expect("PLAIN") == "[3.0, 15.0, 27.0, 39.0]", client.output()
    for name in ("MOVES", "MAKES", "HOLDS"):
        assert client.expect(name) == "True", client.output()
    client.expect("PARENT")
    client.finish()


def test_a_child_of_a_process_without_a_session_may_connect(
    make_daemon: MakeDaemon, make_client: MakeClient
) -> None:
    node = make_daemon()
    client = make_client(
        f"""
        child = os.fork()
        if child == 0:
            genie.connect({node.address!r})
            good = (torch.ones(3, device="remote_accelerator:0") + 1).sum().item() == 6.0
            genie.disconnect()
            os._exit(0 if good else 1)
        print("CHILD", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        """
    )
    assert client.expect("CHILD") == "0", client.output()
    client.finish()


def test_a_spawned_child_has_a_session_of_its_own(
    make_daemon: MakeDaemon, make_client: MakeClient, tmp_path: Any
) -> None:
    node = make_daemon()
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import multiprocessing, sys, torch, genie
def work():
    genie.connect({node.address!r})
    sys.exit(int((torch.ones(3, device="remote_accelerator:0") + 1).sum().item()))
if __name__ == "__main__":
    genie.connect({node.address!r})
    x = torch.ones(3, device="remote_accelerator:0")
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join(60)
    print("CHILD", child.exitcode, (x + 1).sum().item(), flush=True)
"""
    )
    client = make_client(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')")
    assert client.expect("CHILD") == "6 6.0", client.output()
