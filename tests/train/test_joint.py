"""A loss over all sequences of a step: whatever the step is cut into, it is the same, and so is its gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import join, pack
from bertsmith.peft.base import insert
from bertsmith.peft.config import PeftConfig
from bertsmith.tasks.base import Example, Member
from bertsmith.tasks.matching import Matching, MatchingConfig
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train import loop
from bertsmith.train.feed import ExampleFeed
from bertsmith.train.loop import Step, smaller, steps
from bertsmith.train.optim import OptimConfig, build_optimizer
from bertsmith.train.tuning import Orthogonal

WORDS = ["good", "bad", "great", "film", "boring", "london", "paris", "anna", "bert", "lives", "works", "acme"]


def rows(kind: str) -> list[Example]:
    if kind == "in-batch":
        return [
            Example({"text": f"is it {w}", "pair": f"{w} " * (n + 1), "negatives": ("the film",) * (n % 3)}, True)
            for n, w in enumerate(WORDS)
        ]
    return [Example({"text": w, "pair": f"{w} " * (n + 1)}, n % 5 / 4) for n, w in enumerate(WORDS)]


def feed_of(tokenizer: Tokenizer, kind: str, parts: int) -> tuple[Matching, ExampleFeed]:
    task = Matching(tokenizer, MatchingConfig(mode="bi", regression=kind == "cosent" or None))
    return task, ExampleFeed(task.encode(rows(kind)), seed=0, batch_size=5, parts=parts)


def run(shape: ModelConfig, tokenizer: Tokenizer, kind: str, parts: int) -> tuple[Model, list[Step]]:
    task, feed = feed_of(tokenizer, kind, parts)
    model = Model(shape, Heads(embed="mean"), seed=0)
    config = OptimConfig(name="sgd", lr=0.05)  # AdamW would make steps of gradients that are nothing but rounding
    return model, list(steps(model, task, feed, build_optimizer(model, config), config, total=6))


@pytest.mark.parametrize("kind", ["in-batch", "cosent"])
@pytest.mark.parametrize("parts", [2, 3, 40])
def test_the_loss_and_the_weights_do_not_depend_on_accumulation(
    toy_shape: ModelConfig, toy_tokenizer: Tokenizer, kind: str, parts: int
) -> None:
    one, whole = run(toy_shape, toy_tokenizer, kind, 1)
    other, cut = run(toy_shape, toy_tokenizer, kind, parts)
    assert float(whole[0].loss) > 0.1
    for left, right in zip(whole, cut, strict=True):
        assert float(left.loss) == pytest.approx(float(right.loss), abs=1e-5)
        assert float(left.grad_norm) == pytest.approx(float(right.grad_norm), rel=1e-4)
        assert left.tokens == right.tokens
        assert left.parts.keys() == right.parts.keys()
        for name in left.parts:
            assert float(left.parts[name]) == pytest.approx(float(right.parts[name]))
    there = other.state_dict()
    assert all(torch.allclose(value, there[name], atol=1e-5) for name, value in one.state_dict().items())


@pytest.mark.parametrize("parts", [2, 40])
def test_what_a_loss_says_of_the_weights_themselves_is_learned_too(
    toy_shape: ModelConfig, toy_tokenizer: Tokenizer, parts: int
) -> None:
    taken = []
    for count in (1, parts):
        task, feed = feed_of(toy_tokenizer, "in-batch", count)
        model = Model(toy_shape, Heads(embed="mean"), seed=0)
        insert(model, PeftConfig(method="adalora", rank=2, start_rank=3), seed=0)
        learned = Orthogonal(task, model, weight=0.5)
        assert learned.joint
        config = OptimConfig(name="sgd", lr=0.05)
        taken.append(list(steps(model, learned, feed, build_optimizer(model, config), config, total=3)))
    for one, other in zip(*taken, strict=True):
        assert float(one.parts["orthogonality"]) == pytest.approx(float(other.parts["orthogonality"]), rel=1e-4)
        assert float(one.grad_norm) == pytest.approx(float(other.grad_norm), rel=1e-4)
        assert float(one.loss) == pytest.approx(float(other.loss), abs=1e-5)


def test_both_passes_drop_the_same(
    monkeypatch: pytest.MonkeyPatch, toy_shape: ModelConfig, toy_tokenizer: Tokenizer
) -> None:
    dropped = toy_shape.model_copy(update={"hidden_dropout": 0.3, "attention_dropout": 0.3})
    seen: list[torch.Tensor] = []

    class Watched(Model):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            outputs = super().forward(batch)
            seen.append(outputs["embed"].detach().clone())
            return outputs

    task, feed = feed_of(toy_tokenizer, "in-batch", 3)
    model = Watched(dropped, Heads(embed="mean"), seed=0)
    config = OptimConfig()
    list(steps(model, task, feed, build_optimizer(model, config), config, total=1))
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)
    assert not torch.equal(seen[0][:1], seen[1][:1])


def test_a_device_that_runs_out_of_memory_goes_on_in_parts(
    monkeypatch: pytest.MonkeyPatch, toy_shape: ModelConfig, toy_tokenizer: Tokenizer
) -> None:
    _, expected = run(toy_shape, toy_tokenizer, "in-batch", 1)
    real, most = loop._backward, 6

    def small(call: Any, task: Any, batches: Any, *rest: Any) -> Any:
        if max(batch.num_sequences for batch in batches) > most:
            raise torch.OutOfMemoryError("too small")
        return real(call, task, batches, *rest)

    monkeypatch.setattr(loop, "_backward", small)
    _, taken = run(toy_shape, toy_tokenizer, "in-batch", 1)
    assert "the result is the same" in smaller(taken[0])
    for one, other in zip(expected, taken, strict=True):
        assert float(one.loss) == pytest.approx(float(other.loss), abs=1e-5)


def test_sequences_that_belong_together_are_drawn_together(toy_tokenizer: Tokenizer) -> None:
    _, feed = feed_of(toy_tokenizer, "in-batch", 1)
    assert feed.steps_per_epoch == 3
    drawn: list[int] = []
    for step in range(3):
        (batch,) = feed(step)
        examples = batch.targets["example"].tolist()
        roles = list(zip(examples, batch.targets["role"].tolist(), strict=True))
        for example in set(examples):
            assert sorted(role for one, role in roles if one == example) == list(range(2 + example % 3))
        drawn += set(examples)
        assert list(batch.lengths) == sorted(batch.lengths)
    assert sorted(drawn) == list(range(len(WORDS)))


def test_joined_batches_are_the_batch_of_all(toy_tokenizer: Tokenizer) -> None:
    task, _ = feed_of(toy_tokenizer, "cosent", 1)
    encodings = task.encode(rows("cosent"))
    assert all(isinstance(encoding, Member) for encoding in encodings)
    whole = pack(encodings, {"place": torch.arange(len(encodings))})
    pieces = [pack(encodings[a:b], {"place": torch.arange(a, b)}) for a, b in ((0, 1), (1, 9), (9, len(encodings)))]
    joined = join(pieces)
    for name in ("input_ids", "segment_ids", "position_ids", "cu_seqlens"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
        assert getattr(joined, name).dtype == getattr(whole, name).dtype
    assert (joined.lengths, joined.max_seqlen) == (whole.lengths, whole.max_seqlen)
    assert torch.equal(joined.targets["place"], whole.targets["place"])
