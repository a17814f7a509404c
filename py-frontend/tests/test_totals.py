"""The last line of scripts/test: a test that could not run is not one that passed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import totals
from daemon import ROOT

NEXTEST_LOG = """
        PASS [   0.011s] (1/4) genie-dpdk::bursts every_frame_arrives
        FAIL [   0.012s] (2/4) genie-dpdk::bursts none_is_lost
     Summary [   5.813s] 4 tests run: 3 passed, 1 failed, 2 skipped
"""
# The one that failed had said that a part of it was skipped.
NEXTEST_REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4"><testsuite name="genie-dpdk::bursts" tests="4">
    <testcase name="every_frame_arrives"><system-out>
running 1 test
test every_frame_arrives ... ok
</system-out><system-err>skipped: no &lt;DPDK&gt;
</system-err></testcase>
    <testcase name="alone"><system-out>test alone ... skipped: no &lt;DPDK&gt;
skipped: see above
ok
</system-out><system-err></system-err></testcase>
    <testcase name="runs"><system-out>it skipped: nothing</system-out></testcase>
    <testcase name="none_is_lost"><failure type="test failure"/><system-err>skipped: no root
</system-err></testcase>
</testsuite></testsuites>
"""
LIBTEST_LOG = """
test a ... ok
test b ... FAILED
test c ... ok

successes:

---- a stdout ----
skipped: no DPDK

---- c stdout ----
a line

successes:
    a
    c

failures:

---- b stdout ----
skipped: no root

failures:
    b

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s
"""
PYTEST_LOG = """
SKIPPED [2] py-frontend/tests/test_link.py:64: no af_xdp here: ['level 2']
SKIPPED [1] ../x/py-frontend/tests/linked.py:34: no DPDK
==== 1 failed, 10 passed, 3 skipped, 1 xfailed in 3.20s ====
"""


@pytest.mark.parametrize(
    ("log", "report", "counts", "reasons"),
    [
        (NEXTEST_LOG, NEXTEST_REPORT, (1, 1, 4), {"no <DPDK>": 2}),
        (NEXTEST_LOG, None, (3, 1, 2), {}),
        (LIBTEST_LOG, None, (1, 1, 2), {"no DPDK": 1}),
        (PYTEST_LOG, None, (10, 1, 4), {"no af_xdp here: ['level 2']": 2, "no DPDK": 1}),
    ],
    ids=["nextest", "nextest without a report", "cargo test", "pytest"],
)
def test_what_could_not_run_counts_as_skipped(
    log: str, report: str | None, counts: tuple[int, int, int], reasons: dict[str, int]
) -> None:
    found = totals.of_log(log, report)
    assert (found.passed, found.failed, found.skipped) == counts
    assert found.reasons == reasons


def test_the_last_line_adds_up_and_each_reason_is_there_once(tmp_path: Path) -> None:
    (tmp_path / "rust.log").write_text(NEXTEST_LOG)
    (tmp_path / "rust.xml").write_text(NEXTEST_REPORT)
    (tmp_path / "old.log").write_text(LIBTEST_LOG)
    (tmp_path / "python.log").write_text(PYTEST_LOG)
    suites = [f"{tmp_path / name}.log=1" for name in ("rust", "old", "python")]
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "lib" / "totals.py"), *suites],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ran.stdout.splitlines()
    assert lines[-1] == "12 passed, 3 failed, 10 skipped", ran.stdout + ran.stderr
    assert [line.split() for line in lines if "skipped: no <DPDK>" in line] == [
        ["2", "skipped:", "no", "<DPDK>"]
    ]
    assert [line.split() for line in lines if line.endswith("skipped: no DPDK")] == [
        ["2", "skipped:", "no", "DPDK"]
    ]
    assert ran.returncode == 1
