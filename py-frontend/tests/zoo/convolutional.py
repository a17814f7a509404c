"""Convolutions on images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
import transformers
from torch import nn
from torchvision.models import densenet, resnet

from .model import Model, classes, pixels


class Convolutions(nn.Module):
    """Convolutions with batch norms, whose statistics are written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.SiLU())
        self.up = nn.ConvTranspose2d(16, 3, 4, 2, 1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        down = self.down(pixel_values)
        return self.up(torch.cat([down, self.middle(down)], 1))


class Video(nn.Module):
    """Convolutions in three dimensions, grouped ones, and norms of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 8, 3, padding=1, groups=4), nn.InstanceNorm3d(8, affine=True), nn.Mish(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.layers(frames)


def _vision(build: Callable[[], nn.Module]) -> Model:
    """Of torchvision, with enough pixels left at the end for a batch norm to be no lottery."""
    return Model(build, lambda: {"x": torch.randn(4, 3, 64, 64)})


def _classifier(kind: str, **options: Any) -> Model:
    return Model(
        lambda: getattr(transformers, f"{kind}ForImageClassification")(
            getattr(transformers, f"{kind}Config")(num_labels=2, **options)
        ),
        lambda: {**pixels(64), "labels": classes()},
    )


_STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "embedding_size": 8}
_models = torchvision.models

MODELS = {
    "convolutions": Model(Convolutions, pixels),
    "video": Model(Video, lambda: {"frames": torch.randn(2, 3, 4, 8, 8)}),
    "resnet18": _vision(_models.resnet18),
    "resnet-bottlenecks": _vision(lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 5)),
    "resnext": _vision(
        lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], 5, groups=4, width_per_group=4)
    ),
    "densenet": _vision(lambda: densenet.DenseNet(8, (2, 2), 16, num_classes=5)),
    "densenet-checkpointed": _vision(
        lambda: densenet.DenseNet(8, (2, 2), 16, num_classes=5, memory_efficient=True)
    ),
    "squeezenet": _vision(lambda: _models.squeezenet1_1(num_classes=5)),
    "mobilenet_v2": _vision(lambda: _models.mobilenet_v2(width_mult=0.25, num_classes=5)),
    "mobilenet_v3": _vision(lambda: _models.mobilenet_v3_small(width_mult=0.5, num_classes=5)),
    "shufflenet": _vision(lambda: _models.shufflenet_v2_x0_5(num_classes=5)),
    "mnasnet": _vision(lambda: _models.mnasnet0_5(num_classes=5)),
    "efficientnet": _vision(lambda: _models.efficientnet_b0(num_classes=5)),
    "regnet": _vision(lambda: _models.regnet_y_400mf(num_classes=5)),
    "googlenet": _vision(lambda: _models.GoogLeNet(5, aux_logits=False, init_weights=False)),
    "convnext": _classifier("ConvNext", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "convnextv2": _classifier("ConvNextV2", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "regnet-transformers": _classifier("RegNet", **_STAGES, groups_width=8),
    "bit": _classifier("Bit", **_STAGES, num_groups=4),
}
