"""The catalogue of errors: a page of Markdown each, in ``error_pages``, read when asked for."""

from __future__ import annotations

import pathlib
import re

from .errors import GenieError, page_of

FOLDER = pathlib.Path(__file__).parent / "error_pages"

#: Pages of PyTorch's own errors that come from a node, which end with the name as Genie's do.
OF_TORCH = ("of-pytorch", "out-of-memory")
_POINTER = re.compile(r"\(python -m genie errors ([a-z-]+)\)\Z")


def names() -> list[str]:
    """Every page, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.md"))


def read(name: str) -> str:
    """A page's Markdown. Raises :class:`KeyError` for one that there is not."""
    path = FOLDER / f"{name}.md"
    if name not in names():
        raise KeyError(name)
    return path.read_text(encoding="utf-8")


def summary(name: str) -> str:
    """What a page is about, in a line."""
    return read(name).split("\n\n")[1].replace("\n", " ")


def find(asked: str) -> list[str]:
    """Pages that a name means: a page's own, or all of an exception class's."""
    if asked in names():
        return [asked]
    bare = asked.rpartition(".")[2].lower()
    return [name for name in names() if bare in map(str.lower, classes_of(name))]


def classes_of(name: str) -> list[str]:
    """The exception classes that a page is about, without their modules; the first is its own."""
    return [one.rpartition(".")[2] for one in summary(name).split("`")[1::2]]


def explain_error(error: BaseException) -> str:
    """Give the page of the catalogue that explains ``error``, as Markdown.

    It says what the error means, why it happens, what to try, and what is kept and what is lost.
    ``python -m genie errors`` prints the same pages.

    Raises :class:`LookupError` for an error that is neither Genie's nor one of PyTorch's from a
    node: those end with their page's name.

    >>> print(genie.explain_error(genie.ForkError("forked")).splitlines()[0])
    # fork
    """
    if isinstance(error, GenieError):
        return read(page_of(error))
    found = _POINTER.search(str(error))
    if found is None or found[1] not in OF_TORCH:
        raise LookupError(f"{type(error).__name__} is not an error of Genie's: it has no page")
    return read(found[1])
