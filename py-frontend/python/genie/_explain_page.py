"""An explanation as a page: bars by phase and module, and a table of operators."""

from __future__ import annotations

import html
from typing import Any

#: Operators in the table; a page of more is slow to look at.
_ROWS_MAX = 5000

_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222 }
table { border-collapse: collapse } td, th { padding: 2px 10px; text-align: left }
th { border-bottom: 1px solid #999 } td.n { text-align: right }
.bar { display: flex; height: 26px; margin: 4px 0 2px; width: 100% }
.bar span { overflow: hidden; color: #fff; font-size: 11px; padding: 4px 2px; white-space: nowrap }
p.w { color: #a40 }
"""
_COLOURS = (
    "#4269d0", "#b8860b", "#c0392b", "#3a9188", "#3c8c3f", "#a463a8", "#97643c", "#5b6b7b",
    "#8a5a83", "#2c7da0", "#7a6c00", "#8f3f3f", "#446688", "#556b2f",
)  # fmt: skip


def page(told: dict[str, Any]) -> str:
    """The whole of it, which needs nothing else."""
    work, operators = told["workload"], told["operators"]
    title = f"{work['class']} at {work['confidence']:.0%}, {len(operators)} operators"
    parts = [
        "<!doctype html><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
    ]
    parts += [f"<p class='w'>{html.escape(warning)}</p>" for warning in told["warnings"]]
    for what in ("phase", "role", "modality", "residency", "node"):
        parts.append(_bar(what, operators))
    parts.append(_table(operators))
    return "\n".join(parts)


def _bar(what: str, operators: list[dict[str, Any]]) -> str:
    """Time by what operators are."""
    spans: dict[str, float] = {}
    for one in operators:
        name = one[what] or "-"
        spans[name] = spans.get(name, 0.0) + (one["ran_us"] or 0.0)
    total = sum(spans.values()) or 1.0
    cells = []
    for at, (name, took) in enumerate(sorted(spans.items(), key=lambda item: -item[1])):
        label = html.escape(f"{name} {took / 1e3:.2f} ms")
        cells.append(
            f"<span title='{label}' style='width:{took / total:.2%};"
            f"background:{_COLOURS[at % len(_COLOURS)]}'>{label}</span>"
        )
    return f"<h2>{what}</h2><div class='bar'>{''.join(cells)}</div>"


def _table(operators: list[dict[str, Any]]) -> str:
    names = ("op", "phase", "modality", "residency", "role", "module", "node", "line")
    numbers = ("flops", "bytes_read", "bytes_written", "ran_us")
    head = "".join(f"<th>{name}</th>" for name in (*names, *numbers))
    rows = []
    for one in operators[:_ROWS_MAX]:
        cells = "".join(f"<td>{html.escape(str(one[name]))}</td>" for name in names)
        figures = "".join(
            f"<td class='n'>{'' if one[name] is None else format(one[name], ',.0f')}</td>"
            for name in numbers
        )
        rows.append(f"<tr>{cells}{figures}</tr>")
    more = len(operators) - _ROWS_MAX
    rest = f"<p>and {more} more: format='json' has all</p>" if more > 0 else ""
    return f"<h2>operators</h2><table><tr>{head}</tr>{''.join(rows)}</table>{rest}"
