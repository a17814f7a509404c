"""Runs the examples of the API's docstrings, in a process of its own: ``ADDRESS`` of a node."""

from __future__ import annotations

import doctest
import gc
import sys
from collections.abc import Iterator

import genie
import torch
from genie import remote_accelerator

#: The address that the docstrings name.
SHOWN = "tcp://127.0.0.1:7700"
#: PyTorch's own classes, given on by their names in torch.cuda.
OF_TORCH = {"OutOfMemoryError", "AcceleratorError"}


def documented() -> Iterator[tuple[str, object]]:
    """Every public function and class, by the name that a program has for it."""
    for name in genie.__all__:
        yield f"genie.{name}", getattr(genie, name)
    for name in remote_accelerator.__all__:
        if name not in OF_TORCH:
            yield f"torch.remote_accelerator.{name}", getattr(remote_accelerator, name)


def run(name: str, text: str, address: str) -> int:
    """Runs the examples of one docstring in a session of their own; gives how many failed."""
    made = doctest.DocTestParser().get_doctest(
        text.replace(SHOWN, address), {"genie": genie, "torch": torch}, name, None, None
    )
    if not made.examples[0].source.startswith("genie.connect("):
        genie.connect(address)
    try:
        return doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(made).failed
    finally:
        genie.disconnect()
        # What was compiled keeps its modules.
        torch.compiler.reset()
        gc.collect()


if __name__ == "__main__":
    failed = {name: run(name, str(one.__doc__), sys.argv[1]) for name, one in documented()}
    sys.exit(", ".join(name for name, count in failed.items() if count) or 0)
