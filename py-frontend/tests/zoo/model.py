"""What a model of the zoo is, and what those of the `transformers` library have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import nn
from torch.utils import _pytree as pytree

VOCABULARY = 120
Inputs = dict[str, Any]
#: Options of ``generate``, by what a way to generate is called. Random weights like to repeat
#: themselves, which would be too easy.
GENERATES = {
    "greedy": {"do_sample": False, "no_repeat_ngram_size": 1},
    "beams": {"num_beams": 2, "no_repeat_ngram_size": 1},
}

#: What configurations of `transformers` call the sizes of a model. The weights are spread enough
#: for tokens to differ.
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 119,
}  # fmt: skip


def loss_of(output: Any) -> torch.Tensor:
    """What the model itself calls its loss, else the mean square of all that it gives."""
    if isinstance(output, Mapping) and output.get("loss") is not None:
        return output["loss"]
    results = [
        leaf.float().square().mean()
        for leaf in pytree.tree_leaves(output)
        if torch.is_tensor(leaf) and leaf.is_floating_point()
    ]
    return torch.stack(results).sum()


@dataclass(frozen=True)
class Model:
    """A model, its inputs on the CPU, and what is to be made small."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    loss: Callable[[Any], torch.Tensor] = loss_of
    #: Ways to generate; none for a model that can't.
    generates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def settings(kind: str, **options: Any) -> Any:
    """A small configuration."""
    return getattr(transformers, f"{kind}Config")(**{**SMALL, **options})


def pretrained(
    kind: str, head: str, config: str | None = None, **options: Any
) -> Callable[[], nn.Module]:
    """Builds `kind` with that head from a small configuration: weights are random."""
    return lambda: getattr(transformers, kind + head)(settings(config or kind, **options))


def causal(kind: str, head: str = "ForCausalLM", **options: Any) -> Model:
    """A language model that predicts the next token."""
    return Model(pretrained(kind, head, **options), labelled, generates=GENERATES)


def tokens(rows: int = 2, count: int = 9) -> Inputs:
    """Rows of tokens."""
    ids = torch.randint(2, VOCABULARY - 1, (rows, count))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def labelled() -> Inputs:
    """Rows of tokens to be predicted."""
    inputs = tokens()
    return {**inputs, "labels": inputs["input_ids"]}


def classes(count: int = 2) -> torch.Tensor:
    """A class for each row."""
    return torch.randint(count, (2,))


def pixels(size: int = 32) -> Inputs:
    """Images."""
    return {"pixel_values": torch.randn(2, 3, size, size)}


def classified_pixels(size: int = 32) -> Inputs:
    """Images, and a class for each."""
    return {**pixels(size), "labels": classes()}
