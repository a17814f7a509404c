"""Recommenders: tables of embeddings, and how what they give meets."""

from __future__ import annotations

import torch
from torch import nn

from .model import Inputs, Model

USERS, ITEMS, WIDTH = 200, 300, 8


class Dlrm(nn.Module):
    """Two embedding tables, summed bags, and the products of all with each other."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.EmbeddingBag(USERS, WIDTH, mode="sum")
        self.items = nn.EmbeddingBag(ITEMS, WIDTH, mode="mean")
        self.bottom = nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), nn.Dropout(0.3))
        self.top = nn.Linear(WIDTH + 3, 1)

    def forward(
        self, users: torch.Tensor, items: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        parts = [self.users(users), self.items(items), self.bottom(dense)]
        stacked = torch.stack(parts, 1)
        products = (stacked @ stacked.mT).flatten(1)[:, [1, 2, 5]]
        return torch.sigmoid(self.top(torch.cat([parts[2], products], 1)))


class WideAndDeep(nn.Module):
    """A factorisation machine beside a perceptron (DeepFM)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(USERS + ITEMS, 1)
        self.second = nn.Embedding(USERS + ITEMS, WIDTH)
        self.deep = nn.Sequential(
            nn.Linear(8 * WIDTH, 16), nn.BatchNorm1d(16), nn.PReLU(), nn.Linear(16, 1)
        )

    def forward(
        self, users: torch.Tensor, items: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        fields = torch.cat([users, items + USERS], 1)
        factors = self.second(fields)
        pairs = (factors.sum(1).square() - factors.square().sum(1)).sum(1, keepdim=True) / 2
        return (
            self.first(fields).sum(1) + pairs + self.deep(factors.flatten(1)) + dense.sum(1, True)
        )


class Towers(nn.Module):
    """A tower for users and one for items, trained against the others of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.EmbeddingBag(USERS, WIDTH)
        self.items = nn.EmbeddingBag(ITEMS, WIDTH, mode="max")
        self.tower = nn.Linear(WIDTH + 4, WIDTH)

    def forward(
        self, users: torch.Tensor, items: torch.Tensor, dense: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        user = self.tower(torch.cat([self.users(users), dense], 1))
        user, item = (nn.functional.normalize(part) for part in (user, self.items(items)))
        logits = user @ item.T / 0.1
        target = torch.arange(len(logits), device=logits.device)
        return {"loss": nn.functional.cross_entropy(logits, target), "logits": logits}


class CrossNetwork(nn.Module):
    """Explicit products of features with each other (DCN v2), and gates of experts (MMoE)."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(USERS, WIDTH)
        width = 3 * WIDTH + 4
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.experts = nn.Parameter(torch.randn(3, width, 8) / width**0.5)
        self.gates = nn.Linear(width, 3)
        self.head = nn.Linear(8, 2)

    def forward(
        self, users: torch.Tensor, items: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        start = crossed = torch.cat([self.users(users).flatten(1), dense], 1)
        for cross in self.crosses:
            crossed = start * cross(crossed) + crossed
        given = torch.einsum("bw,ewo->beo", crossed, self.experts)
        return self.head(torch.einsum("be,beo->bo", self.gates(crossed).softmax(1), given))


def _visits() -> Inputs:
    return {
        "users": torch.randint(USERS, (4, 3)),
        "items": torch.randint(ITEMS, (4, 5)),
        "dense": torch.randn(4, 4),
    }


MODELS = {
    "dlrm": Model(Dlrm, _visits),
    "deepfm": Model(WideAndDeep, _visits),
    "two_towers": Model(Towers, _visits),
    "cross_network": Model(CrossNetwork, _visits),
}
