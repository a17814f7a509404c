"""A profile as a trace: the JSON that Perfetto and Chrome read.

The "Trace Event Format": complete events are ``X``, those that overlap ``b`` and ``e``, arrows
``s`` and ``f``, names ``M``; times are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import genie

if TYPE_CHECKING:
    from ._module_paths import ModuleCall
    from ._profiled import Frame, ProfiledRecord, ProfiledWait

_PROGRAM, _WIRE, _DEVICES = 1, 2, 10
#: Tracks of a device.
_QUEUE, _EXECUTOR = 1, 2


_Event = dict[str, Any]


def write(
    path: Path,
    records: list[ProfiledRecord],
    waits: list[ProfiledWait],
    calls: list[ModuleCall],
    frames: list[Frame],
    threads: dict[int, str],
) -> None:
    """Write the trace; ``threads`` are their names."""
    recording = {one.thread for one in records} | {call.thread for call in calls}
    events = [
        *_names(
            {thread: threads.get(thread, f"thread {thread}") for thread in recording},
            {one.device for one in records},
        ),
        *_program(records, waits, calls),
        *_wire(waits, frames),
        *_nodes(records, frames),
    ]
    path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))


def _names(threads: dict[int, str], devices: set[int]) -> Iterator[_Event]:
    def name(kind: str, pid: int, tid: int, text: str) -> _Event:
        return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": text}}

    yield name("process_name", _PROGRAM, 0, "program")
    for thread, text in threads.items():
        yield name("thread_name", _PROGRAM, thread, text)
    yield name("process_name", _WIRE, 0, "wire")
    known = genie.devices()
    for device in devices:
        text = f"{known[device].node} {known[device].name}" if device < len(known) else str(device)
        yield name("thread_name", _WIRE, device, text)
        yield name("process_name", _DEVICES + device, 0, f"node {text}")
        yield name("thread_name", _DEVICES + device, _QUEUE, "queue")
        yield name("thread_name", _DEVICES + device, _EXECUTOR, "executor")


def _slice(
    name: str, category: str, pid: int, tid: int, began: float, ended: float, **args: Any
) -> _Event:
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
) -> Iterator[_Event]:
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


def _program(
    records: list[ProfiledRecord], waits: list[ProfiledWait], calls: list[ModuleCall]
) -> Iterator[_Event]:
    for call in calls:
        yield _slice(call.module, "module", _PROGRAM, call.thread, call.began, call.ended)
    for number, one in enumerate(records):
        yield _slice(
            one.name, "capture", _PROGRAM, one.thread, one.began, one.captured_at, **_of(one)
        )
        if one.ran_from is not None:
            yield _flow("s", number, _PROGRAM, one.thread, one.captured_at)
    for wait in waits:
        what = "room" if wait.record is None else wait.record.name
        about = {} if wait.record is None else _of(wait.record)
        parts = {f"{name} us": round(took * 1e6, 1) for name, took in wait.parts().items()}
        yield _slice(
            f"wait: {what}", "wait", _PROGRAM, wait.thread, wait.began, wait.ended, **about, **parts
        )


def _flow(phase: str, number: int, pid: int, tid: int, at: float) -> _Event:
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


def _wire(waits: list[ProfiledWait], frames: list[Frame]) -> Iterator[_Event]:
    for number, frame in enumerate(frames):
        track = (_WIRE, frame.device)
        yield _slice(
            "send", "send", *track, frame.began, frame.sent, bytes=frame.nbytes, record=frame.seq
        )
        if frame.landed is not None:
            yield from _between("to the node", "wire", track, number, frame.began, frame.landed)
    for number, wait in enumerate(waits):
        if wait.record is not None and wait.record.ran_until is not None:
            track = (_WIRE, wait.device)
            began = wait.record.ran_until
            yield from _between("answer", "answer", track, number, began, wait.ended)


def _nodes(records: list[ProfiledRecord], frames: list[Frame]) -> Iterator[_Event]:
    for number, frame in enumerate(frames):
        if frame.landed is not None and frame.taken is not None:
            track = (_DEVICES + frame.device, _QUEUE)
            yield from _between("queue", "queue", track, number, frame.landed, frame.taken)
    for number, one in enumerate(records):
        if one.ran_from is None or one.ran_until is None:
            continue
        pid = _DEVICES + one.device
        yield _flow("f", number, pid, _EXECUTOR, one.ran_from)
        yield _slice(one.name, "launch", pid, _EXECUTOR, one.ran_from, one.ran_until, **_of(one))
