from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.compress.importance import Importance, Taylor, by_weights
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding, pack

SHAPE = ModelConfig(
    vocab_size=30, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=10,
    max_position_embeddings=16, initializer_range=0.5,
)  # fmt: skip
STEP = 1e-2


@pytest.fixture
def model() -> Model:
    return Model(SHAPE, Heads(classify=2), seed=4).eval().double()


@pytest.fixture
def batch() -> Batch:
    draw = np.random.default_rng(1)
    ids = [draw.integers(0, 30, n).astype(np.int32) for n in (3, 6)]
    return pack([Encoding(one, np.zeros(len(one), np.int32)) for one in ids])


def loss(model: Model, batch: Batch) -> Tensor:
    return model(batch)["classify"].square().sum()


def measured(model: Model, batch: Batch) -> Importance:
    taylor = Taylor()
    loss(model, batch).backward()
    taylor(model)
    return taylor.importance()


def slope(model: Model, batch: Batch, weights: list[Tensor]) -> float:
    """How fast the loss changes when all of `weights` are scaled at once."""
    ends = []
    with torch.no_grad():
        for scale in (1 + STEP, (1 - STEP) / (1 + STEP), 1 / (1 - STEP)):
            for weight in weights:
                weight.mul_(scale)
            ends.append(float(loss(model, batch)))
    return (ends[0] - ends[1]) / (2 * STEP)


def test_it_is_what_the_loss_would_change_to_first_order(model: Model, batch: Batch) -> None:
    found = measured(model, batch)
    layer = model.layers[1]
    for unit in (0, 7):
        expected = slope(model, batch, [layer.mlp.down.weight[:, unit]])
        assert float(found.units[1, unit]) == pytest.approx(abs(expected), rel=1e-2)
    for head in range(3):
        expected = slope(model, batch, [layer.attention.out.weight[:, 4 * head : 4 * head + 4]])
        assert float(found.heads[1, head]) == pytest.approx(abs(expected), rel=1e-2)
    halves = [(layer.attention.out.weight, layer.attention.out.bias), (layer.mlp.down.weight, layer.mlp.down.bias)]
    expected = sum(abs(slope(model, batch, [part for part in half if part is not None])) for half in halves)
    assert float(found.layers[1]) == pytest.approx(expected, rel=1e-2)


def test_dimensions_are_gated_behind_every_norm(model: Model, batch: Batch) -> None:
    found = measured(model, batch)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    expected = sum(abs(slope(model, batch, [norm.weight[3:4], norm.bias[3:4]])) for norm in norms)
    assert float(found.dims[3]) == pytest.approx(expected, rel=2e-2)


def test_means_over_steps_do_not_cancel(model: Model, batch: Batch) -> None:
    taylor = Taylor()
    for sign in (1.0, -1.0):
        model.zero_grad()
        (sign * loss(model, batch)).backward()
        taylor(model, scale=0.5)
    assert taylor.count == 2
    one = measured(model.__class__(SHAPE, Heads(classify=2), seed=4).eval().double(), batch)
    assert torch.allclose(taylor.importance().units, 0.5 * one.units)


def test_what_is_worth_most_is_kept_in_order() -> None:
    found = Importance(
        layers=torch.tensor([3.0, 1.0, 2.0]),
        heads=torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]]),
        units=torch.tensor([[1.0, 5.0, 4.0]] * 3),
        dims=torch.tensor([1.0, 4.0, 3.0, 2.0]),
    )
    kept = found.kept(layers=2, heads=1, units=2, head_size=2)
    assert kept.layers == [0, 2]
    assert kept.heads == [[1], [0]]
    assert kept.units == [[1, 2], [1, 2]]
    assert kept.dims == [1, 2]
    assert found.kept(head_size=2).heads is None


def test_by_weights_a_part_without_any_is_worth_nothing(model: Model) -> None:
    with torch.no_grad():
        model.layers[0].mlp.down.weight[:, 4] = 0.0
        model.layers[1].attention.out.weight[:, 4:8] = 0.0
    found = by_weights(model)
    assert float(found.units[0, 4]) == 0.0
    assert float(found.heads[1, 1]) == 0.0
    assert (found.units > 0).sum() == 19
    assert found.dims.shape == (12,)
