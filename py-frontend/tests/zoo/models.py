"""All models, by family and by name."""

from __future__ import annotations

from . import (
    convolutional,
    decoders,
    encoders,
    mixtures,
    multimodal,
    recommendation,
    recurrent,
    sequence_to_sequence,
    vision,
)
from .model import Model

FAMILIES: dict[str, dict[str, Model]] = {
    module.__name__.rpartition(".")[2]: module.MODELS
    for module in (
        decoders,
        mixtures,
        encoders,
        sequence_to_sequence,
        vision,
        convolutional,
        recurrent,
        recommendation,
        multimodal,
    )
}
MODELS = {name: model for family in FAMILIES.values() for name, model in family.items()}
assert len(MODELS) == sum(len(family) for family in FAMILIES.values()), "a name twice"
