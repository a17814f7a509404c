"""Models of distributions: variational, adversarial, by change of variables, by energy."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .model import Inputs, Model


class VariationalAutoencoder(nn.Module):
    """The noise is an input, as a device draws other numbers than the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 16)
        )
        self.decoder = nn.Sequential(
            nn.Linear(8, 8 * 64), nn.Unflatten(1, (8, 8, 8)), nn.ELU(),
            nn.ConvTranspose2d(8, 3, 4, 2, 1),
        )  # fmt: skip

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        mean, spread = self.encoder(images).chunk(2, 1)
        made = self.decoder(mean + noise * (spread / 2).exp())
        far = -0.5 * (1 + spread - mean.square() - spread.exp()).sum(1).mean()
        return {"loss": functional.mse_loss(made, images) + 0.01 * far, "made": made}


class VectorQuantised(nn.Module):
    """Vectors are replaced by the nearest of a book; gradients pass straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 4, 4)
        self.book = nn.Embedding(16, 8)
        self.decoder = nn.ConvTranspose2d(8, 3, 4, 4)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.encoder(images).permute(0, 2, 3, 1)
        flat = found.reshape(-1, 8)
        nearest = torch.cdist(flat, self.book.weight).argmin(1)
        chosen = self.book(nearest).view_as(found)
        through = found + (chosen - found).detach()
        made = self.decoder(through.permute(0, 3, 1, 2))
        kept = functional.mse_loss(chosen, found.detach())
        kept = kept + 0.25 * functional.mse_loss(found, chosen.detach())
        return {"loss": functional.mse_loss(made, images) + kept, "nearest": nearest}


class Adversaries(nn.Module):
    """A generator, and a critic with a penalty on its gradient (WGAN-GP)."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(0.2), nn.Linear(32, 16))
        self.critic = nn.utils.parametrizations.spectral_norm(nn.Linear(16, 32))
        self.head = nn.Linear(32, 1)

    def judge(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(functional.softplus(self.critic(rows)))

    def forward(
        self, real: torch.Tensor, noise: torch.Tensor, share: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        made = self.generator(noise)
        between = share * real + (1 - share) * made
        if not torch.is_grad_enabled():
            return {"made": made, "judged": self.judge(between)}
        if not between.requires_grad:
            between = between.requires_grad_()
        (slope,) = torch.autograd.grad(self.judge(between).sum(), between, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean()
        gap = self.judge(made).mean() - self.judge(real).mean()
        return {"loss": gap + 10 * penalty + made.square().mean(), "made": made}


class Coupling(nn.Module):
    """An invertible network whose determinant is known (RealNVP)."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 8)) for _ in range(3)
        )

    def forward(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        volume = torch.zeros_like(rows[:, 0])
        for part in self.parts:
            left, right = rows.chunk(2, 1)
            scale, shift = part(left).chunk(2, 1)
            scale = scale.tanh()
            rows = torch.cat([right * scale.exp() + shift, left], 1)
            volume = volume + scale.sum(1)
        normal = torch.distributions.Normal(torch.zeros_like(rows), torch.ones_like(rows))
        return {"loss": -(normal.log_prob(rows).sum(1) + volume).mean(), "rows": rows}


class Mixture(nn.Module):
    """A density by a mixture of normal distributions (MDN)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Hardtanh(), nn.Linear(16, 9))

    def forward(self, rows: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        logits, mean, spread = self.body(rows).chunk(3, 1)
        distance = (target[:, None] - mean) / functional.softplus(spread)
        score = -0.5 * distance.square() - functional.softplus(spread).log()
        return {"loss": -(logits.log_softmax(1) + score).logsumexp(1).mean(), "mean": mean}


def _images() -> Inputs:
    return {"images": torch.randn(2, 3, 16, 16)}


MODELS = {
    "vae": Model(VariationalAutoencoder, lambda: {**_images(), "noise": torch.randn(2, 8)}),
    "vq_vae": Model(VectorQuantised, _images),
    "wgan_gp": Model(
        Adversaries,
        lambda: {
            "real": torch.randn(6, 16),
            "noise": torch.randn(6, 8),
            "share": torch.rand(6, 1),
        },
    ),
    "real_nvp": Model(Coupling, lambda: {"rows": torch.randn(6, 8)}),
    "mixture_density": Model(
        Mixture, lambda: {"rows": torch.randn(6, 4), "target": torch.randn(6)}
    ),
}
