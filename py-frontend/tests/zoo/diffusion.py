"""Models that generate images by removing noise, and what goes with them."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from .model import Inputs, Model


def waves(times: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines of times."""
    rates = torch.exp(torch.arange(width // 2, device=times.device) * (-math.log(1e4) / width))
    angles = times[:, None].to(rates.dtype) * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Residual(nn.Module):
    """Convolutions between norms, shifted by the time."""

    def __init__(self, inside: int, outside: int, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(4, inside), nn.SiLU())
        self.convolution = nn.Conv2d(inside, outside, 3, padding=1)
        self.time = nn.Linear(width, 2 * outside)
        self.norm = nn.GroupNorm(4, outside)
        self.last = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        scale, shift = self.time(time)[..., None, None].chunk(2, 1)
        inner = self.norm(self.convolution(self.first(x))) * (1 + scale) + shift
        return self.skip(x) + self.last(functional.silu(inner))


class Attention(nn.Module):
    """Pixels look at each other, then at a text."""

    def __init__(self, width: int, text: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.pixels = nn.MultiheadAttention(width, 2, batch_first=True)
        self.text = nn.MultiheadAttention(width, 2, kdim=text, vdim=text, batch_first=True)

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        rows = self.norm(x).flatten(2).mT
        rows = rows + self.pixels(rows, rows, rows, need_weights=False)[0]
        rows = rows + self.text(rows, text, text, need_weights=False)[0]
        return x + rows.mT.reshape(x.shape)


class Unet(nn.Module):
    """Down, through attention, and up again with what was seen on the way down."""

    def __init__(self, width: int = 8, text: int = 12) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Sequential(nn.Linear(width, 16), nn.SiLU(), nn.Linear(16, 16))
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down = Residual(width, width, 16)
        self.shrink = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = Residual(2 * width, 2 * width, 16)
        self.attention = Attention(2 * width, text)
        self.grow = nn.Conv2d(2 * width, width, 3, padding=1)
        self.up = Residual(2 * width, width, 16)
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(
        self, images: torch.Tensor, times: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        time = self.embedding(waves(times, self.width).to(images.dtype))
        down = self.down(self.stem(images), time)
        middle = self.attention(self.middle(self.shrink(down), time), text)
        grown = self.grow(functional.interpolate(middle, scale_factor=2.0, mode="nearest"))
        return self.head(self.up(torch.cat([grown, down], 1), time))


class Denoising(nn.Module):
    """The loss of a U-Net that tells the noise from the image (DDPM)."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = Unet()
        self.register_buffer("kept", torch.cumprod(1 - torch.linspace(1e-4, 0.02, 100), 0))

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor, times: torch.Tensor, text: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        kept = self.kept[times][:, None, None, None]
        told = self.unet(kept.sqrt() * images + (1 - kept).sqrt() * noise, times, text)
        return {"loss": functional.mse_loss(told, noise), "told": told}


class Sampler(nn.Module):
    """Ten steps from noise to an image (DDIM)."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Denoising()

    def forward(self, noise: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        image, kept = noise, self.model.kept
        for step in range(90, 0, -10):
            times = torch.full((len(noise),), step, device=noise.device)
            told = self.model.unet(image, times, text)
            clean = ((image - (1 - kept[step]).sqrt() * told) / kept[step].sqrt()).clamp(-3, 3)
            image = kept[step - 10].sqrt() * clean + (1 - kept[step - 10]).sqrt() * told
        return image


class TransformerBlock(nn.Module):
    """A block whose norms the condition moves (adaLN)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(width, 32), nn.GELU("tanh"), nn.Linear(32, width))
        self.moves = nn.Linear(width, 6 * width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        moves = self.moves(functional.silu(condition))[:, None].chunk(6, 2)
        seen = self.norm(x) * (1 + moves[0]) + moves[1]
        x = x + moves[2] * self.attention(seen, seen, seen, need_weights=False)[0]
        return x + moves[5] * self.layers(self.norm(x) * (1 + moves[3]) + moves[4])


class Dit(nn.Module):
    """A transformer over patches that tells the flow from noise to images."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.positions = nn.Parameter(0.1 * torch.randn(1, 16, width))
        self.labels = nn.Embedding(5, width)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(2))
        self.head = nn.Linear(width, 3 * 16)

    def forward(
        self, images: torch.Tensor, noise: torch.Tensor, times: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        share = (times.to(images.dtype) / 100)[:, None, None, None]
        x = self.patches(share * images + (1 - share) * noise).flatten(2).mT + self.positions
        condition = waves(times, self.width).to(images.dtype) + self.labels(labels)
        for block in self.blocks:
            x = block(x, condition)
        flow = functional.pixel_shuffle(self.head(x).mT.reshape(-1, 48, 4, 4), 4)
        return {"loss": functional.mse_loss(flow, images - noise), "flow": flow}


def _images() -> Inputs:
    return {
        "images": torch.randn(2, 3, 16, 16),
        "noise": torch.randn(2, 3, 16, 16),
        "times": torch.tensor([7, 80]),
    }


MODELS = {
    "unet-denoising": Model(Denoising, lambda: {**_images(), "text": torch.randn(2, 5, 12)}),
    "unet-sampling": Model(
        Sampler, lambda: {"noise": torch.randn(1, 3, 16, 16), "text": torch.randn(1, 5, 12)}
    ),
    "dit": Model(Dit, lambda: {**_images(), "labels": torch.tensor([0, 3])}),
}
