"""Each error names a page, and each page shows what really is said when its cause comes about."""

from __future__ import annotations

import builtins
import importlib.metadata
import os
import pickle
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import genie
import pytest
import torch
from daemon import Daemon, free_port
from genie import _catalogue, errors
from support import (
    REMOTE,
    Client,
    client_files,
    make_certificates,
    tls_arguments,
    told_of_another_torch,
)

MakeDaemon = Callable[..., Daemon]
MakeClient = Callable[..., Client]

SECTIONS = [
    "What you see",
    "What it means",
    "Why it happens",
    "What to try",
    "What is kept, and what is lost",
]
CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.GenieError)
]
#: Of all classes and causes, and of PyTorch's errors.
NAMED = {
    *(error.page for error in CLASSES),
    *(page for error in CLASSES for _, page in error.causes),
    *_catalogue.OF_TORCH,
}


def example_of(page: str) -> str:
    """The message that a page shows."""
    block = re.search(r"## What you see\n\n((?:    .*\n)+)", _catalogue.read(page))
    assert block, f"{page} shows no message"
    return textwrap.dedent(block[1]).rstrip()


def bare(message: str) -> str:
    """A message without what differs from run to run."""
    message = re.sub(r'File "[^"]*"', "File", message)
    message = re.sub(r", in \S+$", "", message, flags=re.MULTILINE)
    # As the system said it, which of several things depends on the moment.
    message = re.sub(r"was lost: .*?\. Tensors", "was lost: why. Tensors", message)
    message = re.sub(
        r"(the executor of session \d+) .*?, somewhere", r"\1 died, somewhere", message
    )
    return re.sub(r"\d+", "N", message)


def check(page: str, error: BaseException) -> None:
    """The error names this page, which shows its message."""
    pointer = f"(python -m genie errors {page})"
    said = str(error)
    assert said.endswith(pointer), said
    said = said.removesuffix(pointer).rstrip()
    assert bare(example_of(page)) == bare(said)
    assert genie.explain_error(error) == _catalogue.read(page)


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


# --- The pages ------------------------------------------------------------------------------


def test_every_class_has_a_page_and_every_page_a_class() -> None:
    assert set(_catalogue.names()) == NAMED
    own = [error.page for error in CLASSES]
    assert len(set(own)) == len(own), "two classes share a page"
    for error in CLASSES:
        assert _catalogue.classes_of(error.page)[0] == error.__name__
        assert error.__name__ in genie.__all__


@pytest.mark.parametrize("page", sorted(NAMED))
def test_a_page_is_complete(page: str) -> None:
    text = _catalogue.read(page)
    assert text.splitlines()[0] == f"# {page}"
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    for part in re.split(r"^## .*$", text, flags=re.MULTILINE):
        assert part.strip()
    modules = {"genie": genie, "torch": torch, "torch.linalg": torch.linalg, "builtins": builtins}
    classes = [one for one in text.split("\n\n")[1].split("`")[1::2] if one.endswith("Error")]
    assert classes[0] == text.split("`")[1]
    for qualified in classes:
        module, _, name = qualified.rpartition(".")
        assert isinstance(getattr(modules[module], name), type)
    for mentioned in re.findall(r"\bgenie\.([a-zA-Z_]+)\b", text):
        assert hasattr(genie, mentioned), mentioned
    for error in re.findall(r"\b[A-Z]\w+Error\b", text):
        known = (genie, torch, torch.linalg, builtins)
        assert any(hasattr(module, error) for module in known), error


def test_pages_are_installed() -> None:
    assert Path(genie.__file__).parent == _catalogue.FOLDER.parent
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '"error_pages/*.md"' in text
    assert importlib.metadata.version("genie") == genie.__version__


def test_the_text_survives_a_way_through_another_process() -> None:
    for error in CLASSES:
        made = error("first line")
        again = pickle.loads(pickle.dumps(made))
        assert str(again) == str(made) == f"first line (python -m genie errors {error.page})"
        assert again.args == ("first line",)
    assert str(genie.RemoteOperatorError("a\n  b")).splitlines()[1] == "  b"


def test_an_error_without_a_page() -> None:
    with pytest.raises(LookupError, match="ZeroDivisionError"):
        genie.explain_error(ZeroDivisionError())
    with pytest.raises(KeyError):
        _catalogue.read("../errors")


# --- Their causes ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def disconnected() -> Iterator[None]:
    yield
    genie.disconnect()


