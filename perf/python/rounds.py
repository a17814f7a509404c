"""Benchmarks that measure everything once a round: their options, and their figures."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import command_line


def arguments(documentation: str | None) -> argparse.Namespace:
    """The command line: ``rounds``, ``json``, ``check``."""
    parser = command_line.parser(documentation)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a promise is missed")
    return parser.parse_args()


class Figures:
    """What was measured, by what it is."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._rounds: dict[str, list[float]] = {}

    def note(self, what: str, value: float) -> None:
        """Once more."""
        self._rounds.setdefault(what, []).append(value)

    def medians(self) -> dict[str, float]:
        """Of all rounds."""
        return {what: statistics.median(values) for what, values in self._rounds.items()}

    def tell(self, file: str | None) -> None:
        """Print medians, the least and the most; with a file write all rounds there as JSON."""
        medians = self.medians()
        for what, values in self._rounds.items():
            print(f"{what:50} {medians[what]:8.3f}   {min(values):.3f} to {max(values):.3f}")
        if file:
            Path(file).write_text(json.dumps(self._rounds, indent=2) + "\n")
