"""ResNet-18 and GPT-2 in plain PyTorch, with random weights from a seed: only torch is needed.

    python gpu_models.py --device cuda:0 OUT.pt

computes what `gpu_check.py` compares with, in a process that knows nothing of genie.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SEED = 20240229
PROMPT_TOKENS = 32
NEW_TOKENS = 16


class Block(nn.Module):
    """ResNet's basic block (arXiv:1512.03385, figure 5)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.short: nn.Module = nn.Identity()
        if before != after or stride != 1:
            self.short = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, before, H, W) to (N, after, H / stride, W / stride)."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.short(x))


class ResNet18(nn.Module):
    """ResNet-18 for 1000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        blocks = [[Block(a, b, s), Block(b, b, 1)] for a, b, s in widths]
        self.body = nn.Sequential(*[block for stage in blocks for block in stage])
        self.head = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) to scores (N, 1000)."""
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Layer(nn.Module):
    """A layer of GPT-2, with its cache of keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, past: list[Tensor]) -> Tensor:
        """Hidden states (N, T, width); `past` holds keys and values, and gets those of `x` too."""
        n, t, width = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if past:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        past[:] = [k, v]
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, width))
        return x + self.down(functional.gelu(self.up(self.ln2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    """GPT-2 small: 12 layers of 768, 12 heads, 50257 tokens."""

    def __init__(self) -> None:
        super().__init__()
        width = 768
        self.tokens, self.places = nn.Embedding(50257, width), nn.Embedding(1024, width)
        self.layers = nn.ModuleList(Layer(width, 12) for _ in range(12))
        self.ln = nn.LayerNorm(width)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, ids: Tensor, past: list[list[Tensor]]) -> Tensor:
        """Token ids (N, T) to scores (N, T, 50257); `past` has a list for each layer."""
        start = past[0][0].shape[2] if past[0] else 0
        at = torch.arange(start, start + ids.shape[1], device=ids.device)
        x = self.tokens(ids) + self.places(at)
        for layer, cache in zip(self.layers, past, strict=True):
            x = layer(x, cache)
        return functional.linear(self.ln(x), self.tokens.weight)


def resnet18(device: str) -> dict[str, Tensor]:
    """Scores of two images, and gradients of the first and the last weights."""
    torch.manual_seed(SEED)
    model = ResNet18().eval()
    images = torch.randn(2, 3, 224, 224)
    model, images = model.to(device), images.to(device)
    scores = model(images)
    functional.cross_entropy(scores, torch.tensor([3, 7], device=device)).backward()
    stem = next(model.stem.parameters()).grad
    head = model.head.weight.grad
    assert stem is not None, "backward made no gradient of the first weights"
    assert head is not None, "backward made no gradient of the last weights"
    return {"scores": scores.detach().cpu(), "stem": stem.cpu(), "head": head.cpu()}


def gpt2(device: str) -> dict[str, Tensor]:
    """Scores of a prompt's last token, and the tokens that follow it, greedily, with a cache."""
    torch.manual_seed(SEED)
    model = Gpt2().eval()
    ids = torch.randint(0, 50257, (1, PROMPT_TOKENS))
    model, ids = model.to(device), ids.to(device)
    past: list[list[Tensor]] = [[] for _ in model.layers]
    tokens = []
    with torch.inference_mode():
        scores = model(ids, past)[:, -1]
        first = scores.cpu()
        for _ in range(NEW_TOKENS):
            ids = scores.argmax(-1, keepdim=True)
            tokens.append(ids.cpu())
            scores = model(ids, past)[:, -1]
    return {"scores": first, "tokens": torch.cat(tokens, 1)}


MODELS: dict[str, Callable[[str], dict[str, Tensor]]] = {"resnet18": resnet18, "gpt2": gpt2}


def main() -> None:
    """Runs all models on a device of PyTorch's and saves what they compute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    torch.save({name: run(options.device) for name, run in MODELS.items()}, options.out)


if __name__ == "__main__":
    main()
