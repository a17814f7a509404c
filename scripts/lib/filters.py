"""What `scripts/test FILTER...` is to build and to run. Prints a bash array for each part.

A filter is, in this order: an option for pytest (`-k EXPRESSION`), a crate (`genie-session`, or
its folder `controlplane/session`, or `session`), a Python file or one of its tests (`test_plans`,
`py-frontend/tests/test_plans.py::test_name`), or a part of the names of tests: those Rust crates
and Python files are taken in whose sources have such a test.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

PYTHON_TESTS = Path("py-frontend/tests")
# Their tests start the daemon, and it the executor.
_WITH_PROGRAMS = {"genie-tests", "genie-dataplane", "genie-perf", "genie-executor"}


def crates(root: Path) -> dict[str, Path]:
    """Names and folders of the workspace's crates."""
    # Not by tomllib, which Python 3.10 lacks.
    listed = re.search(r"^members = \[(.*?)\]", (root / "Cargo.toml").read_text(), re.M | re.S)
    found = {}
    for member in re.findall(r'"([^"]+)"', listed[1] if listed else ""):
        manifest = (root / member / "Cargo.toml").read_text()
        name = re.search(r'^name = "([^"]+)"', manifest, re.MULTILINE)
        if name:
            found[name[1]] = Path(member)
    return found


class Selection:
    """What was asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._crates = crates(root)
        self.packages: set[str] = set()
        # Crates of which only some tests are asked, and those.
        self.named: dict[str, set[str]] = {}
        self.binaries: dict[str, set[str]] = {}
        self.python: list[str] = []
        self.unknown: list[str] = []

    def add(self, filters: list[str]) -> None:
        """Takes the filters in."""
        rest = iter(filters)
        for word in rest:
            if word == "-k":
                self.python += ["-k", next(rest, "")]
            elif not (self._crate(word) or self._python_file(word) or self._name(word)):
                self.unknown.append(word)

    def _crate(self, word: str) -> bool:
        folder = Path(word.rstrip("/"))
        for name, place in self._crates.items():
            if word in (name, name.removeprefix("genie-")) or folder == place:
                self.packages.add(name)
                return True
        return False

    def _python_file(self, word: str) -> bool:
        file, *test = word.split("::")
        for path in (Path(file), PYTHON_TESTS / file, PYTHON_TESTS / f"{file}.py"):
            if path.suffix == ".py" and (self._root / path).is_file():
                self.python.append("::".join([str(path), *test]))
                return True
        return False

    def _name(self, word: str) -> bool:
        if not re.fullmatch(r"\w+", word):
            return False
        # The longest folder: crates lie within others.
        folders = sorted(self._crates.items(), key=lambda item: -len(item[1].parts))
        rust = re.compile(
            rf"#\[test\]\s(?:\s*#\[[^\n]*\s)*\s*fn (\w*{word}\w*)\(|fn (\w*{word}\w*)\(.* in "
        )
        found = False
        for _, folder in sorted(set(folders), key=lambda item: item[1]):
            for path in (self._root / folder).rglob("*.rs"):
                inside = path.relative_to(self._root)
                owner = next(name for name, place in folders if inside.is_relative_to(place))
                if self._crates[owner] != folder or "target" in inside.parts:
                    continue
                # A file of tests is a program of its own.
                if (
                    inside == folder / "tests" / f"{word}.rs"
                    or inside.parent == folder / "tests" / word
                ):
                    self.binaries.setdefault(owner, set()).add(word)
                    found = True
                elif rust.search(path.read_text(errors="replace")):
                    self.named.setdefault(owner, set()).add(word)
                    found = True
        python = re.compile(rf"def (test_\w*{word}\w*|test_{word})\(")
        for path in sorted((self._root / PYTHON_TESTS).glob("test_*.py")):
            names = {match[1] for match in python.finditer(path.read_text())}
            self.python += [f"{path.relative_to(self._root)}::{name}" for name in sorted(names)]
            found |= bool(names)
        return found

    def nextest(self) -> list[str]:
        """Arguments of nextest: packages, and which of their tests."""
        every = sorted(self.packages | set(self.named) | set(self.binaries))
        if not every:
            return []
        parts = [f"package({name})" for name in sorted(self.packages)]
        for name, words in sorted(self.named.items()):
            parts += [f"(package({name}) & test({word}))" for word in sorted(words)]
        for name, words in sorted(self.binaries.items()):
            parts += [f"binary_id({name}::{word})" for word in sorted(words)]
        packages = [argument for name in every for argument in ("-p", name)]
        return [*packages, "-E", " + ".join(parts)]

    def builds(self) -> list[str]:
        """Crates whose programs the tests start, and the extension's."""
        wanted = set()
        if self.python:
            wanted |= {"genie-py", "genie-dataplane", "genie-executor", "genie-controlplane-daemon"}
        if (self.packages | set(self.named) | set(self.binaries)) & _WITH_PROGRAMS:
            wanted |= {"genie-dataplane", "genie-executor"}
        return [argument for name in sorted(wanted) for argument in ("-p", name)]


def main(filters: list[str]) -> int:
    """Prints the arrays; gives the exit status."""
    selection = Selection(Path.cwd())
    selection.add(filters)
    if selection.unknown:
        print(f"no crate, file or test is called {', '.join(selection.unknown)}", file=sys.stderr)
        return 2
    python = selection.python
    if python and not any(".py" in word for word in python):
        python = [str(PYTHON_TESTS), *python]
    for name, words in (
        ("rust", selection.nextest()),
        ("python", python),
        ("builds", selection.builds()),
    ):
        print(f"{name}=({' '.join(map(shlex.quote, words))})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
