"""Networks on graphs and sets of points, by gathering along edges and scattering to nodes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .model import Inputs, Model

NODES, EDGES, FEATURES, CLASSES = 12, 40, 8, 4


class GraphConvolution(nn.Module):
    """Sums over neighbours, weighed by how many there are (GCN)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)])

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        source, target = edges
        ones = torch.ones_like(source, dtype=x.dtype)
        degree = torch.zeros_like(x[:, 0]).index_add(0, target, ones)
        weight = degree.clamp(min=1).rsqrt()
        for layer in self.layers:
            messages = layer(x)[source] * (weight[source] * weight[target])[:, None]
            x = torch.zeros_like(messages[:1]).expand(NODES, -1).index_add(0, target, messages)
            x = functional.relu(x)
        return x


class GraphAttention(nn.Module):
    """A softmax over the edges that arrive at a node (GAT)."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Linear(FEATURES, 16, bias=False)
        self.score = nn.Linear(32, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        source, target = edges
        values = self.values(x)
        scores = self.score(torch.cat([values[source], values[target]], 1)).squeeze(1)
        scores = functional.leaky_relu(scores, 0.2)
        lowest = torch.full_like(values[:, 0], -1e4)
        highest = lowest.scatter_reduce(0, target, scores.detach(), "amax")
        weights = (scores - highest[target]).exp()
        total = torch.zeros_like(highest).scatter_add(0, target, weights)
        weights = weights / total[target]
        sent = (weights[:, None] * values[source]).to(values.dtype)
        gathered = torch.zeros_like(values).index_add(0, target, sent)
        return self.head(functional.elu(gathered))


class Sage(nn.Module):
    """Means and maxima of neighbours (GraphSAGE), and a mean over each graph."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(FEATURES, 8)
        self.largest = nn.Linear(FEATURES, 8)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, graphs: torch.Tensor) -> torch.Tensor:
        source, target = edges
        where = target[:, None].expand(-1, FEATURES)
        mean = torch.zeros_like(x).scatter_reduce(0, where, x[source], "mean", include_self=False)
        top = torch.zeros_like(x).scatter_reduce(0, where, x[source], "amax", include_self=False)
        both = functional.selu(torch.cat([self.mean(mean), self.largest(top)], 1))
        pooled = both.new_zeros(2, 16).index_reduce(0, graphs, both, "mean", include_self=False)
        return self.head(pooled)


class Dense(nn.Module):
    """Steps of a GRU along an adjacency matrix (GGNN), and its spectrum."""

    def __init__(self) -> None:
        super().__init__()
        self.messages = nn.Linear(FEATURES, FEATURES)
        self.cell = nn.GRUCell(FEATURES, FEATURES)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        adjacency = x.new_zeros(NODES, NODES)
        adjacency = adjacency.index_put(tuple(edges), x.new_ones(EDGES), accumulate=True)
        for _ in range(3):
            x = self.cell(adjacency @ self.messages(x) / NODES, x)
        return x


class SparseProducts(nn.Module):
    """Products with a sparse adjacency matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 16)
        self.last = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        ones = torch.ones(EDGES, device=x.device, dtype=x.dtype)
        adjacency = torch.sparse_coo_tensor(edges, ones, (NODES, NODES)).coalesce()
        hidden = torch.sparse.mm(adjacency, self.first(x)).relu()
        return torch.sparse.mm(adjacency, self.last(hidden))


class Points(nn.Module):
    """A network of points: each alone, those near each other, all together (PointNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.edges = nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        near = torch.cdist(points, points).topk(4, largest=False).indices
        each = self.alone(points.mT).mT
        rows = torch.arange(len(points), device=points.device)[:, None, None]
        others = each[rows, near]
        pairs = torch.cat([others, (each[:, :, None] - others)], 3).permute(0, 3, 1, 2)
        return self.head(self.edges(pairs).amax(3).amax(2))


def _graph() -> Inputs:
    return {"x": torch.randn(NODES, FEATURES), "edges": torch.randint(NODES, (2, EDGES))}


MODELS = {
    "gcn": Model(GraphConvolution, _graph),
    "gat": Model(GraphAttention, _graph),
    "graph_sage": Model(
        Sage, lambda: {**_graph(), "graphs": torch.arange(NODES).div(7, rounding_mode="floor")}
    ),
    "ggnn": Model(Dense, _graph),
    "gcn-sparse": Model(SparseProducts, _graph),
    "point_net": Model(Points, lambda: {"points": torch.randn(2, 10, 3)}),
}
