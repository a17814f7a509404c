"""Encoders and decoders: translation and summaries."""

from __future__ import annotations

import torch
from torch import nn

from .model import GENERATES, Inputs, Model, labelled, pretrained

_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "feed_forward_proj": "gated-gelu",
}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "init_std": 0.2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}


def _translator(kind: str, head: str = "ForConditionalGeneration", **options: object) -> Model:
    return Model(pretrained(kind, head, **options), labelled, generates=GENERATES)


def _trained(kind: str, head: str = "ForConditionalGeneration", **options: object) -> Model:
    """Only trained: the library's `generate` fails with it on any device."""
    return Model(pretrained(kind, head, **options), labelled)


class Translator(nn.Module):
    """PyTorch's own encoder and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Transformer(16, 2, 1, 2, 32, batch_first=True, norm_first=True)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(
            target.shape[1], device=target.device, dtype=target.dtype
        )
        return self.layers(source, target, tgt_mask=mask, tgt_is_causal=True)


def _pairs() -> Inputs:
    return {"source": torch.randn(2, 7, 16), "target": torch.randn(2, 5, 16)}


MODELS = {
    "t5": _translator("T5", **_T5),
    "mt5": _translator("MT5", **_T5),
    "umt5": _translator("UMT5", **_T5),
    "longt5": _translator("LongT5", **_T5, local_radius=3, encoder_attention_type="local"),
    "longt5-global": _translator(
        "LongT5",
        **_T5,
        local_radius=3,
        global_block_size=4,
        encoder_attention_type="transient-global",
    ),
    "switch_transformers": _trained(
        "SwitchTransformers",
        **_T5,
        num_experts=4,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        expert_capacity=8,
    ),
    "bart": _translator("Bart", **_BART),
    "mbart": _translator("MBart", **_BART),
    "marian": _translator("Marian", "MTModel", **_BART),
    "pegasus": _translator("Pegasus", **_BART),
    "pegasus_x": _translator("PegasusX", **_BART, block_size=4, num_global_tokens=2),
    "transformer-decoder": Model(Translator, _pairs),
    "blenderbot": _translator("Blenderbot", **_BART),
    "m2m_100": _translator("M2M100", **_BART),
    "nllb_moe": _translator(
        "NllbMoe",
        **_BART,
        num_experts=4,
        encoder_sparse_step=2,
        decoder_sparse_step=2,
        expert_capacity=8,
    ),
    "plbart": _translator("PLBart", **_BART),
    "led": _translator(
        "LED",
        **_BART,
        attention_window=[4, 4],
        max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=64,
    ),
    "bigbird_pegasus": _translator(
        "BigBirdPegasus", **_BART, block_size=2, num_random_blocks=1, attention_type="block_sparse"
    ),
    "fsmt": _translator(
        "FSMT", **_BART, langs=["en", "de"], src_vocab_size=120, tgt_vocab_size=120
    ),
}
