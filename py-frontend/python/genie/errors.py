"""What can go wrong between this program and a node."""


class GenieError(Exception):
    """Base class of all errors of Genie."""


class ConnectError(GenieError, ConnectionError):
    """No session could be opened: nobody there, or the node refused."""


class VersionMismatchError(ConnectError):
    """The node speaks another protocol, or has another torch."""


class NotConnectedError(GenieError, ConnectionError):
    """There is no session, and neither GENIE_ADDRESS nor GENIE_CONFIG names a node."""


class NodeLostError(GenieError, ConnectionError):
    """The session is over: the node went away, or its executor died."""


class RemoteOperatorError(GenieError, RuntimeError):
    """An operator failed on the node. The message names it and the line that recorded it."""


class StaleTensorError(GenieError, RuntimeError):
    """A tensor of an earlier session was used; its memory is gone."""


class ForkError(GenieError, RuntimeError):
    """A forked child used its parent's session. Start it with "spawn" and connect there."""


class ProcessGroupError(GenieError, RuntimeError):
    """``torch.distributed`` was asked for remote tensors, for which there is no process group."""
