"""What can go wrong between this program and a node.

Each error has a page that says what it means and what to try: ``python -m genie errors`` lists
them, and the text of an error ends with the command that prints its own.
"""

from __future__ import annotations

from typing import ClassVar


class GenieError(Exception):
    """Base class of all errors of Genie."""

    #: Its page of the catalogue.
    page: ClassVar[str] = "genie-error"
    #: Pages of causes that have their own, by what the message then says; the first that fits.
    causes: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __str__(self) -> str:
        text = super().__str__()
        # A message of several lines ends with a line of the program's, which stays as it is.
        between = "\n" if "\n" in text else " "
        return f"{text}{between}(python -m genie errors {page_of(self)})"


class ConnectError(GenieError, ConnectionError):
    """No session could be opened: nobody there, or the node refused."""

    page = "connect-refused"
    causes: ClassVar[tuple[tuple[str, str], ...]] = (
        ("no node answers", "connect-nobody-there"),
        ("certificate is refused", "connect-certificate"),
        ("refuses the certificate", "connect-certificate"),
        ("no session with the node", "connect-tls"),
    )


class VersionMismatchError(ConnectError):
    """The node speaks another protocol, or has another torch."""

    page = "version-mismatch"
    causes = ()


class NotConnectedError(GenieError, ConnectionError):
    """There is no session, and neither GENIE_ADDRESS nor GENIE_CONFIG names a node."""

    page = "not-connected"


class NodeLostError(GenieError, ConnectionError):
    """The session is over: the node went away, or its executor died."""

    page = "node-lost"
    causes = (("the executor of session", "executor-died"),)


class RemoteOperatorError(GenieError, RuntimeError):
    """An operator failed on the node. The message names it and the line that recorded it."""

    page = "remote-operator"


class StaleTensorError(GenieError, RuntimeError):
    """A tensor of an earlier session was used; its memory is gone."""

    page = "stale-tensor"


class ForkError(GenieError, RuntimeError):
    """A forked child used its parent's session. Start it with "spawn" and connect there."""

    page = "fork"


class ProcessGroupError(GenieError, RuntimeError):
    """``torch.distributed`` was asked for remote tensors, for which there is no process group."""

    page = "process-group"


def page_of(error: GenieError) -> str:
    """Name the page of the catalogue that fits ``error`` best."""
    said = " ".join(map(str, error.args))
    return next((page for phrase, page in error.causes if phrase in said), error.page)
