"""Activations that are computed again in the backward pass give the same gradients, to the bit, for less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding, pack


def batch() -> Batch:
    draw = np.random.default_rng(0)
    ids = [draw.integers(5, 50, length).astype(np.int32) for length in (9, 9, 30, 4)]
    return pack([Encoding(one, np.zeros_like(one), {}) for one in ids])


def gradients(model: Model, again: bool) -> tuple[dict[str, Tensor], int]:
    """Gradients by name, and how many numbers were kept for the backward pass."""
    model.encoder.checkpoint_activations = again
    model.zero_grad(set_to_none=True)
    kept = 0

    def keep(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel()
        return value

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = model(batch())["tag"].square().sum()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, kept


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_computing_layers_again_changes_nothing_but_memory(architecture: str) -> None:
    values: dict[str, Any] = {"architecture": architecture, "vocab_size": 50, "hidden_size": 16}
    values |= {"num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32}
    values |= {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    model = Model(ModelConfig.model_validate(values), Heads(tag=3), seed=0).train()
    stored, much = gradients(model, again=False)
    recomputed, little = gradients(model, again=True)
    assert stored.keys() == recomputed.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(stored[name], recomputed[name]) for name in stored)
    assert little < much / 4
    with torch.no_grad():
        assert model.eval()(batch())["tag"].shape == (52, 3)
