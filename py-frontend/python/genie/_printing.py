"""``repr`` of a remote tensor: what it shows is fetched, once, and no more."""

from __future__ import annotations

import torch

from ._indices import is_remote


def fetch_what_is_shown() -> None:
    """Make ``repr`` fetch a tensor as a whole or, of a large one, its edges."""
    from torch import _tensor_str  # noqa: PLC0415

    plain = _tensor_str._tensor_str

    def fetched(self: torch.Tensor, indent: int) -> str:
        if not is_remote(self) or self.layout != torch.strided or self.is_nested:
            return str(plain(self, indent))
        options = _tensor_str.PRINT_OPTS
        if self.numel() <= options.threshold:
            return str(plain(self.cpu(), indent))
        edges = _edges(self, options.edgeitems).cpu()
        # Only the edges are there, and they are shown as those of something large.
        with _tensor_str.printoptions(threshold=0):
            return str(plain(edges, indent))

    _tensor_str._tensor_str = fetched


def _edges(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """The first and last elements of each dimension, and one more of long ones: it is left out."""
    with torch.no_grad():
        for dim, size in enumerate(tensor.shape):
            if size > 2 * count + 1:
                ends = (
                    tensor.narrow(dim, 0, count + 1),
                    tensor.narrow(dim, size - count, count),
                )
                tensor = torch.cat(ends, dim)
    return tensor
