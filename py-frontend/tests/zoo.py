"""A dozen small models of different kinds, with random weights, and what is done with each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn


@dataclass(frozen=True)
class Case:
    """A model and its work."""

    build: Callable[[], nn.Module]
    #: Makes the inputs, on the CPU.
    inputs: Callable[[], dict[str, torch.Tensor]]
    #: Options of ``generate``; without them the model is trained.
    generates: dict[str, Any] | None = None


def _config(kind: str, **options: Any) -> Any:
    small = {"vocab_size": 120, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1,
             "eos_token_id": 119}  # fmt: skip
    return getattr(transformers, kind)(**{**small, **options})


def _gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        n_layer=3, n_embd=32, n_head=4, vocab_size=120, n_positions=64, bos_token_id=1,
        eos_token_id=119,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def _llama() -> nn.Module:
    return transformers.LlamaForCausalLM(_config("LlamaConfig", num_key_value_heads=2))


def _mixtral() -> nn.Module:
    options = {"num_key_value_heads": 2, "num_local_experts": 3, "num_experts_per_tok": 2,
               "experts_implementation": "eager"}  # fmt: skip
    return transformers.MixtralForCausalLM(_config("MixtralConfig", **options))


def _t5() -> nn.Module:
    config = transformers.T5Config(
        vocab_size=120, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        decoder_start_token_id=0, eos_token_id=119,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def _bert() -> nn.Module:
    return transformers.BertForSequenceClassification(_config("BertConfig"))


def _vit() -> nn.Module:
    return transformers.ViTForImageClassification(
        _config("ViTConfig", image_size=32, patch_size=8, num_labels=5)
    )


def _clip() -> nn.Module:
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "vocab_size": 120, "max_position_embeddings": 16,
            "eos_token_id": 119, "bos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
              "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return transformers.CLIPModel(config)


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


class Recurrent(nn.Module):
    """An LSTM behind an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(120, 16)
        self.cells = nn.LSTM(16, 16, 2, batch_first=True)
        self.head = nn.Linear(16, 120)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(self.embedding(input_ids))[0])


class Recommender(nn.Module):
    """Two embedding tables, summed bags, and their interaction."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.EmbeddingBag(200, 8, mode="sum")
        self.items = nn.EmbeddingBag(300, 8, mode="sum")
        self.dense = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3))
        self.top = nn.Linear(11, 1)

    def forward(
        self, users: torch.Tensor, items: torch.Tensor, dense: torch.Tensor
    ) -> torch.Tensor:
        parts = [self.users(users), self.items(items), self.dense(dense)]
        stacked = torch.stack(parts, 1)
        dots = (stacked @ stacked.mT).reshape(len(dense), 9)[:, [1, 2, 5]]
        return self.top(torch.cat([parts[2], dots], 1))


class Transformer(nn.Module):
    """PyTorch's own encoder, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.2, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def _tokens(rows: int = 2, count: int = 9) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(2, 119, (rows, count))}


def _labelled() -> dict[str, torch.Tensor]:
    tokens = _tokens()
    return {**tokens, "labels": tokens["input_ids"]}


def _pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


_CLASSES = torch.tensor([1, 0])

ZOO = {
    "gpt2": Case(_gpt2, _labelled),
    "gpt2-generate": Case(_gpt2, _tokens, {"do_sample": True}),
    "llama": Case(_llama, _labelled),
    "llama-beams": Case(_llama, _tokens, {"num_beams": 2}),
    "mixtral": Case(_mixtral, _labelled),
    "t5": Case(_t5, _labelled),
    "t5-generate": Case(_t5, _tokens, {"do_sample": False}),
    "bert": Case(_bert, lambda: {**_tokens(), "labels": _CLASSES}),
    "vit": Case(_vit, lambda: {**_pixels(), "labels": _CLASSES}),
    "clip": Case(_clip, lambda: {**_tokens(), **_pixels()}),
    "convolutions": Case(Convolutions, _pixels),
    "recurrent": Case(Recurrent, _tokens),
    "recommender": Case(
        Recommender,
        lambda: {
            "users": torch.randint(200, (4, 3)),
            "items": torch.randint(300, (4, 5)),
            "dense": torch.randn(4, 4),
        },
    ),
    "transformer": Case(Transformer, lambda: {"x": torch.randn(2, 7, 16)}),
}


def _loss(output: Any) -> torch.Tensor:
    if torch.is_tensor(output):
        return output.float().square().mean()
    if output.get("loss") is not None:
        return output["loss"]
    return output["logits_per_image"].square().mean()


def run(case: Case, device: str, steps: int = 3) -> list[torch.Tensor]:
    """Do the case's work on a device: all that it gives, on the CPU."""
    torch.manual_seed(11)
    model = case.build()
    inputs = {name: value.to(device) for name, value in case.inputs().items()}
    # Dropout draws on the device.
    torch.manual_seed(12)
    model.to(device)
    if case.generates is not None:
        model.eval()
        options = {"max_new_tokens": 10, **case.generates}
        return [model.generate(**inputs, **options).cpu()]
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = _loss(model(**inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().cpu())
    state = [value.detach().cpu() for value in model.state_dict().values()]
    return losses + state
