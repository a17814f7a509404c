"""What takes how long: ``with genie.profile("trace.json"):``.

The backend notes when it captured, sent and waited, and nodes when frames came and records ran;
this puts the two on one clock and tells of them as a table and as a trace.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import genie

from . import _annotate, _native, _profile_table, _profile_trace
from ._module_paths import ModuleCall, ModulePaths
from ._profiled import Frame, ProfiledRecord, ProfiledWait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Profile:
    """What a block took, and where: made by :func:`genie.profile`.

    >>> with genie.profile() as profile:
    ...     torch.ones(2, device="remote_accelerator:0").tolist()
    [1.0, 1.0]
    >>> [one.name for one in profile.records]
    ['aten::ones', 'fetch']
    """

    def __init__(
        self, path: str | PathLike[str] | None, site: str, *, is_whole: bool = False
    ) -> None:
        self._path = None if path is None else Path(path)
        self._is_whole = is_whole
        # Records whole, and which of `records` each captured one became: for `genie.explain`.
        self._transcript: Any = None
        self._of_captured: list[int] = []
        self._site = site
        self._modules: ModulePaths | None = None
        #: What was recorded, in order.
        self.records: list[ProfiledRecord] = []
        #: Where the program waited, in order.
        self.waits: list[ProfiledWait] = []
        #: Calls of modules, in the order of their ends.
        self.calls: list[ModuleCall] = []
        #: From the first to the last moment, in seconds.
        self.duration = 0.0
        #: What could not be kept: a profile has room for a million entries of each kind.
        self.dropped = 0
        #: How far apart the clocks of this machine and a device's node may be taken, at most.
        self.clock_error: dict[int, float] = {}
        self._frames: list[Frame] = []
        self._threads: dict[int, str] = {}
        self._owner = 0

    def __enter__(self) -> Profile:
        # Connects where the environment names nodes.
        torch.ops.genie.device_count()
        _native.profile_start(self._is_whole)
        self._owner = threading.get_native_id()
        self._modules = ModulePaths(None, self._site, self.calls)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._modules is not None:
            self._modules.remove()
        try:
            noted = _native.profile_stop()
        except Exception:
            # What ended the block says more.
            if error is None:
                raise
            return
        self._threads = {
            thread.native_id: thread.name
            for thread in threading.enumerate()
            if thread.native_id is not None
        }
        _Reader(noted, self).read()
        if self._path is not None:
            self.export(self._path)

    def summary(self) -> dict[str, float]:
        """Tell where the time went, in seconds.

        Of the thread that profiled: ``python`` (the program's own), ``capture``, and its waits by
        what they were for: ``wire``, ``queue``, ``execution``, ``answer``, ``unknown`` (room).
        These are all of ``duration``. ``nodes`` is what all devices ran.

        >>> with genie.profile() as profile:
        ...     torch.ones(2, device="remote_accelerator:0").tolist()
        [1.0, 1.0]
        >>> 0 < profile.summary()["execution"] < profile.summary()["duration"]
        True
        """
        parts = dict.fromkeys(("wire", "queue", "execution", "answer", "unknown"), 0.0)
        mine = [wait for wait in self.waits if wait.thread == self._owner]
        for wait in mine:
            for name, seconds in wait.parts().items():
                parts[name] += seconds
        recorded = [
            (one.began, one.captured_at) for one in self.records if one.thread == self._owner
        ]
        waited = [(wait.began, wait.ended) for wait in mine]
        # A wait for room lies within what is captured.
        busy = _union([*recorded, *waited])
        capture = busy - sum(parts.values())
        return {
            "duration": self.duration,
            "python": self.duration - busy,
            "capture": capture,
            **parts,
            "nodes": sum(one.ran for one in self.records),
        }

    def table(self, by: str = "operator", limit: int = 20) -> str:
        """Lay out what took longest, by ``operator``, ``module`` or ``line``.

        >>> x = torch.ones(2, device="remote_accelerator:0")
        >>> with genie.profile() as profile:
        ...     y = x + 1
        >>> "aten::add.Tensor" in profile.table(by="operator")
        True
        """
        return _profile_table.table(self.records, by, limit)

    def export(self, path: str | PathLike[str]) -> None:
        """Write a trace that https://ui.perfetto.dev opens, and Chrome's ``about:tracing``.

        Threads of the program show modules, captures and waits; the wire, frames on their way; each
        device, what it ran, with an arrow from where it was captured.

        >>> import tempfile, os, json
        >>> with genie.profile() as profile:
        ...     x = torch.ones(2, device="remote_accelerator:0")
        >>> path = os.path.join(tempfile.mkdtemp(), "trace.json")
        >>> profile.export(path)
        >>> "traceEvents" in json.load(open(path))
        True
        """
        _profile_trace.write(
            Path(path), self.records, self.waits, self.calls, self._frames, self._threads
        )

    def __str__(self) -> str:
        counts = len(self.records), len(self.waits), self.dropped
        return f"{_profile_table.summary(self.summary(), *counts)}\n\n{self.table()}"


def profile(path: str | PathLike[str] | None = None) -> Profile:
    """Profile a block: what was captured, sent, waited for, and run on the nodes, on one clock.

    ``path`` is where to write a trace for https://ui.perfetto.dev. It costs a few microseconds
    for each operator and module. What is recorded inside has run when the block has ended, but
    nothing that failed is raised by that. On a GPU a node's times are those of launches. A session
    has one profile at a time, of all of the process's threads.

    >>> model = torch.nn.Linear(2, 2).to("remote_accelerator:0")
    >>> with genie.profile() as profile:
    ...     model(torch.ones(1, 2, device="remote_accelerator:0")).sum().item() is not None
    True
    >>> {one.module for one in profile.records if one.name == "aten::addmm"}
    {'Linear'}
    >>> len(profile.waits)
    1
    """
    return Profile(path, _annotate.site_of_caller())


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """How long any of them was."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


#: What is asked: the device, whether by a synchronous operator, and its number.
_Question = tuple[int, bool, int]


class _Reader:
    """From what the backend noted to what a user reads."""

    def __init__(self, noted: dict[str, Any], profile: Profile) -> None:
        self._noted = noted
        self._profile = profile
        self._start: int = noted["span"][0]
        clocks = self._clocks()
        self._frames = self._pair_frames(clocks)
        self._runs = {
            (lane, seq): (clocks[lane](begun), clocks[lane](ended))
            for lane, seq, begun, ended in noted["records"]
        }
        #: The module of each forward operator, by autograd's number.
        self._forwards: dict[int, str] = {}

    def read(self) -> None:
        noted, profile = self._noted, self._profile
        profile.dropped = noted["dropped"]
        profile._transcript = noted.get("transcript")
        waited: dict[_Question, float] = {}
        for lane, _thread, question, is_call, begun, ended in noted["waited"]:
            waited[lane, is_call, question] = (ended - begun) / 1e9
        asked: dict[_Question, ProfiledRecord] = {}
        records: dict[tuple[int, int], int] = {}
        for noted_one in noted["captured"]:
            one = self._settled(noted_one)
            question = self._question(one)
            record = self._record(one, waited.get(question, 0.0) if question else 0.0)
            # What is uploaded into what was just made is one record.
            place = records.setdefault(one[0][:2], len(profile.records))
            profile.records[place : place + 1] = [record]
            profile._of_captured.append(place)
            if question:
                asked[question] = record
        profile.waits += (
            ProfiledWait(
                asked.get((lane, is_call, question)),
                lane,
                thread,
                self._at(begun),
                self._at(ended),
            )
            for lane, thread, question, is_call, begun, ended in noted["waited"]
        )
        profile.calls[:] = [
            ModuleCall(one.module, one.thread, self._at(one.began), self._at(one.ended))
            for one in profile.calls
        ]
        profile._frames = [frame for of_lane in self._frames.values() for frame in of_lane]
        ends = [noted["span"][1], *(ended for *_, ended in noted["waited"])]
        profile.duration = self._at(max(ends))

    def _settled(self, captured: Any) -> Any:
        """An allocation is held back for what is uploaded into it, so a cut may take its number."""
        (lane, seq, kind, *rest), *more = captured
        if kind == "allocation" and (lane, seq) not in self._runs:
            return (lane, seq + 1, kind, *rest), *more
        return captured

    @staticmethod
    def _question(captured: Any) -> _Question | None:
        (lane, seq, kind, *_), (*_, question), _ = captured
        if kind == "synchronous operator":
            return lane, True, seq
        return (lane, False, question) if question else None

    def _record(self, captured: Any, waited: float) -> ProfiledRecord:
        (lane, seq, kind, op, site, annotation), (thread, begun, ended, _), numbers = captured
        frame = self._frame_of(lane, seq)
        ran_from, ran_until = self._runs.get((lane, seq), (None, None))
        return ProfiledRecord(
            name=self._noted["operators"].get(op, kind) if "operator" in kind else kind,
            kind=kind,
            module=self._module(annotation, *numbers),
            line=self._noted["lines"].get(site, ""),
            is_backward=numbers[1] >= 0,
            device=lane,
            thread=thread,
            began=self._at(begun),
            captured_at=self._at(ended),
            sent_at=frame.sent if frame else None,
            came_at=frame.landed if frame else None,
            taken_at=frame.taken if frame else None,
            ran_from=ran_from,
            ran_until=ran_until,
            waited=waited,
        )

    def _module(self, annotation: int, sequence_nr: int, forward_nr: int) -> str:
        said = self._noted["annotations"].get(annotation) or {}
        module = said["module"].value if "module" in said else ""
        if sequence_nr >= 0:
            self._forwards[sequence_nr] = module
        return self._forwards.get(forward_nr, module)

    def _at(self, ns: float) -> float:
        return (ns - self._start) / 1e9

    def _clocks(self) -> dict[int, Callable[[int], float]]:
        """For each device, from its clock to ours.

        The quickest answers before and after count, and a line between them.
        """
        clocks: dict[int, Callable[[int], float]] = {}
        for lane in range(len(genie.devices()) or 1):
            asked = [
                (at, ahead, took) for of, at, ahead, took in self._noted["clocks"] if of == lane
            ]
            first = [one for one in asked if one[0] <= self._start]
            last = [one for one in asked if one[0] > self._start] or first
            if not asked or not first:
                clocks[lane] = self._at
                continue
            a, b = (min(some, key=lambda one: one[2]) for some in (first, last))
            self._profile.clock_error[lane] = max(a[2], b[2]) / 2e9
            drift = (b[1] - a[1]) / (b[0] - a[0]) if b[0] > a[0] else 0.0

            def ours(ns: int, a: Any = a, drift: float = drift) -> float:
                return self._at(ns - a[1] - drift * (ns - a[1] - a[0]))

            clocks[lane] = ours
        return clocks

    def _pair_frames(self, clocks: dict[int, Callable[[int], float]]) -> dict[int, list[Frame]]:
        """Frames as they left and as they came: both in their order."""
        frames: dict[int, list[Frame]] = {}
        came: dict[int, list[tuple[float, float, float]]] = {}
        for lane, *times in self._noted["frames"]:
            at = clocks[lane]
            came.setdefault(lane, []).append((at(times[0]), at(times[1]), at(times[2])))
        for lane, seq, bytes_, begun, ended in self._noted["sent"]:
            of_lane = frames.setdefault(lane, [])
            arrived = came.get(lane, [])
            there = arrived[len(of_lane)] if len(of_lane) < len(arrived) else None
            of_lane.append(
                Frame(lane, seq, bytes_, self._at(begun), self._at(ended), *(there or (None,) * 3))
            )
        return frames

    def _frame_of(self, lane: int, seq: int) -> Frame | None:
        of_lane = self._frames.get(lane, [])
        at = bisect_right(of_lane, seq, key=lambda frame: frame.seq)
        return of_lane[at - 1] if at else None
