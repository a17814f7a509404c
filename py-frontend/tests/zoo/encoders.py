"""Encoders of text, with a head that they are trained with."""

from __future__ import annotations

import torch
from torch import nn

from .model import Inputs, Model, classes, pretrained, tokens


def _classified(count: int = 9) -> Inputs:
    return {**tokens(count=count), "labels": classes()}


def _labelled(count: int = 9) -> Inputs:
    inputs = tokens(count=count)
    return {**inputs, "labels": inputs["input_ids"]}


def _padded() -> Inputs:
    """A row that is shorter than the other."""
    inputs = _classified()
    inputs["attention_mask"][0, 6:] = 0
    return inputs


def _classifier(kind: str, head: str = "ForSequenceClassification", **options: object) -> Model:
    return Model(pretrained(kind, head, **options), _padded)


def _masked(kind: str, head: str = "ForMaskedLM", count: int = 9, **options: object) -> Model:
    return Model(pretrained(kind, head, **options), lambda: _labelled(count))


def _without_mask(inputs: Inputs) -> Inputs:
    return {name: value for name, value in inputs.items() if name != "attention_mask"}


def _tabular() -> Inputs:
    inputs = _labelled()
    return {**inputs, "token_type_ids": torch.randint(2, (2, 9, 7))}


def _boxes() -> Inputs:
    inputs = _labelled()
    corner = torch.randint(20, (2, 9, 2))
    return {**inputs, "bbox": torch.cat([corner, corner + torch.randint(1, 20, (2, 9, 2))], -1)}


class Transformer(nn.Module):
    """PyTorch's own encoder."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.2, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.layers(x, src_key_padding_mask=padding)


def _sequences() -> Inputs:
    return {"x": torch.randn(2, 7, 16), "padding": torch.arange(7) > torch.tensor([[6], [4]])}


MODELS = {
    "bert": _classifier("Bert"),
    "bert-masked": _masked("Bert"),
    "roberta": _classifier("Roberta"),
    "distilbert": _classifier("DistilBert", dim=32, hidden_dim=48, n_layers=2, n_heads=4),
    "albert": _classifier("Albert", embedding_size=16),
    "electra": _classifier("Electra", embedding_size=16),
    "deberta": _classifier("Deberta", relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "deberta_v2": _classifier("DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "mpnet": _classifier("MPNet"),
    "modernbert": _masked(
        "ModernBert",
        global_attn_every_n_layers=2,
        local_attention=4,
        cls_token_id=1,
        sep_token_id=2,
    ),
    "nomic_bert": _masked("NomicBert"),
    "eurobert": _masked("EuroBert"),
    "roformer": _masked("RoFormer", embedding_size=16),
    "fnet": Model(pretrained("FNet", "ForMaskedLM"), lambda: _without_mask(_labelled())),
    "longformer": _masked(
        "Longformer", attention_window=[4, 4], count=12, max_position_embeddings=66
    ),
    "big_bird": _masked("BigBird", block_size=4, num_random_blocks=1, count=40, hidden_act="gelu"),
    "convbert": _classifier("ConvBert", embedding_size=16, conv_kernel_size=3),
    "squeezebert": _classifier(
        "SqueezeBert",
        embedding_size=32,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
    ),
    "mobilebert": _classifier(
        "MobileBert", embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16
    ),
    "rembert": _classifier("RemBert", input_embedding_size=16, output_embedding_size=16),
    "nystromformer": _masked("Nystromformer", num_landmarks=4, segment_means_seq_len=12, count=12),
    "ibert": _classifier("IBert", quant_mode=False),
    "flaubert": _classifier("Flaubert", emb_dim=32, n_layers=2, n_heads=4, n_words=120),
    "reformer": Model(
        pretrained(
            "Reformer",
            "ForMaskedLM",
            is_decoder=False,
            attn_layers=["local", "local"],
            attention_head_size=8,
            axial_pos_shape=[4, 4],
            axial_pos_embds_dim=[16, 16],
            feed_forward_size=48,
            local_attn_chunk_length=4,
            hash_seed=1,
        ),
        lambda: _labelled(16),
    ),
    "canine": _classifier(
        "Canine",
        num_hash_functions=2,
        num_hash_buckets=64,
        local_transformer_stride=4,
        downsampling_rate=2,
        upsampling_kernel_size=2,
    ),
    "esm": _masked("Esm", position_embedding_type="rotary", mask_token_id=2, token_dropout=True),
    "perceiver": Model(
        pretrained(
            "Perceiver",
            "ForMaskedLM",
            num_latents=6,
            d_latents=16,
            d_model=16,
            num_blocks=1,
            num_self_attends_per_block=2,
            num_self_attention_heads=2,
            num_cross_attention_heads=2,
            max_position_embeddings=16,
            qk_channels=16,
            v_channels=16,
        ),
        lambda: {"inputs" if k == "input_ids" else k: v for k, v in _labelled(16).items()},
    ),
    "tapas": Model(pretrained("Tapas", "ForMaskedLM"), _tabular),
    "layoutlm": Model(pretrained("LayoutLM", "ForMaskedLM", max_2d_position_embeddings=64), _boxes),
    "transformer": Model(Transformer, _sequences),
    "xmod": _masked("Xmod", languages=["en", "de"], default_language="en"),
}
