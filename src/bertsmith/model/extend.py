"""A model for a longer vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bertsmith.model.heads import Model

ROWS = (
    "encoder.embeddings.word.weight", "head.mlm.decoder.weight", "head.mlm.bias", "head.generator.bias",
)  # fmt: skip
"""Tensors with one row a piece of the vocabulary."""


def extend_model(model: Model, pieces: Mapping[int, Sequence[int]]) -> Model:
    """The same model with rows for more pieces, each the mean of the rows of those that it was written with before.

    That holds for the word embedding, for an output matrix that is not tied to it, and for the bias of the MLM head
    or of a generator. A table
    that was longer than its vocabulary (rows kept free for a round number) is filled before it grows.

    Args:
        model: not changed.
        pieces: for each new id the old ids; what `tokenizer.extend.old_pieces` gives.

    Returns:
        A new model on the same device, in the same mode.

    Source: the mean of the old pieces' rows is Gee et al. 2022 (arXiv:2402.09977).
    """
    size = max([model.config.vocab_size, *(number + 1 for number in pieces)])
    config = model.config.model_copy(update={"vocab_size": size})
    extended = Model(config, model.heads)
    state = model.state_dict()
    for name in ROWS:
        if name in state:
            state[name] = _grown(state[name], pieces, size)
    extended.load_state_dict(state)
    return extended.to(next(model.parameters()).device).train(model.training)


def _grown(rows: Tensor, pieces: Mapping[int, Sequence[int]], size: int) -> Tensor:
    grown = torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])
    for number, old in pieces.items():
        grown[number] = rows[list(old)].mean(dim=0)
    return grown
