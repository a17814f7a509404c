"""What a profile is made of, records, waits and frames: times are seconds since its start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProfiledRecord:
    """Something that the program recorded, and what became of it.

    Times are seconds since the start.

    >>> x = torch.ones(2, device="remote_accelerator:0")
    >>> with genie.profile() as profile:
    ...     y = x + 1
    >>> one = profile.records[-1]
    >>> one.name, one.kind, one.ran > 0
    ('aten::add.Tensor', 'operator', True)
    """

    #: ``aten::add.Tensor``, or its kind.
    name: str
    #: ``operator``, ``synchronous operator``, ``upload``, ``fetch``, ``barrier`` and the like.
    kind: str
    #: The module whose forward recorded it, or whose forward's backward it is.
    module: str
    #: The line of the program, of a backward its forward's.
    line: str
    #: Whether autograd recorded it for a forward.
    is_backward: bool
    #: The device, by its place in ``genie.devices()``.
    device: int
    #: The thread that recorded it, as ``threading.get_native_id()``.
    thread: int
    #: When the backend was called, and when it was in the log.
    began: float
    captured_at: float
    #: When its frame was sent, when it had come to the node, and when the node took it; ``None``
    #: where nobody noted it.
    sent_at: float | None
    came_at: float | None
    taken_at: float | None
    #: When it ran on the node. On a GPU that is its launch.
    ran_from: float | None
    ran_until: float | None
    #: How long the program waited for its answer.
    waited: float

    @property
    def captured(self) -> float:
        """What it took to record it."""
        return self.captured_at - self.began

    @property
    def ran(self) -> float:
        """What it took on the node."""
        if self.ran_from is None or self.ran_until is None:
            return 0.0
        return self.ran_until - self.ran_from


@dataclass(frozen=True)
class ProfiledWait:
    """A thread waited for a node. Times are seconds since the start.

    >>> with genie.profile() as profile:
    ...     torch.ones(2, device="remote_accelerator:0").tolist()
    [1.0, 1.0]
    >>> list(profile.waits[0].parts())
    ['wire', 'queue', 'execution', 'answer']
    """

    #: What for: the record that was asked; ``None`` if there was no room for another record.
    record: ProfiledRecord | None
    device: int
    thread: int
    began: float
    ended: float

    def parts(self) -> dict[str, float]:
        """What was waited for, one after the other, in seconds.

        ``wire``, ``queue``, ``execution`` (of what was recorded before it, too), ``answer``; or
        ``unknown``.
        """
        record, parts, at = self.record, {}, self.began
        if record is None or record.ran_until is None:
            return {"unknown": self.ended - self.began}
        stages = (record.came_at, record.taken_at, record.ran_until, self.ended)
        for name, stage in zip(("wire", "queue", "execution", "answer"), stages, strict=True):
            until = at if stage is None else min(max(at, stage), self.ended)
            parts[name], at = until - at, until
        return parts


@dataclass(frozen=True)
class Frame:
    """Records that were sent together, and when: in seconds since the start."""

    device: int
    #: The number of its first record.
    seq: int
    nbytes: int
    began: float
    sent: float
    #: At the node: its records, its raw bytes, and when the executor took it.
    came: float | None
    landed: float | None
    taken: float | None
