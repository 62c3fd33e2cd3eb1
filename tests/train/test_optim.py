"""Each optimiser does what its paper says, to the parameters that it is meant for, at the rate that a layer is due."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.train.lamb import Lamb
from bertsmith.train.muon import Joined, Muon, orthogonal
from bertsmith.train.optim import OptimConfig, build_optimizer

STEPS = 4


def drawn(*shapes: tuple[int, ...]) -> list[list[Tensor]]:
    """Weights, and then the gradients of each step."""
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(1 + STEPS)]


def taken(optimizer: torch.optim.Optimizer, parameters: list[Tensor], gradients: list[list[Tensor]]) -> None:
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def deep(**changes: object) -> Model:
    values = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    shape = ModelConfig.model_validate(values | {"intermediate_size": 32, "max_position_embeddings": 16} | changes)
    return Model(shape, Heads(classify=2), seed=0)


def test_lamb_is_the_papers_algorithm() -> None:
    weights, *gradients = drawn((5, 3), (7,))
    parameters = [torch.nn.Parameter(value.clone()) for value in weights]
    groups = [{"params": [parameters[0]], "weight_decay": 0.1}, {"params": [parameters[1]], "weight_decay": 0.0}]
    taken(Lamb(groups, lr=0.02, betas=(0.9, 0.98), eps=1e-6), parameters, gradients)
    for index, decay in ((0, 0.1), (1, 0.0)):
        x = weights[index].double()
        m, v = torch.zeros_like(x), torch.zeros_like(x)
        for t, step in enumerate(gradients, 1):
            g = step[index].double()
            m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
            r = (m / (1 - 0.9**t)) / ((v / (1 - 0.98**t)).sqrt() + 1e-6) + decay * x
            x = x - 0.02 * (x.norm() / r.norm() if x.ndim == 2 else 1.0) * r
        torch.testing.assert_close(parameters[index].detach().double(), x, rtol=1e-4, atol=1e-5)


def test_lamb_moves_weights_that_are_zero() -> None:
    weight = torch.nn.Parameter(torch.zeros(3, 3))
    taken(Lamb([{"params": [weight]}], lr=0.1, betas=(0.9, 0.99)), [weight], [[torch.ones(3, 3)]])
    torch.testing.assert_close(weight.detach(), torch.full((3, 3), -0.1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_orthogonal_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.4
    assert values.max() < 1.3
    turned = torch.linalg.svd(matrices, full_matrices=False)
    alike = (orthogonal(matrices) * (turned.U @ turned.Vh)).sum((1, 2)) / (turned.U @ turned.Vh).square().sum((1, 2))
    assert alike.min() > 0.7, "in the direction of the nearest orthogonal matrix"


def test_muon_is_torchs_but_for_the_precision_of_products() -> None:
    shapes = ((8, 8), (16, 8), (8, 8), (8, 16))
    weights, *gradients = drawn(*shapes)
    mine, theirs = ([torch.nn.Parameter(value.clone()) for value in weights] for _ in range(2))
    taken(Muon([{"params": mine, "weight_decay": 0.1}], lr=0.02), mine, gradients)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    taken(reference, theirs, gradients)
    for one, other, before in zip(mine, theirs, weights, strict=True):
        moved = (other - before).norm()
        assert (one - other).norm() < 0.03 * moved


def test_muon_takes_stacked_matrices_one_by_one() -> None:
    weights, *gradients = drawn((12, 4))
    whole = torch.nn.Parameter(weights[0].clone())
    parts = [torch.nn.Parameter(part.clone()) for part in weights[0].split(4)]
    taken(Muon([{"params": [whole], "stacked": 3}], lr=0.1), [whole], gradients)
    taken(Muon([{"params": parts}], lr=0.1), parts, [list(step[0].split(4)) for step in gradients])
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_muon_has_the_layers_matrices_and_adamw_the_rest(architecture: str) -> None:
    modern = {"architecture": architecture} | ({"type_vocab_size": 0} if architecture == "modernbert" else {})
    model = deep(**modern)
    config = OptimConfig(name="muon", lr=1e-3, muon_lr=5e-3, weight_decay=0.5)
    optimizer = build_optimizer(model, config)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(group_of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        matrix = name.startswith("encoder.layers.") and parameter.ndim == 2
        assert ("stacked" in group) is matrix, name
        assert group["peak_lr"] == (5e-3 if matrix else 1e-3)
        assert group["weight_decay"] == (0.5 if parameter.ndim == 2 else 0.0)
        if matrix:
            expected = 3 if "qkv" in name else 2 if "mlp.up" in name and architecture == "modernbert" else 1
            assert group["stacked"] == expected


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon", "sgd"])
def test_layers_learn_slower_the_lower_they_stand(name: str) -> None:
    model = deep()
    optimizer = build_optimizer(model, OptimConfig.model_validate({"name": name, "lr": 1.0, "layer_decay": 0.5}))
    peak = {id(p): group["peak_lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"encoder.embeddings": 1 / 16, "encoder.layers.0": 1 / 8, "encoder.layers.1": 1 / 4}
    expected |= {"encoder.layers.2": 1 / 2, "pooler": 1.0, "head": 1.0}
    for key, parameter in model.named_parameters():
        (share,) = [value for place, value in expected.items() if key.startswith(place)]
        assert peak[id(parameter)] == share, key


def test_frozen_layers_do_not_change_the_others_rates() -> None:
    model = deep()
    for parameter in model.encoder.layers[2].parameters():  # type: ignore[union-attr]
        parameter.requires_grad = False
    optimizer = build_optimizer(model, OptimConfig(lr=1.0, layer_decay=0.5))
    peaks = {group["peak_lr"] for group in optimizer.param_groups}
    assert peaks == {1 / 16, 1 / 8, 1 / 4, 1.0}


def test_joined_optimisers_are_one() -> None:
    weights, *gradients = drawn((4, 4), (4,))
    joined, alone = ([torch.nn.Parameter(value.clone()) for value in weights] for _ in range(2))
    one = Joined(
        Muon([{"params": joined[:1]}], lr=0.1), torch.optim.AdamW([{"params": joined[1:]}], lr=0.1, weight_decay=0.0)
    )
    for group in one.param_groups:
        group["lr"] = 0.05
    taken(one, joined, gradients[:2])
    assert {id(p) for p in one.state} == {id(p) for p in joined}
    again = Joined(Muon([{"params": joined[:1]}], lr=0.1), torch.optim.AdamW([{"params": joined[1:]}], lr=0.1))
    again.load_state_dict(one.state_dict())
    taken(again, joined, gradients[2:])
    taken(Muon([{"params": alone[:1]}], lr=0.05), alone[:1], [step[:1] for step in gradients])
    rest = torch.optim.AdamW(alone[1:], lr=0.05, weight_decay=0.0)
    taken(rest, alone[1:], [step[1:] for step in gradients])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(joined, alone, strict=True))
    one.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in joined)


def test_a_muon_update_is_the_size_of_one_of_adamw() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 256))
    gradient = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    taken(Muon([{"params": [weight]}], lr=1.0), [weight], [[gradient]])
    assert math.sqrt(float(weight.detach().square().mean())) == pytest.approx(0.2, rel=0.3)


def test_a_rate_that_nothing_would_use_is_refused() -> None:
    with pytest.raises(ValidationError, match="muon_lr is Muon's, and name is adamw"):
        OptimConfig(muon_lr=5e-3)
