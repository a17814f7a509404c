"""What is compiled for a test, as plans that it can look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from genie import _compile
from torch import nn

#: Those of the test that runs (`compiled_anew`).
plans: list[_compile.Plan] = []


def backend(module: Any, _inputs: list[Any]) -> Callable[..., Any]:
    """Genie's, whose plans can be looked at."""
    plan = _compile.Plan(module)
    plans.append(plan)
    return lambda *inputs: _compile.run(plan, inputs)


def compiled(what: Any, **options: Any) -> Any:
    return torch.compile(what, backend=backend, **options)


def programs() -> list[int]:
    """The calls of each program, of all graphs."""
    return [calls for plan in plans for calls in plan.programs.calls]


class Block(nn.Module):
    """A transformer's layer, without what follows attention."""

    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        q, k, v = self.attention(self.norm(x)).view(rows, length, 3, 2, width // 2).unbind(2)
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).contiguous().reshape(rows, length, width).contiguous()
        return x + self.dropout(self.out(mixed))
