"""What an executor can do that runs a client's own code: nothing to the machine or to others.

`hostile.c` is loaded into the node's executors and makes, in the middle of an operator, the call
that the operator's arguments name.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from daemon import BINARY, Daemon
from support import REMOTE, Client, make_certificates, tls_arguments, wait_until

MAGIC = 31337.0
BIAS = 10**15
# Of `hostile.c`.
OPEN_FILE, OPEN_ENVIRONMENT, SECRETS, USER, PARENT = range(2, 7)
BASE, ABORT, OPEN_MEMORY, OPEN_RANDOM, IGNORE = range(7, 12)
# Of x86-64, which is what the tests run on.
CALLS = {
    "kill": 62,
    "ptrace": 101,
    "socket": 41,
    "connect": 42,
    "execve": 59,
    "fork": 57,
    "clone": 56,
    "unshare": 272,
    "mount": 165,
    "process_vm_readv": 310,
    "io_uring_setup": 425,
    "bpf": 321,
    "perf_event_open": 298,
    "memfd_create": 319,
    "shmget": 29,
    "setuid": 105,
    "keyctl": 250,
}
CLONE3 = 435
# The promise: from connecting to the first result, also of a tenant that is new to the node.
FIRST_RESULT_SECONDS_MAX = 0.05
PARTS = {
    "environment",
    "user",
    "capabilities",
    "privileges",
    "files",
    "network",
    "ipc",
    "processes",
    "calls",
}

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of calls")


@pytest.fixture(scope="module")
def hostile() -> Iterator[dict[str, str]]:
    """The environment of a node whose executors do what they are asked."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    with tempfile.TemporaryDirectory(prefix="genie-hostile-") as folder:
        # For a node of another user, too.
        Path(folder).chmod(0o755)
        library = Path(folder) / "hostile.so"
        source = Path(__file__).with_name("hostile.c")
        flags = ["-O1", "-shared", "-fPIC", "-fno-builtin", "-Wall", "-Werror"]
        command = [compiler, *flags, "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        yield {"LD_PRELOAD": str(library), "GENIE_TEST_SECRET": "SECRET", "AWS_TOKEN": "SECRET"}


@pytest.fixture(scope="module")
def node(hostile: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Such a node."""
    with Daemon(log=tmp_path_factory.mktemp("node") / "node.log", env=hostile) as running:
        yield running


@pytest.fixture
def session(node: Daemon) -> Iterator[Daemon]:
    """This process connected to it."""
    genie.connect(node.address)
    yield node
    genie.disconnect()


def act(code: int) -> int:
    """What the executor's call gave."""
    base = torch.tensor([MAGIC], dtype=torch.float64).to(REMOTE)
    code_there = torch.tensor([float(code)], dtype=torch.float64).to(REMOTE)
    return round(torch.special.zeta(code_there, base).cpu().item()) - BIAS


def has(node: Daemon, part: str) -> bool:
    """Whether this machine's kernel has what it takes."""
    return any(held["name"] == part and held["in_force"] for held in node.status()["sandbox"])


def test_the_status_says_what_was_had(node: Daemon) -> None:
    """Each part, yes or no, with what it is; in the metrics and the log too."""
    held = {part["name"]: part for part in node.status()["sandbox"]}
    assert set(held) == PARTS
    assert all(part["note"] for part in held.values())
    assert "speculation barriers" in held["calls"]["note"]
    for name, part in held.items():
        assert node.metric(f'genie_sandbox{{part="{name}"}}') == int(part["in_force"])
    text = subprocess.run(
        [str(BINARY), "status", node.host_port], capture_output=True, text=True, check=True
    ).stdout
    assert "calls yes: " in text
    assert "sandbox: environment (" in node.log()
    missing = [name for name, part in held.items() if not part["in_force"]]
    assert node.log().count("held in less than they could be") == int(bool(missing))


def test_files_and_the_environment_are_out_of_reach(session: Daemon) -> None:
    """Those of the machine, of the daemon and of other sessions."""
    gone = {errno.ENOENT, errno.EACCES, errno.EPERM}
    for code in (OPEN_FILE, OPEN_ENVIRONMENT, OPEN_MEMORY):
        assert act(code) in gone, code
    # Random numbers without a seed need it.
    assert act(OPEN_RANDOM) == 0
    assert act(SECRETS) == 0


def test_it_is_nobody_and_alone(session: Daemon) -> None:
    """Not the daemon's user, where that is root; no process to see."""
    if os.geteuid() == 0:
        assert act(USER) not in (0, os.getuid())
    if has(session, "processes"):
        assert act(PARENT) == 0


def test_a_kernel_without_clone3_is_what_it_sees(session: Daemon) -> None:
    """Its libc then starts threads by clone."""
    assert act(1000 + CLONE3) == errno.ENOSYS


@pytest.mark.parametrize("name", CALLS)
def test_a_forbidden_call_ends_the_session_and_is_named(node: Daemon, name: str) -> None:
    """In the session's error and in the log; another session notices nothing."""
    before = node.metric("genie_executors_forbidden_total")
    genie.connect(node.address)
    try:
        with pytest.raises(genie.GenieError, match=rf"forbidden to it: {name}\b"):
            act(1000 + CALLS[name])
    finally:
        genie.disconnect()
    # The client may hear it first.
    wait_until(
        lambda: node.metric("genie_executors_forbidden_total") == before + 1, 5, "it is counted"
    )
    wait_until(lambda: f"forbidden to it: {name}" in node.log(), 5, "it is logged")
    genie.connect(node.address)
    assert torch.ones(3).to(REMOTE).sum().item() == 3
    genie.disconnect()


def test_the_handler_of_forbidden_calls_stays(node: Daemon) -> None:
    """Nobody talks an executor out of ending."""
    genie.connect(node.address)
    with pytest.raises(genie.GenieError, match="forbidden to it: rt_sigaction"):
        act(IGNORE)
    genie.disconnect()


def test_an_abort_is_called_one(node: Daemon) -> None:
    """The first process of a namespace can't signal itself."""
    genie.connect(node.address)
    with pytest.raises(genie.GenieError, match="an abort"):
        act(ABORT)
    genie.disconnect()


def test_without_a_sandbox_nothing_holds(
    hostile: dict[str, str], make_daemon: Callable[..., Any]
) -> None:
    """`sandbox = "off"` is said. The same code then gets through: the above tests something."""
    node = make_daemon("--sandbox", "off", env=hostile)
    assert "sandbox: off" in node.log()
    assert not has(node, "files")
    genie.connect(node.address)
    assert act(OPEN_FILE) == 0
    assert act(OPEN_ENVIRONMENT) == 0
    # What costs nothing is so all the same.
    assert act(SECRETS) == 0
    assert act(1000 + CALLS["socket"]) == errno.EAFNOSUPPORT
    genie.disconnect()


def test_an_ordinary_user_holds_executors_in_too(
    hostile: dict[str, str], make_daemon: Callable[..., Any], tmp_path: Path
) -> None:
    """By user namespaces, where there are any; else by what needs no right."""
    if os.geteuid() != 0:
        pytest.skip("it takes root to be somebody else")
    if not _may_run(BINARY):
        pytest.skip("the checkout is not for other users")
    tmp_path.chmod(0o777)
    before = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    node = make_daemon(env=hostile, before=before)
    for part in ("environment", "capabilities", "privileges", "files", "calls"):
        assert has(node, part), node.status()["sandbox"]
    genie.connect(node.address)
    assert act(OPEN_FILE) in (errno.ENOENT, errno.EACCES)
    assert act(SECRETS) == 0
    with pytest.raises(genie.GenieError, match="forbidden to it: socket"):
        act(1000 + CALLS["socket"])
    genie.disconnect()


def test_a_container_without_namespaces_gives_less_and_it_is_said(
    hostile: dict[str, str], make_daemon: Callable[..., Any]
) -> None:
    """Neither a right nor a user namespace: what is left takes none, and still nothing gets out."""
    script = (
        "echo 0 > /proc/sys/user/max_user_namespaces && "
        'exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
    )
    before = ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")
    tried = subprocess.run([*before, "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no such container here: {tried.stderr.decode()}")
    node = make_daemon(env=hostile, before=before)
    assert not has(node, "user")
    for part in ("environment", "capabilities", "privileges", "calls"):
        assert has(node, part), node.status()["sandbox"]
    assert node.log().count("held in less than they could be: no user (") == 1
    genie.connect(node.address)
    assert act(OPEN_FILE) in (errno.ENOENT, errno.EACCES)
    assert act(OPEN_ENVIRONMENT) in (errno.ENOENT, errno.EACCES)
    assert torch.randn(64, 64).to(REMOTE).exp().sum().isfinite().item()
    with pytest.raises(genie.GenieError, match="forbidden to it: socket"):
        act(1000 + CALLS["socket"])
    genie.disconnect()


def _may_run(program: Path) -> bool:
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    done = subprocess.run([*command, str(program), "--version"], capture_output=True, check=False)
    return done.returncode == 0


# --- Address layouts ------------------------------------------------------------------------


def certify(folder: Path, name: str, tenant: str) -> dict[str, str]:
    """A certificate of the node's authority for a client of `tenant`, as connect's arguments."""
    key, request, made = (folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", f"/O={tenant}/CN={name}", "-keyout", str(key), "-out", str(request)]
    authority = ["-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key")]
    # Without an extension it would be of the first version of certificates.
    (folder / "extensions").write_text("basicConstraints=CA:FALSE\n")
    signed = ["-CAcreateserial", "-days", "1", "-in", str(request), "-out", str(made)]
    signed += ["-extfile", str(folder / "extensions")]
    for command in (["req", *curve, *subject], ["x509", "-req", *authority, *signed]):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return {"ca": str(folder / "ca.pem"), "cert": str(made), "key": str(key)}


def test_each_tenant_has_a_layout_of_its_own(
    hostile: dict[str, str], make_daemon: Callable[..., Any], tmp_path: Path
) -> None:
    """Elsewhere lies libtorch for another tenant, and at the same place for the same."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = make_certificates(tmp_path / "certs")
    node = make_daemon(*tls_arguments(folder), env=hostile)
    who = {
        name: certify(folder, name, tenant)
        for name, tenant in (("ann", "red"), ("bob", "blue"), ("cid", "red"))
    }
    bases = {}
    for name, files in who.items():
        genie.connect(node.address, **files)
        bases[name] = act(BASE)
        genie.disconnect()
    assert bases["ann"] == bases["cid"]
    assert bases["ann"] != bases["bob"]
    # Two tenants', and one in advance.
    wait_until(lambda: len(node.zygotes()) == 3, 10, "a zygote in advance")


def test_a_new_tenant_waits_for_no_zygote(make_daemon: Callable[..., Any], tmp_path: Path) -> None:
    """Its first result comes as fast as anybody's: one zygote is there in advance."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = make_certificates(tmp_path / "certs")
    node = make_daemon(*tls_arguments(folder))
    took = []
    for turn in range(5):
        files = certify(folder, f"client{turn}", f"tenant{turn}")
        wait_until(lambda: len(node.zygotes()) > turn, 20, "a zygote in advance")  # noqa: B023
        time.sleep(0.5)
        start = time.perf_counter()
        genie.connect(node.address, **files)
        assert torch.ones(4).to(REMOTE).sum().item() == 4
        took.append(time.perf_counter() - start)
        genie.disconnect()
    # The best one: what else runs on the machine is not the node's.
    assert min(took) < FIRST_RESULT_SECONDS_MAX, took


def test_five_crashes_replace_the_zygote(
    hostile: dict[str, str], make_daemon: Callable[..., Any], make_client: Callable[..., Client]
) -> None:
    """Who crashes executors may be guessing addresses: the next ones are others. Others go on."""
    node = make_daemon(env=hostile)
    bystander = make_client(
        """
        x = torch.ones(4).to("remote_accelerator:0")
        print("sum", x.sum().item())
        sys.stdin.readline()
        print("again", x.sum().item())
        """,
        address=node.address,
    )
    bystander.expect("sum 4")
    before = node.zygotes()
    assert len(before) == 1
    for _ in range(5):
        genie.connect(node.address)
        layout = act(BASE)
        with pytest.raises(genie.GenieError):
            act(ABORT)
        genie.disconnect()
    wait_until(lambda: node.metric("genie_zygotes_replaced_total") == 1, 10, "replaced")
    assert "it is replaced" in node.log()
    genie.connect(node.address)
    assert act(BASE) != layout
    genie.disconnect()
    bystander.tell("go on")
    bystander.expect("again 4")
    bystander.finish()
    # The old one goes with its last session.
    wait_until(lambda: not set(before) & set(node.zygotes()), 20, "the old zygote is gone")


def test_sessions_of_one_tenant_share_pages(
    make_daemon: Callable[..., Any], make_client: Callable[..., Client]
) -> None:
    """Of some tens of megabytes of relocated libtorch each has a few of its own."""
    node = make_daemon()
    clients = [
        make_client(
            """
            x = torch.ones(4).to("remote_accelerator:0")
            print("sum", x.sum().item())
            sys.stdin.readline()
            """,
            address=node.address,
        )
        for _ in range(2)
    ]
    for client in clients:
        client.expect("sum 4")
    executors = node.executors()
    assert len(executors) == 2
    for pid in executors:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        own = kilobytes["Private_Dirty"] + kilobytes["Private_Clean"]
        assert own < 16 << 10, kilobytes
        assert kilobytes["Rss"] > 2 * own
