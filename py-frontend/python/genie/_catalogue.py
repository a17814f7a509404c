"""The catalogue of errors: a page of Markdown each, in ``error_pages``, read when asked for."""

from __future__ import annotations

import pathlib

from .errors import GenieError, page_of

FOLDER = pathlib.Path(__file__).parent / "error_pages"

#: PyTorch's own errors that a node raises, whose text therefore names no page.
OF_TORCH = {"OutOfMemoryError": "out-of-memory"}


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
    return [name for name in names() if class_of(name).lower() == bare]


def class_of(name: str) -> str:
    """The exception class that a page is about, without its module."""
    return read(name).split("`")[1].rpartition(".")[2]


def explain_error(error: BaseException) -> str:
    """Give the page of the catalogue that explains ``error``, as Markdown.

    It says what the error means, why it happens, what to try, and what is kept and what is lost.
    ``python -m genie errors`` prints the same pages.

    Raises :class:`LookupError` for an error that is neither Genie's nor one of PyTorch's that has a
    page (``torch.OutOfMemoryError``).

    >>> print(genie.explain_error(genie.ForkError("forked")).splitlines()[0])
    # fork
    """
    if isinstance(error, GenieError):
        return read(page_of(error))
    page = OF_TORCH.get(type(error).__name__)
    if page is None:
        raise LookupError(f"{type(error).__name__} is not an error of Genie's: it has no page")
    return read(page)
