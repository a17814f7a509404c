"""``genie-perf workload``: whole programs over nodes that it starts itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from daemon import BINARY

PERF = BINARY.with_name("genie-perf")


def workload(*arguments: str) -> subprocess.CompletedProcess[str]:
    python = [] if "--python" in arguments else ["--python", sys.executable]
    command = [str(PERF), "workload", "llm", *python, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)


def test_every_policy_gives_the_tokens_of_one_device(tmp_path: Path) -> None:
    file = tmp_path / "llm.json"
    done = workload(
        *("--model", "gpt2-tiny", "--context", "128", "--tokens", "100", "--clients", "2"),
        *("--policy", "random:7,blind,semantic", "--json", str(file)),
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(file.read_text())
    assert report["emulated"] is None
    results = {one["policy"]: one for one in report["results"]}
    assert list(results) == ["random:7", "blind", "semantic"]
    for policy, one in results.items():
        assert (one["workload"], one["model"], one["clients"]) == ("llm", "gpt2-tiny", 2)
        assert (one["context_tokens"], one["tokens"]) == (128, 200)
        assert one["same_result"], policy
        assert one["bytes_total"] == sum(one["bytes_by_link"].values())
        assert one["latency_ms"]["p50"] <= one["latency_ms"]["p95"]
        assert policy.split(":")[0] in report["rules"]
        assert policy in done.stdout
    random, semantic = results["random:7"], results["semantic"]
    assert random["transfers"] > 1000
    assert semantic["transfers"] == 0
    assert semantic["placement_hits"] > 150, "plans were obeyed"
    assert semantic["bytes_total"] < random["bytes_total"] / 100
    # One token, one answer.
    assert semantic["round_trips"] == 200


def test_an_emulated_link_is_slow_and_called_so() -> None:
    slow = workload(
        *("--model", "llama-tiny", "--context", "64", "--tokens", "20", "--clients", "1"),
        *("--policy", "random", "--emulate", "rate=10gbit,delay=3ms", "--json", "-"),
    )
    assert slow.returncode == 0, slow.stderr
    report = json.loads(slow.stdout)
    assert report["emulated"] == {"rate_bits_per_s": 1e10, "delay_us": 3000}
    (one,) = report["results"]
    assert one["same_result"]
    # There and back to the program, at least.
    assert one["latency_ms"]["p50"] > 6
    table = workload(
        *("--model", "llama-tiny", "--context", "64", "--tokens", "4", "--clients", "1"),
        *("--policy", "single", "--emulate", "rate=1gbit"),
    )
    assert "EMULATED" in table.stdout, table.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--policy", "best"), "semantic, locality, blind"),
        (("--emulate", "slowly"), "rate=10gbit,delay=50us"),
        (("--model", "gpt5"), "gpt2-tiny"),
        (("--context", "1"), "64"),
        (("--clients", "0"), "--clients"),
        (("--dataplane", "/nowhere/genie-dataplane"), "--dataplane"),
        (("--python", "/nowhere/python"), "--python"),
    ],
)
def test_what_it_can_not_run(arguments: tuple[str, str], what: str) -> None:
    done = workload("--context", "64", "--model", "gpt2-tiny", *arguments)
    assert done.returncode == 2
    assert what in done.stderr
    assert done.stdout == ""
