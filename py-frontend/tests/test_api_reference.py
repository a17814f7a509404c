"""Every public name has a docstring with an example, the examples are right, API.md has them."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import api_examples
from api_examples import documented
from daemon import Daemon

PAGE = Path(__file__).parents[1] / "API.md"
HEAD = """# API

Generated from the docstrings by
`REGENERATE=1 python -m pytest py-frontend/tests/test_api_reference.py -k page`. The examples are
tests. Where they do not connect themselves, they follow

```python
import torch, genie

genie.connect("tcp://127.0.0.1:7700")
```

`torch.remote_accelerator` has what `torch.cuda` has and means something here
([what it does not have, and why](DEVICE_MODULE.md)). Type checkers see the same functions as
`genie.remote_accelerator`. `DeviceLike` is a `torch.device`, a string, an index, or `None` for the
current one; where nothing else is said, one that the session does not have raises
`torch.AcceleratorError`. Sizes are in bytes. What an error means: `python -m genie errors`.
"""


def signature(one: Any) -> str:
    """Parameters and what comes back, as they are written."""
    if inspect.isclass(one) and (dataclasses.is_dataclass(one) or issubclass(one, Exception)):
        return ""
    maker = one.__dict__.get("__new__", one) if inspect.isclass(one) else one
    found = inspect.signature(maker)
    shown, keywords = [], False
    for name, parameter in found.parameters.items():
        if name == "cls":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            keywords = True
            shown.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        shown.append(f"{name}: {parameter.annotation}{default}")
    returns = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
    return f"({', '.join(shown)}){'' if inspect.isclass(one) else returns}"


def fields(one: Any) -> str:
    """The fields of a dataclass, with the comments in its source."""
    if not dataclasses.is_dataclass(one):
        return ""
    source = textwrap.dedent(inspect.getsource(one))
    rows = re.findall(r"((?:    #: .*\n)*)    (\w+): ([^=\n]+?)(?: = .*)?\n", source + "\n")
    lines = [
        f"- `{name}: {kind}`: {' '.join(re.findall(r'#: (.*)', comment))}".rstrip(": ")
        for comment, name, kind in rows
    ]
    return "\n".join(lines).replace("``", "`")


def markdown(one: Any) -> str:
    """A docstring as Markdown."""
    text = inspect.cleandoc(one.__doc__)
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text)
    prose = text.replace("``", "`")
    parts = []
    for part in prose.split("\n\n"):
        parts.append(f"```python\n{part}\n```" if part.startswith(">>>") else part)
    described = fields(one)
    if described:
        parts.insert(-1, described)
    return "\n\n".join(parts)


def page() -> str:
    parts, module = [HEAD.rstrip()], ""
    for name, one in documented():
        owner = name.rpartition(".")[0]
        if owner != module:
            module = owner
            parts.append(f"## {module}")
        parts.append(f"### {name}")
        shown = signature(one)
        if shown:
            parts.append(f"`{name.rpartition('.')[2]}{shown}`")
        elif issubclass(one, Exception):
            bases = ", ".join(f"`{base.__name__}`" for base in one.__bases__)
            parts.append(f"A class, of {bases}.")
        parts.append(markdown(one))
    return "\n\n".join(parts) + "\n"


def test_every_public_name_has_a_docstring_with_an_example() -> None:
    missing = [name for name, one in documented() if ">>> " not in (one.__doc__ or "")]
    assert not missing


def test_the_page_is_what_the_docstrings_say() -> None:
    text = page()
    if os.environ.get("REGENERATE"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text


def test_the_examples_are_right(daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, api_examples.__file__, daemon.address],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env={key: value for key, value in os.environ.items() if not key.startswith("GENIE_")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
