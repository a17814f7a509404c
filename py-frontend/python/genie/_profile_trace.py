"""A profile as a trace: the JSON that Perfetto and Chrome read.

The "Trace Event Format": complete events are ``X``, those that overlap ``b`` and ``e``, arrows
``s`` and ``f``, names ``M``; times are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genie

if TYPE_CHECKING:
    from ._profile import Profile, ProfiledRecord

_PROGRAM, _WIRE, _DEVICES = 1, 2, 10
#: Tracks of a device.
_QUEUE, _EXECUTOR = 1, 2


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


def write(path: Path, profile: Profile, frames: list[Frame], threads: dict[int, str]) -> None:
    """Write the trace."""
    events = [
        *_names(profile, threads),
        *_program(profile),
        *_wire(profile, frames),
        *_nodes(profile, frames),
    ]
    path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))


def _names(profile: Profile, threads: dict[int, str]) -> Iterator[dict[str, Any]]:
    def name(kind: str, pid: int, tid: int, text: str) -> dict[str, Any]:
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": text}}

    yield name("process_name", _PROGRAM, 0, "program")
    recording = {one.thread for one in profile.records}
    for thread in recording | {call.thread for call in profile.calls}:
        yield name("thread_name", _PROGRAM, thread, threads.get(thread, f"thread {thread}"))
    yield name("process_name", _WIRE, 0, "wire")
    for device in {one.device for one in profile.records}:
        known = genie.devices()
        text = f"{known[device].node} {known[device].name}" if device < len(known) else str(device)
        yield name("thread_name", _WIRE, device, text)
        yield name("process_name", _DEVICES + device, 0, f"node {text}")
        yield name("thread_name", _DEVICES + device, _QUEUE, "queue")
        yield name("thread_name", _DEVICES + device, _EXECUTOR, "executor")


def _slice(
    name: str, category: str, pid: int, tid: int, began: float, ended: float, **args: Any
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "pid": pid,
        "tid": tid,
        "ts": began * 1e6,
        "dur": max(0.0, ended - began) * 1e6,
        "args": args,
    }


def _between(
    name: str, category: str, track: tuple[int, int], number: int, began: float, ended: float
) -> Iterator[dict[str, Any]]:
    """Something that may overlap with others of its track."""
    pid, tid = track
    common = {
        "name": name,
        "cat": category,
        "pid": pid,
        "tid": tid,
        "id": f"{category}{tid}.{number}",
    }
    yield {**common, "ph": "b", "ts": began * 1e6}
    yield {**common, "ph": "e", "ts": max(began, ended) * 1e6}


def _of(record: ProfiledRecord) -> dict[str, str]:
    about = {"module": record.module, "line": record.line}
    if record.is_backward:
        about["of"] = "backward"
    return {name: text for name, text in about.items() if text}


def _program(profile: Profile) -> Iterator[dict[str, Any]]:
    for call in profile.calls:
        yield _slice(call.module, "module", _PROGRAM, call.thread, call.began, call.ended)
    for number, one in enumerate(profile.records):
        yield _slice(
            one.name, "capture", _PROGRAM, one.thread, one.began, one.captured_at, **_of(one)
        )
        if one.ran_from is not None:
            yield _flow("s", number, _PROGRAM, one.thread, one.captured_at)
    for wait in profile.waits:
        what = "room" if wait.record is None else wait.record.name
        about = {} if wait.record is None else _of(wait.record)
        parts = {f"{name} us": round(took * 1e6, 1) for name, took in wait.parts().items()}
        yield _slice(
            f"wait: {what}", "wait", _PROGRAM, wait.thread, wait.began, wait.ended, **about, **parts
        )


def _flow(phase: str, number: int, pid: int, tid: int, at: float) -> dict[str, Any]:
    end = {"bp": "e"} if phase == "f" else {}
    return {
        "ph": phase,
        "name": "record",
        "cat": "record",
        "id": number,
        "pid": pid,
        "tid": tid,
        "ts": at * 1e6,
        **end,
    }


def _wire(profile: Profile, frames: list[Frame]) -> Iterator[dict[str, Any]]:
    for number, frame in enumerate(frames):
        track = (_WIRE, frame.device)
        yield _slice(
            "send", "send", *track, frame.began, frame.sent, bytes=frame.nbytes, record=frame.seq
        )
        if frame.landed is not None:
            yield from _between("to the node", "wire", track, number, frame.began, frame.landed)
    for number, wait in enumerate(profile.waits):
        if wait.record is not None and wait.record.ran_until is not None:
            track = (_WIRE, wait.device)
            began = wait.record.ran_until
            yield from _between("answer", "answer", track, number, began, wait.ended)


def _nodes(profile: Profile, frames: list[Frame]) -> Iterator[dict[str, Any]]:
    for number, frame in enumerate(frames):
        if frame.landed is not None and frame.taken is not None:
            track = (_DEVICES + frame.device, _QUEUE)
            yield from _between("queue", "queue", track, number, frame.landed, frame.taken)
    for number, one in enumerate(profile.records):
        if one.ran_from is None or one.ran_until is None:
            continue
        pid = _DEVICES + one.device
        yield _flow("f", number, pid, _EXECUTOR, one.ran_from)
        yield _slice(one.name, "launch", pid, _EXECUTOR, one.ran_from, one.ran_until, **_of(one))
