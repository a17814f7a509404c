"""What fails, and why, by model and mode."""

from __future__ import annotations

from itertools import product

KNOWN: dict[tuple[str, str], str] = {
    **dict.fromkeys(
        product(["fnet", "autoformer"], ["autocast"]),
        "autocast is as on CUDA, where what a transform takes is not widened",
    ),
}
