"""All models, by family and by name."""

from __future__ import annotations

from . import (
    audio,
    convolutional,
    decoders,
    diffusion,
    encoders,
    generative,
    graph,
    mixtures,
    multimodal,
    recommendation,
    recurrent,
    science,
    segmentation_detection,
    sequence_to_sequence,
    state_space,
    time_series,
    vision,
)
from .model import Model

FAMILIES: dict[str, dict[str, Model]] = {
    module.__name__.rpartition(".")[2]: module.MODELS
    for module in (
        decoders,
        mixtures,
        state_space,
        encoders,
        sequence_to_sequence,
        vision,
        convolutional,
        segmentation_detection,
        audio,
        multimodal,
        diffusion,
        generative,
        recurrent,
        recommendation,
        graph,
        time_series,
        science,
    )
}
MODELS = {name: model for family in FAMILIES.values() for name, model in family.items()}
assert len(MODELS) == sum(len(family) for family in FAMILIES.values()), "a name twice"
