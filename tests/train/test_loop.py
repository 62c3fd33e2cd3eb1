"""The one loop: what it learns does not depend on how a step is cut, and it does not learn from broken numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.base import Loss
from bertsmith.tasks.classification import Classification
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.feed import ExampleFeed, group
from bertsmith.train.loop import PATIENCE_NON_FINITE, Step, smaller, steps
from bertsmith.train.optim import OptimConfig, build_optimizer


def encodings(count: int = 24) -> list[Encoding]:
    draw = np.random.default_rng(0)
    made = []
    for number in range(count):
        ids = np.array([2, *draw.integers(10, 40, int(draw.integers(3, 20))), 41 + number % 2, 3], np.int32)
        made.append(Encoding(ids, np.zeros_like(ids), {"label": number % 2}))
    return made


def run(
    shape: ModelConfig, tokenizer: Tokenizer, config: OptimConfig, total: int, *, parts: int = 1, start: int = 0
) -> tuple[Model, list[Step]]:
    task = Classification(tokenizer)
    model = Model(shape, Heads(classify=2), seed=0)
    feed = ExampleFeed(encodings(), seed=0, batch_size=8, parts=parts)
    optimizer = build_optimizer(model, config)
    return model, list(steps(model, task, feed, optimizer, config, total=total, start=start))


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_the_loss_does_not_depend_on_accumulation(toy_shape: ModelConfig, toy_tokenizer: Tokenizer, parts: int) -> None:
    config = OptimConfig(lr=1e-3)
    _, whole = run(toy_shape, toy_tokenizer, config, 6)
    _, cut = run(toy_shape, toy_tokenizer, config, 6, parts=parts)
    for one, other in zip(whole, cut, strict=True):
        assert float(one.loss) == pytest.approx(float(other.loss), abs=1e-5)
        assert float(one.grad_norm) == pytest.approx(float(other.grad_norm), rel=1e-4)
        assert one.tokens == other.tokens
        assert float(one.parts["accuracy"]) == pytest.approx(float(other.parts["accuracy"]))


LEARN = [
    OptimConfig(lr=3e-3),
    OptimConfig(name="lamb", lr=0.02),
    OptimConfig(name="muon", lr=3e-3),
    OptimConfig(name="sgd", lr=0.05),
    OptimConfig(lr=3e-3, schedule="wsd", layer_decay=0.9),
]


@pytest.mark.parametrize("config", LEARN, ids=["adamw", "lamb", "muon", "sgd", "wsd"])
def test_all_optimisers_learn(toy_shape: ModelConfig, toy_tokenizer: Tokenizer, config: OptimConfig) -> None:
    wide = toy_shape.model_copy(update={"initializer_range": 0.2})
    _, taken = run(wide, toy_tokenizer, config, 120)
    assert np.mean([float(step.loss) for step in taken[-5:]]) < 0.3 * float(taken[0].loss)
    assert [step.number for step in taken] == list(range(1, 121))
    assert max(step.lr for step in taken) == pytest.approx(config.lr)


def test_the_same_run_twice_is_the_same_to_the_bit(toy_shape: ModelConfig, toy_tokenizer: Tokenizer) -> None:
    dropped = toy_shape.model_copy(update={"hidden_dropout": 0.1})
    one, other = (run(dropped, toy_tokenizer, OptimConfig(), 5)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


class Breaks(Classification):
    """A task whose loss is not a number at some steps."""

    def __init__(self, tokenizer: Tokenizer, when: Sequence[int]) -> None:
        super().__init__(tokenizer)
        self.when, self.calls = when, 0

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        loss = super().loss(outputs, batch)
        self.calls += 1
        return Loss(loss.total * float("nan"), loss.count) if self.calls in self.when else loss


def test_a_gradient_that_is_not_finite_moves_nothing(toy_shape: ModelConfig, toy_tokenizer: Tokenizer) -> None:
    model = Model(toy_shape, Heads(classify=2), seed=0)
    config = OptimConfig()
    feed = ExampleFeed(encodings(), seed=0, batch_size=8)
    task = Breaks(toy_tokenizer, [2])
    before: dict[str, Tensor] = {}
    for step in steps(model, task, feed, build_optimizer(model, config), config, total=4):
        now = {name: value.clone() for name, value in model.state_dict().items()}
        if before:
            moved = any(not torch.equal(now[name], before[name]) for name in now)
            assert moved is not step.skipped
        assert step.skipped is (step.number == 2)
        assert all(bool(torch.isfinite(value).all()) for value in now.values())
        before = now


def test_a_run_that_only_skips_is_stopped(toy_shape: ModelConfig, toy_tokenizer: Tokenizer) -> None:
    model = Model(toy_shape, Heads(classify=2), seed=0)
    config = OptimConfig()
    feed = ExampleFeed(encodings(), seed=0, batch_size=8)
    task = Breaks(toy_tokenizer, range(3, 1000))
    taken = 0
    with pytest.raises(ConfigError, match="has not been finite for 5 steps.*lower the learning rate"):
        for step in steps(model, task, feed, build_optimizer(model, config), config, total=100):
            taken = step.number
    assert taken == 2 + PATIENCE_NON_FINITE, "the caller has seen the last one, too"


def test_biases_and_norms_do_not_decay(toy_shape: ModelConfig) -> None:
    model = Model(toy_shape, Heads(classify=2), seed=0)
    decay, rest = build_optimizer(model, OptimConfig(weight_decay=0.5)).param_groups
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.5, 0.0)
    held = {id(parameter) for parameter in rest["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in held) is (name.endswith("bias") or "norm" in name)


def test_an_epoch_has_every_example_once(toy_tokenizer: Tokenizer) -> None:
    made = encodings(23)
    feed = ExampleFeed(made, seed=4, batch_size=5)
    for epoch in range(2):
        lengths: list[int] = []
        for index in range(feed.steps_per_epoch):
            for batch in feed(epoch * feed.steps_per_epoch + index):
                lengths += batch.lengths
        assert sorted(lengths) == sorted(map(len, made))


def test_batches_keep_to_their_budget_and_lose_nothing() -> None:
    lengths = np.random.default_rng(0).integers(2, 128, 3000)
    lengths[7] = 900
    rng = np.random.default_rng(1)
    batches = group(lengths, rng.permutation(len(lengths)), 512, rng)
    assert sorted(np.concatenate(batches).tolist()) == list(range(3000))
    assert all(lengths[batch].sum() <= 512 or len(batch) == 1 for batch in batches)
    kinds = np.mean([len(set(lengths[batch].tolist())) for batch in batches])
    assert kinds < 4, "neighbours of equal length stand together"


class Cramped(Classification):
    """A task on a device with room for so many sequences at a time."""

    room = 3

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        if batch.num_sequences > self.room:
            raise torch.OutOfMemoryError("no room")
        return super().loss(outputs, batch)


def test_a_device_out_of_memory_takes_smaller_batches_and_learns_the_same(
    toy_shape: ModelConfig, toy_tokenizer: Tokenizer
) -> None:
    config = OptimConfig(lr=1e-3)
    model = Model(toy_shape, Heads(classify=2), seed=0)
    feed = ExampleFeed(encodings(), seed=0, batch_size=8)
    cramped = list(steps(model, Cramped(toy_tokenizer), feed, build_optimizer(model, config), config, total=6))
    _, roomy = run(toy_shape, toy_tokenizer, config, 6)
    assert [step.halved for step in cramped] == [2, 0, 0, 0, 0, 0]
    assert all(len(step.batches) == 4 for step in cramped)
    assert "in 4 parts" in smaller(cramped[0])
    for one, other in zip(cramped, roomy, strict=True):
        assert float(one.loss) == pytest.approx(float(other.loss), abs=1e-5)
        assert one.tokens == other.tokens


def test_one_sequence_too_much_for_the_device_is_the_end(toy_shape: ModelConfig, toy_tokenizer: Tokenizer) -> None:
    config = OptimConfig(lr=1e-3)
    model = Model(toy_shape, Heads(classify=2), seed=0)
    task = Cramped(toy_tokenizer)
    task.room = 0
    feed = ExampleFeed(encodings(), seed=0, batch_size=8)
    with pytest.raises(torch.OutOfMemoryError):
        list(steps(model, task, feed, build_optimizer(model, config), config, total=2))


def test_a_step_s_gradients_are_there_while_it_is_held_and_gone_at_the_end(
    toy_shape: ModelConfig, toy_tokenizer: Tokenizer
) -> None:
    task, config = Classification(toy_tokenizer), OptimConfig(lr=1e-3, max_grad_norm=1e-3)
    model = Model(toy_shape, Heads(classify=2), seed=0)
    optimizer = build_optimizer(model, config)
    feed = ExampleFeed(encodings(), seed=0, batch_size=8, parts=1)
    norms = []
    for _ in steps(model, task, feed, optimizer, config, total=3):
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))))
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2)
    assert all(p.grad is None for p in model.parameters())
