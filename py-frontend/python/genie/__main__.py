"""``python -m genie``: pages of the error catalogue, and what a report of a fault should have."""

from __future__ import annotations

import argparse
import sys

from . import _catalogue, _info


def _errors(asked: str | None) -> int:
    if asked is None:
        for name in _catalogue.names():
            print(f"{name:22}{_catalogue.summary(name)}")
        print("\npython -m genie errors NAME prints a page; an exception's name, all of its pages.")
        return 0
    pages = _catalogue.find(asked)
    if not pages:
        known = ", ".join(_catalogue.names())
        print(f"there is no page {asked}; there are {known}", file=sys.stderr)
        return 1
    print("\n\n".join(_catalogue.read(page).rstrip() for page in pages))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m genie",
        description="Tells what an error means, and what this installation is.",
        epilog="Exit status: 0; 1 if there is no such page, or a node that the environment names "
        "gives no session; 2 for arguments that are none.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    errors = commands.add_parser(
        "errors", help="list the pages of the error catalogue, or print some"
    )
    errors.add_argument(
        "name",
        nargs="?",
        help="a page (connect-nobody-there) or an exception (ConnectError); without one, the list",
    )
    info = commands.add_parser(
        "info", help="versions, binaries, environment, devices: what to paste into a report"
    )
    info.add_argument(
        "--timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long a node may take to answer (default: 5)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a command; gives the exit status."""
    parsed = _parser().parse_args(arguments)
    return _errors(parsed.name) if parsed.command == "errors" else _info.show(parsed.timeout)


if __name__ == "__main__":
    sys.exit(main())
