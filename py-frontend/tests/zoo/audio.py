"""Models of speech and sound."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .model import GENERATES, Inputs, Model, classes, pretrained

_WAVES = {
    "conv_dim": [16, 16], "conv_kernel": [10, 3], "conv_stride": [5, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True, "num_labels": 2,
    "classifier_proj_size": 16,
}  # fmt: skip
_LISTENER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "init_std": 0.2,
    "decoder_start_token_id": 2, "suppress_tokens": None, "begin_suppress_tokens": None,
    "max_target_positions": 40, "forced_eos_token_id": None,
}  # fmt: skip


def _speech(count: int = 400) -> Inputs:
    return {"input_values": torch.randn(2, count)}


def _classifier(kind: str, **options: Any) -> Model:
    build = pretrained(kind, "ForSequenceClassification", **{**_WAVES, **options})
    return Model(build, lambda: {**_speech(), "labels": classes()})


def _recognised() -> Inputs:
    return {**_speech(), "labels": torch.randint(2, 20, (2, 5))}


def _spoken() -> Inputs:
    """Spectra, and what is said."""
    return {"input_features": torch.randn(2, 8, 24), "labels": torch.randint(2, 119, (2, 5))}


def _spoken_in_rows() -> Inputs:
    inputs = _spoken()
    return {**inputs, "input_features": inputs["input_features"].mT.contiguous()}


class Separator(nn.Module):
    """Masks on a spectrogram: a sound goes in, and comes out of the inverse transform."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(32))
        self.cells = nn.GRU(17, 16, batch_first=True, bidirectional=True)
        self.mask = nn.Linear(32, 17)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(sound, 32, 8, window=self.window, return_complex=True)
        seen = self.cells(spectrum.abs().clamp(min=1e-5).log().mT)[0]
        masked = spectrum * torch.sigmoid(self.mask(seen)).mT
        return torch.istft(masked, 32, 8, window=self.window, length=sound.shape[1])


class DilatedConvolutions(nn.Module):
    """Convolutions that see ever further back, with weights of a norm of their own (WaveNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 8, 1)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 16, 2, dilation=2**depth))
            for depth in range(4)
        )
        self.head = nn.Conv1d(8, 16, 1)

    def forward(self, sound: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(sound[:, None])
        for depth, layer in enumerate(self.layers):
            x = x + functional.glu(layer(functional.pad(x, (2**depth, 0))), 1)
        logits = self.head(x)[..., :-1]
        target = ((sound[:, 1:].clamp(-2, 1.9) + 2) * 4).long()
        return {"loss": functional.cross_entropy(logits, target), "logits": logits}


class Recogniser(nn.Module):
    """A spectrum to letters that need not be aligned (CTC)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(8, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU())
        self.cells = nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 12)

    def forward(
        self, spectra: torch.Tensor, letters: torch.Tensor, lengths: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        scores = self.head(self.cells(self.layers(spectra).mT)[0]).log_softmax(2)
        frames = torch.full_like(lengths, scores.shape[1])
        loss = functional.ctc_loss(scores.transpose(0, 1).float(), letters, frames, lengths)
        return {"loss": loss, "scores": scores}


MODELS = {
    "wav2vec2": _classifier("Wav2Vec2"),
    "wav2vec2-ctc": Model(
        pretrained("Wav2Vec2", "ForCTC", **_WAVES, ctc_loss_reduction="mean"), _recognised
    ),
    "hubert": _classifier("Hubert"),
    "wavlm": _classifier("WavLM", num_buckets=16, max_bucket_distance=32),
    "sew": _classifier("SEW", squeeze_factor=2),
    "unispeech": _classifier("UniSpeech"),
    "data2vec_audio": _classifier("Data2VecAudio", conv_pos_kernel_size=3),
    "wav2vec2_conformer": _classifier("Wav2Vec2Conformer", conv_depthwise_kernel_size=3),
    "whisper": Model(
        pretrained(
            "Whisper",
            "ForConditionalGeneration",
            **_LISTENER,
            num_mel_bins=8,
            max_source_positions=12,
        ),
        _spoken,
        generates=GENERATES,
    ),
    "speech_to_text": Model(
        pretrained(
            "Speech2Text",
            "ForConditionalGeneration",
            **_LISTENER,
            input_feat_per_channel=8,
            input_channels=1,
            conv_channels=16,
            max_source_positions=40,
        ),
        _spoken_in_rows,
        generates=GENERATES,
    ),
    "moonshine": Model(
        pretrained(
            "Moonshine",
            "ForConditionalGeneration",
            encoder_num_hidden_layers=2,
            decoder_num_hidden_layers=2,
            encoder_num_attention_heads=4,
            decoder_num_attention_heads=4,
            decoder_start_token_id=1,
        ),
        lambda: {"input_values": torch.randn(2, 1600), "labels": torch.randint(2, 119, (2, 5))},
        generates=GENERATES,
    ),
    "audio_spectrogram": Model(
        pretrained(
            "AST",
            "ForAudioClassification",
            config="AST",
            max_length=24,
            num_mel_bins=16,
            patch_size=8,
            frequency_stride=4,
            time_stride=4,
            num_labels=2,
        ),
        lambda: {"input_values": torch.randn(2, 24, 16), "labels": classes()},
    ),
    "encodec": Model(
        pretrained(
            "Encodec",
            "Model",
            num_filters=4,
            upsampling_ratios=[4, 2],
            codebook_size=16,
            codebook_dim=32,
            hidden_size=32,
            num_lstm_layers=1,
            sampling_rate=1600,
            target_bandwidths=[1.0],
            normalize=False,
        ),
        lambda: {"input_values": torch.randn(1, 1, 320)},
    ),
    "separator": Model(Separator, lambda: {"sound": torch.randn(2, 128)}),
    "wave_net": Model(DilatedConvolutions, lambda: {"sound": torch.randn(2, 64)}),
    "recogniser": Model(
        Recogniser,
        lambda: {
            "spectra": torch.randn(2, 8, 20),
            "letters": torch.randint(1, 12, (2, 5)),
            "lengths": torch.tensor([5, 3]),
        },
    ),
}
