"""Forecasts of numbers in time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .model import Inputs, Model, pretrained

_FORECASTER = {
    "prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 1,
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "scaling": "mean",
}  # fmt: skip


def _past_and_future() -> Inputs:
    return {
        "past_values": torch.rand(2, 10) + 0.5,
        "past_time_features": torch.rand(2, 10, 1),
        "past_observed_mask": torch.ones(2, 10),
        "future_values": torch.rand(2, 4) + 0.5,
        "future_time_features": torch.rand(2, 4, 1),
    }


def _forecaster(kind: str, **options: Any) -> Model:
    return Model(pretrained(kind, "ForPrediction", **{**_FORECASTER, **options}), _past_and_future)


def _of_patches(kind: str, **options: int) -> Model:
    return Model(
        pretrained(
            kind,
            "ForPrediction",
            context_length=16,
            patch_length=4,
            patch_stride=4,
            prediction_length=4,
            d_model=16,
            num_input_channels=2,
            **options,
        ),
        lambda: {"past_values": torch.randn(2, 16, 2), "future_values": torch.randn(2, 4, 2)},
    )


class Doubly(nn.Module):
    """Blocks that explain what the ones before left over (N-BEATS)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16)) for _ in range(3)
        )

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        forecast = torch.zeros_like(past[:, :4])
        for block in self.blocks:
            back, forward = block(past).split([12, 4], 1)
            past, forecast = past - back, forecast + forward
        return forecast


class Trend(nn.Module):
    """Trend and season apart (DLinear), with an error in quantiles."""

    def __init__(self) -> None:
        super().__init__()
        self.trend, self.season = nn.Linear(12, 4), nn.Linear(12, 4)
        self.register_buffer("quantiles", torch.tensor([0.1, 0.5, 0.9]))

    def forward(self, past: torch.Tensor) -> dict[str, torch.Tensor]:
        padded = functional.pad(past[:, None], (2, 2), mode="replicate")
        smooth = functional.avg_pool1d(padded, 5, 1)[:, 0]
        given = self.trend(smooth) + self.season(past - smooth)
        wrong = (past.roll(1, 1)[:, :4] - given)[..., None]
        loss = torch.maximum(self.quantiles * wrong, (self.quantiles - 1) * wrong).mean()
        return {"loss": loss, "given": given}


MODELS = {
    "time_series_transformer": _forecaster("TimeSeriesTransformer"),
    "informer": _forecaster("Informer", attention_type="full"),
    "autoformer": _forecaster("Autoformer", label_length=4, moving_average=3),
    "patchtst": _of_patches("PatchTST", ffn_dim=24),
    "patchtsmixer": _of_patches("PatchTSMixer", num_layers=2),
    "n_beats": Model(Doubly, lambda: {"past": torch.randn(3, 12)}),
    "d_linear": Model(Trend, lambda: {"past": torch.randn(3, 12)}),
}
