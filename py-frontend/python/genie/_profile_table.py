"""A profile as text."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._profiled import ProfiledRecord

_KEYS = ("operator", "module", "line")


def table(records: list[ProfiledRecord], by: str, limit: int) -> str:
    """What took longest."""
    if by not in _KEYS:
        raise ValueError(f"by is one of {', '.join(_KEYS)}, and not {by!r}")
    groups: dict[str, list[ProfiledRecord]] = defaultdict(list)
    for record in records:
        name = record.name if by == "operator" else getattr(record, by)
        suffix = " (backward)" if record.is_backward and by != "operator" else ""
        groups[(name or "-") + suffix].append(record)
    rows = sorted(groups.items(), key=lambda item: -_cost(item[1]))
    lines = [
        f"{'calls':>7} {'node ms':>9} {'p50 us':>8} {'p95 us':>8} {'capture ms':>10} {'p50 us':>7}"
        f" {'wait ms':>8}  {by}"
    ]
    for name, group in rows[:limit]:
        ran = sorted(record.ran for record in group)
        captured = sorted(record.captured for record in group)
        waited = sum(record.waited for record in group)
        lines.append(
            f"{len(group):7} {sum(ran) * 1e3:9.3f} {_at(ran, 50) * 1e6:8.1f}"
            f" {_at(ran, 95) * 1e6:8.1f} {sum(captured) * 1e3:10.3f}"
            f" {_at(captured, 50) * 1e6:7.1f} {waited * 1e3:8.3f}  {name}"
        )
    if len(rows) > limit:
        lines.append(f"... and {len(rows) - limit} more")
    return "\n".join(lines)


def summary(parts: dict[str, float], records: int, waits: int, dropped: int) -> str:
    """Where the time went, in a line, and how much there was."""
    parts = dict(parts)
    duration = parts.pop("duration") or 1e-9
    nodes = parts.pop("nodes")
    shares = ", ".join(
        f"{name} {seconds * 1e3:.3f} ({seconds / duration:.0%})"
        for name, seconds in parts.items()
        if seconds > 0
    )
    text = (
        f"{duration * 1e3:.3f} ms: {shares}\n"
        f"{records} records, {waits} waits;"
        f" nodes ran for {nodes * 1e3:.3f} ms"
    )
    return text + (f"; {dropped} entries had no room" if dropped else "")


def _cost(records: list[ProfiledRecord]) -> float:
    return sum(record.ran + record.captured for record in records)


def _at(values: list[float], percent: int) -> float:
    """A percentile of sorted values: the nearest one."""
    return values[min(len(values) - 1, len(values) * percent // 100)]
