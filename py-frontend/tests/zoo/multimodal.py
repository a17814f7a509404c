"""Models of text together with images or sounds."""

from __future__ import annotations

from typing import Any

import torch

from .model import GENERATES, SMALL, VOCABULARY, Inputs, Model, pixels, pretrained, tokens

_TEXT = {**SMALL, "max_position_embeddings": 32}
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
           "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip


def _pairs() -> Inputs:
    return {**tokens(), **pixels()}


def _matched(kind: str, head: str = "Model", **options: Any) -> Model:
    """Trained to tell which text belongs to which image."""
    given = {"text_config": _TEXT, "vision_config": _VISION, "projection_dim": 16, **options}
    return Model(pretrained(kind, head, **given), lambda: {**_pairs(), "return_loss": True})


def _asked(image_token: int, count: int) -> Inputs:
    """A question, after as many places as an image takes."""
    ids = torch.cat([torch.full((2, count), image_token), tokens(count=5)["input_ids"]], 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels(), "labels": ids}


_IMAGE_TOKEN = VOCABULARY - 2
_LLAMA = {"model_type": "llama", **SMALL}

MODELS = {
    "clip": _matched("CLIP"),
    "siglip": _matched("Siglip"),
    "chinese_clip": _matched("ChineseCLIP"),
    "altclip": _matched("AltCLIP", text_config={**_TEXT, "project_dim": 16}),
    "blip": _matched("Blip", text_config={**_TEXT, "encoder_hidden_size": 32}),
    "owlvit": _matched("OwlViT"),
    "git": Model(
        pretrained("Git", "ForCausalLM", vision_config=_VISION),
        lambda: _pairs(),
        generates=GENERATES,
    ),
    "llava": Model(
        pretrained(
            "Llava",
            "ForConditionalGeneration",
            text_config=_LLAMA,
            vision_config={"model_type": "clip_vision_model", **_VISION},
            image_token_id=_IMAGE_TOKEN,
            image_token_index=_IMAGE_TOKEN,
            vision_feature_layer=-1,
        ),
        lambda: _asked(_IMAGE_TOKEN, 16),
        generates=GENERATES,
    ),
    "paligemma": Model(
        pretrained(
            "PaliGemma",
            "ForConditionalGeneration",
            text_config={"model_type": "gemma", "head_dim": 8, **SMALL},
            vision_config={
                "model_type": "siglip_vision_model",
                **_VISION,
                "vision_use_head": False,
            },
            image_token_id=_IMAGE_TOKEN,
            image_token_index=_IMAGE_TOKEN,
            projection_dim=32,
        ),
        lambda: {
            **_asked(_IMAGE_TOKEN, 16),
            "token_type_ids": torch.zeros(2, 21, dtype=torch.long),
        },
        generates=GENERATES,
    ),
    "vilt": Model(
        pretrained("Vilt", "ForQuestionAnswering", **_VISION, num_labels=3, max_image_length=-1),
        lambda: {**_pairs(), "labels": torch.rand(2, 3)},
    ),
}
