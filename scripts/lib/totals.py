"""Adds up what test runners printed. Arguments: LOG=EXIT_STATUS, one a suite.

A Rust test that can't run on a machine prints `skipped: REASON` and passes; it counts as skipped
here. Where what it printed is not in the log it is in nextest's report beside it (LOG with the
suffix .xml). Each reason is printed once.

Prints `N passed, M failed, K skipped` as the last line. Exits 1 if anything failed, if a runner
failed in another way (a build that broke counts as one failure), or if nothing ran at all.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

# The words of cargo test, cargo nextest and pytest, and what each counts as.
_PASSED = {"passed"}
_FAILED = {"failed", "timed out", "exec failed", "error", "errors", "xpassed"}
_SKIPPED = {"skipped", "ignored", "xfailed", "not run"}

_SUMMARY_LINES = (
    # test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s
    re.compile(r"^test result: \w+\. (?P<counts>.*)$"),
    # Summary [   0.005s] 3 tests run: 2 passed (1 slow), 1 failed, 1 skipped
    re.compile(r"^\s*Summary \[[^\]]*\] [^:]*: (?P<counts>.*)$"),
    # ==== 1 failed, 10 passed, 2 skipped in 3.20s ====
    re.compile(r"^=+ (?P<counts>(?=.*\b(?:passed|failed|errors?|skipped|xfailed)\b).*) in .*=+$"),
)
_COUNT = re.compile(
    r"(\d+) (passed|failed|timed out|exec failed|errors?|xpassed"
    r"|skipped|ignored|xfailed|not run)\b"
)

# What a Rust test says that can't run here, on a line of its own or, where tests have one thread,
# after its name; and what one says that has told the reason in another process.
_SAID = re.compile(r"^(?:test \S+ \.\.\. )?skipped: (.*\S)", re.MULTILINE)
_SAID_BEFORE = "see above"
# SKIPPED [2] tests/test_link.py:64: no af_xdp here
_PYTEST_SKIP = re.compile(r"^SKIPPED \[(\d+)\] \S+?(?::\d+)?: (.*\S)", re.MULTILINE)
# ---- name stdout ----
_OUTPUT_OF_TEST = re.compile(r"^---- \S+ stdout ----$")


@dataclass
class Totals:
    """Tests by outcome."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    # How many were skipped for each reason; not every runner tells one.
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        """Adds another suite's."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.reasons += other.reasons

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def of_log(text: str, report: str | None = None) -> Totals:
    """The totals of one runner's output, and of nextest's report if there is one."""
    totals = Totals()
    for line in text.splitlines():
        for pattern in _SUMMARY_LINES:
            summary = pattern.match(line)
            if summary is None:
                continue
            for number, word in _COUNT.findall(summary["counts"]):
                if word in _PASSED:
                    totals.passed += int(number)
                elif word in _FAILED:
                    totals.failed += int(number)
                elif word in _SKIPPED:
                    totals.skipped += int(number)
            break
    outputs = _outputs_of_log(text) if report is None else _outputs_of_report(report)
    for reason in filter(None, map(_reason, outputs)):
        totals.passed -= 1
        totals.skipped += 1
        totals.reasons[reason] += 1
    for number, reason in _PYTEST_SKIP.findall(text):
        totals.reasons[reason] += int(number)
    return totals


def _reason(output: str) -> str | None:
    """Why a test that passed did not run, if it says so."""
    said = dict.fromkeys(_SAID.findall(output))
    if len(said) > 1:
        said.pop(_SAID_BEFORE, None)
    return "; ".join(said) or None


def _outputs_of_report(report: str) -> Iterator[str]:
    """What each test that passed printed, by nextest's report (JUnit)."""
    # nextest wrote it, here and now.
    for case in ElementTree.fromstring(report).iter("testcase"):  # noqa: S314
        if case.find("failure") is None and case.find("error") is None:
            yield "\n".join(case.findtext(name) or "" for name in ("system-out", "system-err"))


def _outputs_of_log(text: str) -> Iterator[str]:
    """What each test that passed printed, by the log of `cargo test -- --show-output`."""
    passed = False
    lines: list[str] | None = None
    for line in text.splitlines():
        starts = _OUTPUT_OF_TEST.match(line) is not None
        ends = line in ("successes:", "failures:") or line.startswith("test result:")
        if starts or ends:
            if lines is not None:
                yield "\n".join(lines)
            lines = [] if starts and passed else None
            if ends:
                passed = line == "successes:"
        elif lines is not None:
            lines.append(line)


def _by_reason(reasons: Counter[str]) -> Iterable[str]:
    return (f"    {count:4} skipped: {reason}" for reason, count in reasons.most_common())


def main(arguments: list[str]) -> int:
    """Prints the totals; gives the exit status."""
    total = Totals()
    print()
    for argument in arguments:
        log, _, status = argument.rpartition("=")
        report = Path(log).with_suffix(".xml")
        suite = of_log(
            Path(log).read_text(errors="replace"),
            report.read_text(errors="replace") if report.exists() else None,
        )
        if int(status) != 0 and suite.failed == 0:
            print(f"{Path(log).stem}: ended with exit status {status} before a test failed")
            suite.failed = 1
        print(f"{Path(log).stem + ':':12}{suite}")
        total.add(suite)
    for line in _by_reason(total.reasons):
        print(line)
    print(total)
    return 0 if total.failed == 0 and total.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
