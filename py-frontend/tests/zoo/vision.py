"""Transformers on images."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

from .model import Inputs, Model, classified_pixels, pixels, pretrained

_IMAGES = {"image_size": 32, "patch_size": 8, "num_labels": 2}
_STAGES = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4,
           "image_size": 32, "patch_size": 2, "num_labels": 2,
           "num_hidden_layers": 2}  # fmt: skip


def _classifier(kind: str, head: str = "ForImageClassification", **options: Any) -> Model:
    return Model(pretrained(kind, head, **{**_IMAGES, **options}), classified_pixels)


def _staged(kind: str) -> Model:
    """Its configuration reckons with heads a stage, and won't be told of heads in general."""
    return Model(
        lambda: getattr(transformers, f"{kind}ForImageClassification")(
            getattr(transformers, f"{kind}Config")(**_STAGES)
        ),
        classified_pixels,
    )


def _large(kind: str, **options: Any) -> Model:
    """With enough pixels left at the end for a batch norm to be no lottery."""
    build = pretrained(kind, "ForImageClassification", **{**_IMAGES, "image_size": 128, **options})
    return Model(build, lambda: classified_pixels(128))


def _masked_patches() -> Inputs:
    return {**pixels(), "bool_masked_pos": torch.rand(2, 16) < 0.5}


def _noisy_pixels() -> Inputs:
    """With the numbers that choose what is masked: they are not drawn on the device."""
    return {**pixels(), "noise": torch.rand(2, 16)}


class Mixer(nn.Module):
    """An MLP-Mixer: products over patches and over channels in turns."""

    def __init__(self, width: int = 16, patches: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 8, 8)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.over_patches = nn.ModuleList(_perceptron(patches) for _ in range(2))
        self.over_channels = nn.ModuleList(_perceptron(width) for _ in range(2))
        self.head = nn.Linear(width, 5)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = self.stem(pixel_values).flatten(2).transpose(1, 2)
        for layer in range(2):
            mixed = self.over_patches[layer](self.norms[2 * layer](x).transpose(1, 2))
            x = x + mixed.transpose(1, 2)
            x = x + self.over_channels[layer](self.norms[2 * layer + 1](x))
        return self.head(x.mean(1))


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


MODELS = {
    "vit": _classifier("ViT"),
    "deit": _classifier("DeiT"),
    "beit": _classifier("Beit", use_relative_position_bias=True, use_mask_token=True),
    "dinov2": _classifier("Dinov2"),
    "dinov2_with_registers": _classifier("Dinov2WithRegisters"),
    "swin": _staged("Swin"),
    "swinv2": _staged("Swinv2"),
    "focalnet": _classifier("FocalNet", **_STAGES, focal_levels=[2, 2], focal_windows=[3, 3]),
    "hiera": _classifier(
        "Hiera",
        embed_dim=16,
        image_size=[32, 32],
        patch_size=[3, 3],
        patch_stride=[2, 2],
        patch_padding=[1, 1],
        depths=[1, 1],
        num_heads=[1, 2],
        masked_unit_size=[4, 4],
        masked_unit_attention=[True, False],
        query_stride=[2, 2],
        num_query_pool=1,
        embed_dim_multiplier=2.0,
    ),
    "pvt": _classifier(
        "Pvt",
        depths=[1, 1],
        hidden_sizes=[16, 32],
        num_encoder_blocks=2,
        num_attention_heads=[1, 2],
        sequence_reduction_ratios=[2, 1],
        patch_sizes=[4, 2],
        strides=[4, 2],
        mlp_ratios=[2, 2],
    ),
    "pvt_v2": _classifier(
        "PvtV2",
        depths=[1, 1],
        hidden_sizes=[16, 32],
        num_encoder_blocks=2,
        num_attention_heads=[1, 2],
        sr_ratios=[2, 1],
        patch_sizes=[7, 3],
        strides=[4, 2],
        mlp_ratios=[2, 2],
    ),
    "mobilevit": _large(
        "MobileViT",
        hidden_sizes=[16, 24, 32],
        patch_size=2,
        neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
    ),
    "poolformer": _classifier("PoolFormer", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "vit_mae": Model(
        pretrained(
            "ViTMAE",
            "ForPreTraining",
            **_IMAGES,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=24,
        ),
        _noisy_pixels,
    ),
    "beit-masked": Model(
        pretrained("Beit", "ForMaskedImageModeling", **_IMAGES, use_mask_token=True),
        _masked_patches,
    ),
    "ijepa": _classifier("IJepa"),
    "mlp_mixer": Model(Mixer, pixels),
}
