"""Recurrent networks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import rnn

from .model import VOCABULARY, Inputs, Model


class Tagger(nn.Module):
    """A tag for each token, by an LSTM behind an embedding."""

    def __init__(self, directions: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.cells = nn.LSTM(16, 16, 2, batch_first=True, bidirectional=directions == 2)
        self.head = nn.Linear(16 * directions, VOCABULARY)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(self.embedding(input_ids))[0])


class Packed(nn.Module):
    """A GRU over sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.cells = nn.GRU(16, 16, batch_first=True, bidirectional=True)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(input_ids)
        # Lengths are on the CPU, as PyTorch wants them.
        lengths = torch.tensor([input_ids.shape[1], input_ids.shape[1] - 3])
        packed = rnn.pack_padded_sequence(embedded, lengths, batch_first=True)
        return rnn.pad_packed_sequence(self.cells(packed)[0], batch_first=True)[0]


class Cells(nn.Module):
    """Cells step by step, with attention over what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16, padding_idx=0)
        self.reader = nn.RNN(16, 16, batch_first=True, nonlinearity="relu")
        self.writer = nn.LSTMCell(32, 16)
        self.score = nn.Bilinear(16, 16, 1)
        self.head = nn.Linear(16, VOCABULARY)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(input_ids)
        read, _ = self.reader(embedded)
        hidden = cell = torch.zeros_like(read[:, 0])
        written = []
        for step in range(input_ids.shape[1]):
            scores = self.score(read, hidden[:, None].expand_as(read).contiguous())
            context = (scores.softmax(1) * read).sum(1)
            hidden, cell = self.writer(torch.cat([embedded[:, step], context], 1), (hidden, cell))
            written.append(self.head(hidden))
        return torch.stack(written, 1)


class ConditionalField(nn.Module):
    """An LSTM with a conditional random field: a loss by dynamic programming."""

    TAGS = 5

    def __init__(self) -> None:
        super().__init__()
        self.tagger = Tagger()
        self.tagger.head = nn.Linear(16, self.TAGS)
        self.transitions = nn.Parameter(torch.randn(self.TAGS, self.TAGS))

    def forward(self, input_ids: torch.Tensor, tags: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.tagger(input_ids)
        total = scores[:, 0]
        for step in range(1, scores.shape[1]):
            total = torch.logsumexp(total[:, :, None] + self.transitions, 1) + scores[:, step]
        path = scores.gather(2, tags[..., None]).sum((1, 2))
        path = path + self.transitions[tags[:, :-1], tags[:, 1:]].sum(1)
        return {"loss": (total.logsumexp(1) - path).mean(), "logits": scores}


def _tokens() -> Inputs:
    return {"input_ids": torch.randint(2, VOCABULARY - 1, (2, 9))}


MODELS = {
    "lstm": Model(Tagger, _tokens),
    "lstm-bidirectional": Model(lambda: Tagger(2), _tokens),
    "gru-packed": Model(Packed, _tokens),
    "cells-attention": Model(Cells, _tokens),
    "lstm-crf": Model(
        ConditionalField,
        lambda: {**_tokens(), "tags": torch.randint(ConditionalField.TAGS, (2, 9))},
    ),
}
