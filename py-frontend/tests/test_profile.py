"""What takes how long: here, on the way, and on the nodes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import genie
import pytest
import torch
from support import REMOTE, Counted, counted, wait_until
from torch import nn

pytestmark = pytest.mark.usefixtures("session")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).square()


def names(profile: genie.Profile) -> Counter[str]:
    return Counter(one.name for one in profile.records)


def test_a_step_is_seen_whole() -> None:
    model = Model().to(REMOTE)
    x = torch.randn(3, 4)
    genie.synchronize()
    before = genie.stats()
    with genie.profile() as profile:
        loss = model(x.to(REMOTE)).sum()
        loss.backward()
        value = loss.item()
    after = genie.stats()
    assert value == loss.item()
    operators = [one for one in profile.records if one.kind == "operator"]
    assert len(operators) == after["operators"] - before["operators"]
    assert len(profile.waits) == after["round_trips"] - before["round_trips"] == 1
    found = names(profile)
    assert found["aten::addmm"] == 2
    assert found["fetch"] == found["upload"] == 1
    error = max(profile.clock_error.values()) + 1e-6
    last: float = 0
    for one in profile.records:
        stages = (
            one.began,
            one.captured_at,
            one.came_at,
            one.taken_at,
            one.ran_from,
            one.ran_until,
        )
        assert None not in stages, one
        for earlier, later in itertools.pairwise(stages):
            assert earlier is not None
            assert later is not None
            assert later >= earlier - error, one
        assert one.ran_from is not None
        assert one.ran_from >= last, "one after the other"
        last = one.ran_until or 0
    wait = profile.waits[0]
    assert wait.record is not None
    assert wait.record.name == "fetch"
    assert wait.record.waited == pytest.approx(wait.ended - wait.began)
    assert sum(wait.parts().values()) == pytest.approx(wait.ended - wait.began)


def test_each_knows_its_module_and_line() -> None:
    model = Model().to(REMOTE)
    x = torch.randn(3, 4, device=REMOTE)
    with genie.profile() as profile:
        loss = model(x).sum()
        loss.backward()
    modules = defaultdict(set)
    for one in profile.records:
        modules[one.module, one.is_backward].add(one.name)
    assert "aten::addmm" in modules["Model.layers.0", False]
    assert "aten::relu" in modules["Model.layers.1", False]
    assert "aten::pow.Tensor_Scalar" in modules["Model", False]
    assert "aten::sum" in modules["", False]
    assert "aten::mm" in modules["Model.layers.2", True]
    assert "aten::threshold_backward" in modules["Model.layers.1", True]
    line = test_each_knows_its_module_and_line.__code__.co_firstlineno + 4
    assert any(f'{__file__}", line {line}' in one.line for one in profile.records)
    assert [call.module for call in profile.calls] == [
        "Model.layers.0",
        "Model.layers.1",
        "Model.layers.2",
        "Model.layers",
        "Model",
    ]
    with pytest.raises(ValueError, match="by is one of operator, module, line"):
        profile.table(by="day")
    assert "Model.layers.2 (backward)" in profile.table(by="module")
    assert "wait" in str(profile)


def test_the_parts_are_all_of_it() -> None:
    x = torch.ones(64, 64, device=REMOTE)
    with genie.profile() as profile:
        for _ in range(5):
            x = x @ x / 64
            x.sum().item()
    summary = profile.summary()
    nodes, duration = summary.pop("nodes"), summary.pop("duration")
    assert sum(summary.values()) == pytest.approx(duration)
    assert all(seconds >= 0 for seconds in summary.values()), summary
    assert 0 < summary["execution"] < duration, (summary, profile.waits)
    assert 0 < nodes < duration


def test_what_travels_by_plans_is_seen_too() -> None:
    x = torch.ones(8, device=REMOTE)

    def turns(count: int) -> None:
        y = x
        for _ in range(count):
            y = (y * 2 - y).relu()
            y.sum().item()

    def is_planned() -> bool:
        with Counted() as count:
            turns(5)
        return count.planned_records > 0

    wait_until(is_planned, 20, "a plan")
    with genie.profile() as profile, Counted() as count:
        turns(10)
    assert count.planned_records > 0
    assert all(one.ran > 0 for one in profile.records)
    assert names(profile)["aten::relu"] == 10


def nested(slices: list[dict[str, Any]]) -> bool:
    """Whether slices of a track lie in one another or apart, up to the nanosecond."""
    open_until: list[float] = []
    for one in sorted(slices, key=lambda one: (one["ts"], -one["dur"])):
        end = one["ts"] + one["dur"]
        while open_until and open_until[-1] <= one["ts"] + 1e-3:
            open_until.pop()
        if open_until and end > open_until[-1] + 1e-3:
            return False
        open_until.append(end)
    return True


def test_the_trace_is_what_viewers_read(tmp_path: Path) -> None:
    model = Model().to(REMOTE)
    big = torch.randn(1 << 20)
    path = tmp_path / "trace.json"
    with genie.profile(path) as profile:
        for _ in range(3):
            model(torch.randn(3, 4, device=REMOTE)).sum().backward()
        big.to(REMOTE).sum().item()
    events = json.loads(path.read_text())["traceEvents"]
    tracks, pairs, flows = defaultdict(list), Counter(), defaultdict(list)
    for event in events:
        assert {"ph", "pid", "tid", "name"} <= event.keys()
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
        elif event["ph"] in "be":
            pairs[event["id"], event["ph"]] += 1
        elif event["ph"] in "sf":
            flows[event["id"]].append(event)
    assert all(nested(track) for track in tracks.values())
    assert set(pairs.values()) == {1}
    assert {ident for ident, phase in pairs if phase == "b"} == {
        ident for ident, phase in pairs if phase == "e"
    }
    for start, end in flows.values():
        assert (start["ph"], end["ph"]) == ("s", "f")
    assert len(flows) == len(profile.records)
    categories = {event["cat"] for event in events if "cat" in event}
    assert categories >= {
        "module",
        "capture",
        "wait",
        "send",
        "wire",
        "queue",
        "launch",
        "answer",
        "record",
    }
    sent = [event["args"]["bytes"] for event in events if event["name"] == "send"]
    assert max(sent) >= big.nbytes
    thread = threading.get_native_id()
    named = [event for event in events if event["ph"] == "M" and event["tid"] == thread]
    assert named[0]["args"]["name"] == "MainThread"


def test_threads_are_told_apart() -> None:
    def work() -> None:
        torch.ones(3, device=REMOTE).sum().item()

    with genie.profile() as profile:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({one.thread for one in profile.records}) == 3
    assert len({wait.thread for wait in profile.waits}) == 3
    # This one only waited for the others.
    assert profile.summary()["python"] == pytest.approx(profile.duration)


def test_it_disturbs_nothing_and_ends() -> None:
    x = torch.ones(2, device=REMOTE)

    def costs(block: Callable[[], Any]) -> tuple[int, int]:
        """Messages sent, and round trips: the least of some, since records leave by themselves."""
        found = []
        for _ in range(8):
            with block():
                _, count = counted(lambda: (x + 1).tolist())
            found.append((count.messages_sent, count.round_trips))
        return min(found)

    before = costs(contextlib.nullcontext)
    assert before == costs(genie.profile) == costs(contextlib.nullcontext) == (1, 1)


def test_one_at_a_time_and_each_begins_anew() -> None:
    x = torch.ones(2, device=REMOTE)
    with genie.profile() as outer:
        with pytest.raises(RuntimeError, match="profiled already"), genie.profile():
            pass
        x + 1
    assert names(outer) == {"aten::add.Tensor": 1}
    with genie.profile() as again:
        pass
    assert again.records == []
    assert again.duration > 0


def test_what_fails_is_raised_where_it_is_looked_at() -> None:
    with genie.profile() as profile:
        index = torch.full((1, 1), 9, device=REMOTE)
        bad = torch.gather(torch.ones(2, 2, device=REMOTE), 1, index)
    assert names(profile)["aten::gather"] == 1
    with pytest.raises(genie.RemoteOperatorError, match="gather"):
        bad.tolist()
    with pytest.raises(ZeroDivisionError), genie.profile() as broken:
        torch.ones(2, device=REMOTE)
        1 / 0
    assert len(broken.records) == 1


def test_two_devices(make_client: Callable[..., Any], make_daemon: Callable[..., Any]) -> None:
    client = make_client(
        """
        a = torch.ones(2, 2, device="remote_accelerator:0")
        b = torch.ones(2, 2, device="remote_accelerator:1")
        with genie.profile() as profile:
            c = (a + 1).to(b.device) @ b
            c.sum().item()
        print(sorted({one.device for one in profile.records}))
        print(all(one.ran > 0 for one in profile.records if one.kind == "operator"))
        print(sorted(profile.clock_error))
        """,
        address=f"{make_daemon().address},{make_daemon().address}",
    )
    client.expect("[0, 1]")
    client.expect("True")
    client.expect("[0, 1]")
    client.finish()


def test_a_node_that_dies_ends_it(
    make_client: Callable[..., Any], make_daemon: Callable[..., Any]
) -> None:
    node = make_daemon()
    client = make_client(
        """
        x = torch.ones(2, device="remote_accelerator:0")
        genie.synchronize()
        with genie.profile() as profile:
            y = x + 1
            genie.synchronize()
            print("kill", flush=True)
            input()
        print(len(profile.records) >= 2)
        """,
        address=node.address,
    )
    client.expect("kill")
    os.kill(node.pid, signal.SIGKILL)
    client.tell("")
    client.expect("True")
    client.finish()
