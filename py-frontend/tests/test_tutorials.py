"""The tutorials: their code runs, in order, against a node, and prints what they show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import genie
import pytest
from daemon import ROOT, Daemon

FOLDER = Path(__file__).parents[1] / "tutorials"
NAMES = ["first_program", "training_with_checkpoints", "serving_a_model"]
#: The address that the pages name.
SHOWN = "tcp://127.0.0.1:7700"

# Runs blocks, one after the other, in a module of their own; tells what each printed.
RUNNER = """
import contextlib, io, json, linecache, sys
blocks = json.load(sys.stdin)
module, printed = {"__name__": "__main__"}, []
for at, block in enumerate(blocks):
    name, out = f"<block {at + 1}>", io.StringIO()
    linecache.cache[name] = (len(block), None, block.splitlines(True), name)
    with contextlib.redirect_stdout(out):
        exec(compile(block, name, "exec"), module)
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text()


def blocks_of(text: str) -> list[tuple[str, str]]:
    """Blocks of Python, each with what the page says that it prints."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert {kind for kind, _ in found} <= {"python", "text", "sh"}
    pairs: list[tuple[str, str]] = []
    for at, (kind, body) in enumerate(found):
        if kind == "python":
            after = found[at + 1] if at + 1 < len(found) else ("", "")
            pairs.append((body, after[1] if after[0] == "text" else ""))
    return pairs


def run(blocks: list[str], node: Daemon, folder: Path) -> list[str]:
    """Runs blocks in a process of their own; gives what each printed, as the pages show it."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([block.replace(SHOWN, node.address) for block in blocks]),
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("GENIE_")},
    )
    assert done.returncode == 0, done.stderr
    return [text.replace(node.address, SHOWN) for text in json.loads(done.stdout)]


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_prints_what_it_shows(name: str, daemon: Daemon, tmp_path: Path) -> None:
    blocks = blocks_of(page(name))
    printed = run([code for code, _ in blocks], daemon, tmp_path)
    assert printed == [expected for _, expected in blocks]


# What takes the node away under a program, and starts another one at its address.
RESTART = f"""
import pathlib, signal, sys
sys.path.append({str(ROOT / "scripts" / "lib")!r})
from daemon import Daemon
node = Daemon(log=pathlib.Path("second.log"))
def stop():
    os.kill(PID, signal.SIGKILL)
def start():
    node.start_on(PORT)
"""


def restarting(node: Daemon) -> str:
    return f"import os\nPID, PORT = {node.pid}, {node.port}\n{RESTART}"


def test_training_goes_on_after_a_node_that_is_killed(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    node = make_daemon()
    code = [code for code, _ in blocks_of(page(NAMES[1]))]
    more = """
import threading
trained = threading.Event()
def kill():
    saved = os.stat("last.pt").st_mtime_ns
    while os.stat("last.pt").st_mtime_ns == saved:
        time.sleep(0.005)
    stop()
    start()
    # A node ends with the thread that started it.
    trained.wait(60)
    node.stop()
genie.disconnect()
killer = threading.Thread(target=kill)
killer.start()
train_to_the_end("tcp://127.0.0.1:7700", 2000)
trained.set()
killer.join()
"""
    said = run([*code, restarting(node), more], node, tmp_path)[-1]
    assert "again: the node at" in said
    assert "step 2000: loss" in said


def test_the_server_goes_on_after_a_node_that_is_killed(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    node = make_daemon()
    code = [code for code, _ in blocks_of(page(NAMES[2]))]
    more = """
import urllib.error
stop()
for _ in range(2):
    try:
        ask(rows)
    except urllib.error.HTTPError as error:
        print(error.code)
start()
print(torch.allclose(ask(rows), expected, atol=1e-5))
node.stop()
"""
    said = run([*code, restarting(node), more], node, tmp_path)[-1]
    assert said == "503\n503\nTrue\n"


def test_a_request_of_another_size_is_the_same_structure(daemon: Daemon, tmp_path: Path) -> None:
    code = [code for code, _ in blocks_of(page(NAMES[2]))]
    more = """
import time
while not genie.stats()["plan_hits"]:
    classify(rows)
    time.sleep(0.01)
before = genie.stats()["plan_hits"]
for count in range(1, 21):
    classify(rows[:1] * count)
print(genie.stats()["plan_hits"] - before)
"""
    assert run([*code, more], daemon, tmp_path)[-1] == "20\n"


def test_each_page_is_tested_and_its_links_lead_somewhere() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(NAMES)
    for name in NAMES:
        for link in re.findall(r"\]\(([^)#]+)\)", page(name)):
            assert (FOLDER / link).exists(), link
        for mentioned in re.findall(r"\bgenie\.([a-zA-Z_]+)\b", page(name)):
            assert hasattr(genie, mentioned), mentioned


def test_the_node_is_started_as_the_readme_says() -> None:
    command = "target/release/genie-dataplane --device host:0"
    assert command in page("first_program")
    assert command in (ROOT / "README.md").read_text()
