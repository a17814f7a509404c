"""What a program was taken for: ``genie.explain`` tells it, ``genie.export_srg`` writes it down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import genie

from . import _annotate
from ._profile import Profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike


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
    to look at. A program of more than 65,536 operators and inputs raises ``ValueError``.

    >>> model = torch.nn.Linear(4, 2).to("remote_accelerator:0")
    >>> told = genie.explain(model, torch.ones(1, 4, device="remote_accelerator:0"), format="json")
    >>> import json
    >>> [one["op"] for one in json.loads(told)["operators"]]
    ['aten::addmm']
    """
    if format not in ("text", "json", "html"):
        raise ValueError(f'format is {format!r}: it may be "text", "json" or "html"')
    profile = _recorded(callable, inputs)
    dropped = profile.dropped + profile._transcript.dropped
    warnings = [f"{dropped} records had no room and are missing here"] if dropped else []
    told: str = profile._transcript.explain(format, *_known(profile), warnings)
    return told


def export_srg(callable: Callable[..., Any], *inputs: Any, path: str | PathLike[str]) -> None:  # noqa: A002
    """Run ``callable(*inputs)`` once, and write the graph with all that is known of it to ``path``.

    The semantically rich graph: operators and the tensors between them, phases, roles, residency,
    costs, modules, lines. A name that ends in ``.json`` makes it canonical proto3 JSON, any other
    protobuf (``genie/srg/v1/srg.proto``); ``genie-controlplane explain`` reads both.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.json"
    >>> model = torch.nn.Linear(4, 2).to("remote_accelerator:0")
    >>> genie.export_srg(model, torch.ones(1, 4, device="remote_accelerator:0"), path=path)
    >>> "aten::addmm" in path.read_text()
    True
    """
    profile = _recorded(callable, inputs)
    if profile.dropped or profile._transcript.dropped:
        raise ValueError("this program has more records than a graph has room for")
    path = Path(path)
    path.write_bytes(profile._transcript.export(path.suffix == ".json", *_known(profile)))


def _recorded(run: Callable[..., Any], inputs: tuple[Any, ...]) -> Profile:
    profile = Profile(None, _annotate.site_of_caller(), is_whole=True)
    with profile:
        run(*inputs)
    return profile


def _known(profile: Profile) -> tuple[list[tuple[str, str, float | None]], list[str]]:
    """What is known of each record besides, and the names of devices."""
    records = profile.records
    known = [
        (one.module, one.line, None if one.ran_from is None else one.ran * 1e6)
        for one in (records[at] for at in profile._of_captured)
    ]
    return known, [f"{one.node}/{one.name}" for one in genie.devices()]
