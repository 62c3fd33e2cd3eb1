"""What passes through the layers: no padding is seen, and activations may be computed again for less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.encoder import rows_for
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


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_rows_that_fill_up_a_batch_are_seen_by_nothing(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Any] = {"architecture": architecture, "vocab_size": 50, "hidden_size": 16}
    values |= {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32}
    values |= {"hidden_dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    model = Model(ModelConfig.model_validate(values), Heads(tag=3), seed=0)
    one = batch()
    rows: list[int] = []
    model.encoder.layers[0].register_forward_hook(lambda layer, given, out: rows.append(len(out)))
    found = {}
    for filled in (True, False):
        if not filled:
            monkeypatch.setattr("bertsmith.model.encoder.rows_for", lambda tokens: tokens)
        out = model.train()(one)["tag"]
        model.zero_grad(set_to_none=True)
        out.square().sum().backward()
        found[filled] = (out.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert rows == [64, 52]
    torch.testing.assert_close(found[True][0], found[False][0])
    for name, gradient in found[True][1].items():
        torch.testing.assert_close(gradient, found[False][1][name], msg=name)


def test_rows_are_few_numbers_and_hardly_more_than_tokens() -> None:
    assert len({rows_for(tokens) for tokens in range(1, 8193)}) < 140
    for tokens in range(1, 8193):
        assert tokens <= rows_for(tokens) < tokens + max(16, tokens / 2)