def test_nobody_there() -> None:
    check("connect-nobody-there", raised(lambda: genie.connect(f"127.0.0.1:{free_port()}")))


def test_not_connected() -> None:
    check("not-connected", raised(lambda: torch.ones(2, device=REMOTE)))


def test_a_full_node(make_daemon: MakeDaemon, make_client: MakeClient) -> None:
    node = make_daemon("--sessions", "1")
    client = make_client("print('IN', flush=True); sys.stdin.read()", address=node.address)
    client.expect("IN")
    check("connect-refused", raised(lambda: genie.connect(node.address)))


def test_tls(make_daemon: MakeDaemon, certificates: Path, tmp_path: Path) -> None:
    node = make_daemon(*tls_arguments(certificates))
    check("connect-tls", raised(lambda: genie.connect(node.address)))
    others = client_files(make_certificates(tmp_path / "other"))
    check("connect-certificate", raised(lambda: genie.connect(node.address, **others)))
    unknown = {**others, "ca": str(certificates / "ca.pem")}
    told = raised(lambda: genie.connect(node.address, **unknown))
    assert str(told).endswith("errors connect-certificate)")
    assert "it refuses the certificate that was shown" in str(told)
    in_clear = raised(lambda: genie.connect(make_daemon().address, **others))
    assert str(in_clear).endswith("errors connect-tls)")
    assert "it does not speak TLS" in str(in_clear)


def test_another_torch(daemon: Daemon, make_client: MakeClient) -> None:
    told = told_of_another_torch(make_client, daemon.address)
    check("version-mismatch", genie.VersionMismatchError(told))


def test_operators_and_memory(make_daemon: MakeDaemon) -> None:
    genie.connect(make_daemon("--memory", "64MiB").address)
    out = torch.tensor([7])
    failed = raised(lambda: torch.ones(3, device=REMOTE).gather(0, out.to(REMOTE)).cpu())
    check("remote-operator", failed)
    check("out-of-memory", raised(lambda: torch.zeros(64 << 20, device=REMOTE).sum().item()))


def test_errors_of_pytorch_from_a_node(daemon: Daemon) -> None:
    genie.connect(daemon.address)
    table = torch.zeros(4, device=REMOTE)
    found = raised(lambda: table[torch.tensor([9], device=REMOTE)].cpu())
    assert isinstance(found, IndexError)
    check("of-pytorch", found)
    assert "of-pytorch" in _catalogue.find("IndexError")
    singular = raised(lambda: torch.linalg.inv(torch.zeros(3, 3, device=REMOTE)).cpu())
    assert isinstance(singular, torch.linalg.LinAlgError)
    assert genie.explain_error(singular) == _catalogue.read("of-pytorch")
    # What is known here is told in PyTorch's words alone.
    for call in (lambda: table + torch.zeros(3, device=REMOTE), lambda: table.view(3)):
        assert "genie" not in str(raised(call))


def test_the_end_of_sessions(make_daemon: MakeDaemon) -> None:
    node = make_daemon()
    genie.connect(node.address)
    old = torch.ones(3, device=REMOTE)
    assert old.sum().item() == 3
    (executor,) = node.executors()
    os.kill(executor, 9)
    check("executor-died", raised(lambda: (old + 1).cpu()))

    genie.disconnect()
    genie.connect(node.address)
    check("stale-tensor", raised(old.cpu))
    check("stale-tensor", raised(lambda: genie.where(old)))

    kept = torch.ones(3, device=REMOTE)
    assert kept.sum().item() == 3
    node.kill()
    check("node-lost", raised(lambda: [(kept + 1).sum().item() for _ in range(1000)]))


def test_fork(daemon: Daemon, make_client: MakeClient) -> None:
    client = make_client(
        """
        torch.ones(2, device="remote_accelerator:0").sum().item()
        if (child := os.fork()) == 0:
            try:
                torch.ones(2, device="remote_accelerator:0")
            except genie.ForkError as error:
                print("TOLD", error.args[0], flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        """,
        address=daemon.address,
    )
    check("fork", genie.ForkError(client.expect("TOLD")))
    client.finish()


def test_a_process_group(session: Daemon) -> None:
    where = f"tcp://127.0.0.1:{free_port()}"
    torch.distributed.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    try:
        tensor = torch.ones(2, device=REMOTE)
        check("process-group", raised(lambda: torch.distributed.all_reduce(tensor)))
    finally:
        torch.distributed.destroy_process_group()
