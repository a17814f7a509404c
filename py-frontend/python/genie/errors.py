"""What can go wrong between this program and a node.

Each error has a page that says what it means and what to try: ``python -m genie errors`` lists
them, and the text of an error ends with the command that prints its own.
"""

from __future__ import annotations

from typing import ClassVar


class GenieError(Exception):
    """Base class of all errors of Genie.

    >>> genie.disconnect()
    >>> try:
    ...     genie.connect("tcp://127.0.0.1:1")
    ... except genie.GenieError as error:
    ...     print(type(error).__name__, genie.explain_error(error).splitlines()[0])
    ConnectError # connect-nobody-there
    """

    #: Its page of the catalogue, where its cause has none.
    page: ClassVar[str] = "genie-error"
    #: Pages of causes that have their own, by what the message then says; the first that fits.
    causes: ClassVar[tuple[tuple[str, str], ...]] = ()

    def __str__(self) -> str:
        text = super().__str__()
        # A message of several lines ends with a line of the program's, which stays as it is.
        between = "\n" if "\n" in text else " "
        return f"{text}{between}(python -m genie errors {page_of(self)})"


class ConnectError(GenieError, ConnectionError):
    """No session could be opened: nobody there, or the node refused.

    >>> genie.disconnect()
    >>> genie.connect("tcp://127.0.0.1:1")
    Traceback (most recent call last):
    genie.errors.ConnectError: no node answers at tcp://127.0.0.1:1: ...
    """

    page = "connect-refused"
    causes: ClassVar[tuple[tuple[str, str], ...]] = (
        ("no node answers", "connect-nobody-there"),
        ("certificate is refused", "connect-certificate"),
        ("refuses the certificate", "connect-certificate"),
        ("no session with the node", "connect-tls"),
    )


class VersionMismatchError(ConnectError):
    """The node speaks another protocol, or has another torch.

    >>> issubclass(genie.VersionMismatchError, genie.ConnectError)
    True
    """

    page = "version-mismatch"
    causes = ()


class NotConnectedError(GenieError, ConnectionError):
    """There is no session, and neither GENIE_ADDRESS nor GENIE_CONFIG names a node.

    >>> genie.disconnect()
    >>> torch.ones(2, device="remote_accelerator:0")
    Traceback (most recent call last):
    genie.errors.NotConnectedError: not connected to a node: call genie.connect(...
    """

    page = "not-connected"


class NodeLostError(GenieError, ConnectionError):
    """The session is over: the node went away, or its executor died.

    >>> x = torch.ones(2, device="remote_accelerator:0")
    >>> try:
    ...     result = x.sum().item()
    ... except genie.NodeLostError:
    ...     genie.connect("tcp://127.0.0.1:7700")  # and make the tensors again
    """

    page = "node-lost"
    causes = (("the executor of session", "executor-died"),)


class RemoteOperatorError(GenieError, RuntimeError):
    """An operator failed on the node. The message names it and the line that recorded it.

    >>> x = torch.ones(3, device="remote_accelerator:0")
    >>> x.gather(0, torch.tensor([7]).to("remote_accelerator:0")).cpu()
    Traceback (most recent call last):
    genie.errors.RemoteOperatorError: index 7 is out of bounds for dimension 0 with size 3
    ...
    """

    page = "remote-operator"


class StaleTensorError(GenieError, RuntimeError):
    """A tensor of an earlier session was used; its memory is gone.

    >>> old = torch.ones(2, device="remote_accelerator:0")
    >>> genie.disconnect()
    >>> genie.connect("tcp://127.0.0.1:7700")
    >>> old.cpu()
    Traceback (most recent call last):
    genie.errors.StaleTensorError: this tensor belongs to an earlier session, ...
    """

    page = "stale-tensor"


class ForkError(GenieError, RuntimeError):
    """A forked child used its parent's session. Start it with "spawn" and connect there.

    >>> import multiprocessing
    >>> workers = multiprocessing.get_context("spawn")  # workers.Process, workers.Pool
    """

    page = "fork"


class ProcessGroupError(GenieError, RuntimeError):
    """``torch.distributed`` was asked for remote tensors, for which there is no process group.

    >>> torch.distributed.init_process_group(
    ...     "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    ... )
    >>> torch.distributed.all_reduce(torch.ones(2, device="remote_accelerator:0"))
    Traceback (most recent call last):
    genie.errors.ProcessGroupError: allreduce of remote_accelerator tensors: there is no ...
    >>> torch.distributed.destroy_process_group()
    """

    page = "process-group"


def page_of(error: GenieError) -> str:
    """Name the page of the catalogue that fits ``error`` best."""
    said = " ".join(map(str, error.args))
    return next((page for phrase, page in error.causes if phrase in said), error.page)
