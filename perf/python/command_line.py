"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse


def parser(documentation: str | None) -> argparse.ArgumentParser:
    """One whose help is a module's documentation.

    Its first paragraph stands before the options, the rest after them, as it is.
    """
    summary, *rest = (documentation or "").split("\n\n")
    return argparse.ArgumentParser(
        description=summary,
        epilog="\n\n".join(rest),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
