"""Where in an image something is: boxes, masks, depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchvision
import transformers
from torch import nn
from torch.nn import functional
from torchvision.models import detection

from .model import Inputs, Model, pixels, pretrained

_segmentation = torchvision.models.segmentation


class Unet(nn.Module):
    """Down and up again with transposed convolutions, and masks with a loss of overlap (Dice)."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.InstanceNorm2d(16), nn.SiLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, images: torch.Tensor, masks: torch.Tensor) -> dict[str, torch.Tensor]:
        outer = self.outer(images)
        inner = self.up(self.inner(functional.max_pool2d(outer, 2)))
        logits = self.head(torch.cat([outer, inner], 1))
        shares = torch.sigmoid(logits)
        dice = 1 - 2 * (shares * masks).sum() / (shares + masks).sum()
        loss = functional.binary_cross_entropy_with_logits(logits, masks) + dice
        return {"loss": loss, "logits": logits}


class OneStage(nn.Module):
    """Boxes of a grid, and those that are left after suppression (as YOLO has it)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, 2, 1),
            nn.SiLU(),
        )  # fmt: skip
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = self.body(images)
        given = self.head(torch.cat([seen, self.pool(seen)], 1)).flatten(2).mT
        centre, size, score = given.split([2, 2, 1], 2)
        boxes = torch.cat([centre - size.exp(), centre + size.exp()], 2)
        results = {"loss": given.float().square().mean(), "boxes": boxes}
        if not self.training and boxes.dtype == torch.float32 and not torch.compiler.is_compiling():
            results["kept"] = torchvision.ops.nms(boxes[0], score[0, :, 0], 0.5)
        return results


class Regions(nn.Module):
    """Pooled from boxes of a feature map, with deformable convolutions before."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(3, 18, 3, padding=1)
        self.body = torchvision.ops.DeformConv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8 * 9, 5)

    def forward(self, images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        seen = self.body(images, self.offsets(images))
        regions = torchvision.ops.roi_align(seen, boxes, (3, 3), sampling_ratio=2, aligned=True)
        return self.head(regions.flatten(1))


def _boxes() -> Inputs:
    corner = torch.rand(4, 2) * 8
    return {
        "images": torch.randn(2, 3, 16, 16),
        "boxes": torch.cat([torch.tensor([[0.0], [0], [1], [1]]), corner, corner + 6], 1),
    }


def _torchvision(build: Callable[..., nn.Module], **options: Any) -> Model:
    """Two images of enough pixels for a batch norm to be no lottery."""
    return Model(
        lambda: build(weights=None, weights_backbone=None, **options),
        lambda: {"input": torch.randn(2, 3, 64, 64)},
    )


class Detector(nn.Module):
    """One of torchvision's, whose losses in training are summed and whose boxes are listed."""

    def __init__(self, build: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.detector = build(weights=None, weights_backbone=None, num_classes=3, **options)

    def forward(self, images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> Any:
        targets = [{"boxes": boxes, "labels": labels} for _ in images]
        given = self.detector(list(images), targets if self.training else None)
        return {"loss": sum(given.values())} if self.training else given


def _detector(build: Callable[..., nn.Module], **options: Any) -> Model:
    return Model(
        lambda: Detector(build, **options),
        lambda: {
            "images": torch.rand(2, 3, 64, 64),
            "boxes": torch.tensor([[5.0, 8, 30, 40], [20, 20, 60, 50]]),
            "labels": torch.tensor([1, 2]),
        },
    )


def _segmented() -> Inputs:
    return {**pixels(64), "labels": torch.randint(3, (2, 64, 64))}


def _backbone() -> Any:
    return transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1],
        out_features=["stage4"],
    )  # fmt: skip


def _detr() -> nn.Module:
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(
            use_timm_backbone=False, backbone=None, use_pretrained_backbone=False,
            backbone_config=_backbone(), d_model=32, encoder_layers=1, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
            decoder_ffn_dim=48, num_queries=6, num_labels=3,
        )
    )  # fmt: skip


MODELS = {
    "unet": Model(
        Unet,
        lambda: {
            "images": torch.randn(2, 3, 16, 16),
            "masks": (torch.rand(2, 1, 16, 16) < 0.4).float(),
        },
    ),
    "one_stage": Model(OneStage, lambda: {"images": torch.randn(2, 3, 32, 32)}),
    "regions": Model(Regions, _boxes),
    "lraspp": _torchvision(_segmentation.lraspp_mobilenet_v3_large, num_classes=3),
    "ssdlite": _detector(detection.ssdlite320_mobilenet_v3_large),
    "faster_rcnn": _detector(
        detection.fasterrcnn_mobilenet_v3_large_320_fpn, min_size=64, max_size=64
    ),
    "segformer": Model(
        pretrained(
            "Segformer",
            "ForSemanticSegmentation",
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[16, 32],
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
            decoder_hidden_size=16,
            num_labels=3,
        ),
        _segmented,
    ),
    "detr": Model(_detr, lambda: pixels(64)),
    "yolos": Model(
        pretrained(
            "Yolos",
            "ForObjectDetection",
            image_size=[64, 64],
            patch_size=16,
            num_detection_tokens=6,
            num_labels=3,
        ),
        lambda: pixels(64),
    ),
    "depth": Model(
        pretrained(
            "GLPN",
            "ForDepthEstimation",
            num_encoder_blocks=4,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 16, 16],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=8,
            mlp_ratios=[2, 2, 2, 2],
        ),
        lambda: {**pixels(64), "labels": torch.rand(2, 64, 64)},
    ),
}
