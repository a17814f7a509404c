"""Adds up what test runners printed. Arguments: LOG=EXIT_STATUS, one a suite.

Prints `N passed, M failed, K skipped` as the last line. Exits 1 if anything failed, if a runner
failed in another way (a build that broke counts as one failure), or if nothing ran at all.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

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


@dataclass
class Totals:
    """Tests by outcome."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Totals) -> None:
        """Adds another suite's."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def of_log(text: str) -> Totals:
    """The totals of one runner's output."""
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
    return totals


def main(arguments: list[str]) -> int:
    """Prints the totals; gives the exit status."""
    total = Totals()
    print()
    for argument in arguments:
        log, _, status = argument.rpartition("=")
        suite = of_log(Path(log).read_text(errors="replace"))
        if int(status) != 0 and suite.failed == 0:
            print(f"{Path(log).stem}: ended with exit status {status} before a test failed")
            suite.failed = 1
        print(f"{Path(log).stem + ':':12}{suite}")
        total.add(suite)
    print(total)
    return 0 if total.failed == 0 and total.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
