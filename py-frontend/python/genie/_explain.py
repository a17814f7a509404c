"""``genie.explain(callable, *inputs)``: what a program was taken for, operator by operator."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import genie

from . import _annotate, _explain_page
from ._profile import Profile

if TYPE_CHECKING:
    from collections.abc import Callable

#: Rows of the text's table.
_ROWS_MAX = 40


def explain(
    callable: Callable[..., Any],  # noqa: A002 (as users call it)
    *inputs: Any,
    format: Literal["text", "json", "html"] = "text",  # noqa: A002
) -> str:
    """Run ``callable(*inputs)`` once, and tell what Genie takes each of its operators for.

    It runs as it would without, on the session's nodes. Told are the kind of work and how sure
    that is (``llm``, ``vision``, ``recsys``, ``multimodal``, ``audio``, ``training``, ``other``),
    and of each operator its phase (``prefill``, ``decode``, ``vision_encode``, ``backward`` ...),
    modality, role (``attention.query``, ``feed_forward.down`` ...), what becomes of its result,
    module, node, cost (FLOPs and bytes) and how long it ran there. Roles come from how operators
    are wired, never from the names of modules.

    ``format="json"`` has ``workload`` (``class``, ``confidence``), ``operators`` (``op``,
    ``phase``, ``modality``, ``residency``, ``role``, ``module``, ``node``, ``line``, ``segment``,
    ``flops``, ``bytes_read``, ``bytes_written``, ``ran_us``) and ``warnings``; ``"html"`` is a page
    to look at.

    >>> model = torch.nn.Linear(4, 2).to("remote_accelerator:0")
    >>> told = genie.explain(model, torch.ones(1, 4, device="remote_accelerator:0"), format="json")
    >>> import json
    >>> [one["op"] for one in json.loads(told)["operators"]]
    ['aten::addmm']
    """
    if format not in ("text", "json", "html"):
        raise ValueError(f'format is {format!r}: it may be "text", "json" or "html"')
    profile = Profile(None, _annotate.site_of_caller(), is_whole=True)
    with profile:
        callable(*inputs)
    told = _told(profile)
    if format == "json":
        return json.dumps(told, indent=1)
    if format == "html":
        return _explain_page.page(told)
    return _text(told)


def _told(profile: Profile) -> dict[str, Any]:
    """What the analysis says of what was recorded."""
    records = profile.records
    known = [
        (one.module, one.line, None if one.ran_from is None else one.ran * 1e6)
        for one in (records[at] for at in profile._of_captured)
    ]
    nodes = [f"{one.node}/{one.name}" for one in genie.devices()]
    told: dict[str, Any] = json.loads(profile._transcript.explain(known, nodes))
    dropped = profile.dropped + profile._transcript.dropped
    if dropped:
        told["warnings"].append(
            f"{dropped} records had no room in the explanation and are missing from it"
        )
    return told


def _text(told: dict[str, Any]) -> str:
    """A summary, and what each module's operators are."""
    work, operators = told["workload"], told["operators"]
    lines = [f"{work['class']} at {work['confidence']:.0%}, {len(operators)} operators"]
    lines += [f"warning: {warning}" for warning in told["warnings"]]
    for what in ("phase", "modality", "node"):
        counts: dict[str, list[float]] = {}
        for one in operators:
            of_one = counts.setdefault(one[what] or "-", [0, 0.0])
            of_one[0] += 1
            of_one[1] += one["ran_us"] or 0.0
        lines += ["", f"{what:<28} operators    ran"]
        ordered = sorted(counts.items(), key=lambda item: -item[1][1])
        lines += [f"  {name:<26} {of[0]:9.0f} {of[1] / 1e3:8.2f} ms" for name, of in ordered]
    lines += ["", "in order, runs of one module and phase together:"]
    groups: list[tuple[tuple[str, str], list[dict[str, Any]]]] = []
    for one in operators:
        key = (one["module"], one["phase"])
        if not groups or groups[-1][0] != key:
            groups.append((key, []))
        groups[-1][1].append(one)
    for (module, phase), some in groups[:_ROWS_MAX]:
        roles = list(dict.fromkeys(one["role"] for one in some if one["role"]))
        ran = sum(one["ran_us"] or 0.0 for one in some)
        figures = f"{len(some):4} {ran / 1e3:8.2f} ms"
        lines.append(f"  {module or '-':<40} {phase:<14} {figures}  {', '.join(roles)}")
    if len(groups) > _ROWS_MAX:
        lines.append(f"  and {len(groups) - _ROWS_MAX} more: format='html' or 'json' has all")
    return "\n".join(lines)
