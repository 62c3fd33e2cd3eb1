"""Words are moved as far as was said, up the gradient; the gradients of all passes add up; no weight is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.corpus.document import Tally
from bertsmith.model.config import ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch
from bertsmith.tasks.base import Loss, collate
from bertsmith.tasks.classification import Classification, ClassificationConfig
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.adversarial import AdversarialConfig, Attack, Passes, norms, refuse_attack, with_passes
from bertsmith.train.loop import steps
from bertsmith.train.optim import OptimConfig, build_optimizer

ROWS = "text,label\nthe film was great,good\nit is not a good film at all,bad\nbad,bad\na great film,good\n"


class Ground:
    """A small model, a batch, and what passes through its embeddings."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, shape: ModelConfig) -> None:
        path = folder / "rows.csv"
        path.write_text(ROWS, encoding="utf-8")
        config = ClassificationConfig(max_length=32)
        self.task = Classification(tokenizer, config, say=lambda text: None)
        shape = shape.model_copy(update={"classifier_dropout": 0.0})
        self.encodings = self.task.encode(self.task.rows(path, Tally()))
        self.model = Model(shape, self.task.head(shape), seed=1).train()
        self.batch = collate(self.encodings)
        self.read: list[Tensor] = []
        self.model.encoder.embeddings.norm.register_forward_pre_hook(
            lambda module, given: self.read.append(given[0].detach()[: self.batch.num_tokens].clone())
        )

    def losses(self, ask: Any, batch: Batch) -> Loss:
        return self.task.loss(ask(batch), batch)

    def attack(self, **how: Any) -> Loss:
        self.read.clear()
        self.model.zero_grad()
        return Attack(self.model, AdversarialConfig(**how), self.losses).backward(self.model, self.batch)

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}

    @contextmanager
    def moved(self, by: Tensor) -> Iterator[None]:
        def move(module: Any, given: Any, found: Tensor) -> Tensor:
            return found + F.pad(by, (0, 0, 0, len(found) - len(by)))  # rows that fill the batch up stay

        handle = self.model.encoder.embeddings.word.register_forward_hook(move)
        yield
        handle.remove()

    def gradients_at(self, *places: Tensor) -> dict[str, Tensor]:
        """The sum of the gradients with the words moved by each of `places` in turn."""
        self.model.zero_grad()
        for by in places:
            with self.moved(by):
                self.losses(self.model, self.batch).total.backward()
        return self.gradients()


@pytest.fixture
def ground(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Ground:
    return Ground(tmp_path, toy_tokenizer, toy_shape)


def test_fgm_moves_by_the_norm_that_was_said_straight_up_the_gradient(ground: Ground) -> None:
    ground.attack(adversarial="fgm", adversarial_norm=0.05)
    clean, there = ground.read
    moved = there - clean
    words = ground.model.encoder.embeddings.word(ground.batch.input_ids).detach()
    torch.testing.assert_close(norms(moved, ground.batch), 0.05 * norms(words, ground.batch), rtol=1e-4, atol=0)
    leaf = torch.zeros_like(words).requires_grad_()
    with ground.moved(leaf):
        ground.losses(ground.model, ground.batch).total.backward()
    assert leaf.grad is not None
    for mine, slope in zip(moved.split(ground.batch.lengths), leaf.grad.split(ground.batch.lengths), strict=True):
        cosine = torch.nn.functional.cosine_similarity(mine.flatten(), slope.flatten(), dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-4)


def test_fgm_adds_the_gradients_of_both_passes_and_tells_both_losses(ground: Ground) -> None:
    loss = ground.attack(adversarial="fgm", adversarial_norm=0.1)
    mine, moved = ground.gradients(), ground.read[1] - ground.read[0]
    expected = ground.gradients_at(torch.zeros_like(moved), moved)
    assert mine.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        clean = float(ground.losses(ground.model, ground.batch).total)
        with ground.moved(moved):
            there = float(ground.losses(ground.model, ground.batch).total)
    assert float(loss.total) == pytest.approx(clean, rel=1e-5)
    assert float(loss.parts["adversarial_loss"][0]) == pytest.approx(there, rel=1e-5)
    assert there > clean
    assert loss.count == 4
    assert "accuracy" in loss.parts


@pytest.mark.parametrize("method", ["fgm", "pgd", "freelb"])
def test_weights_stay_as_they_are_to_the_bit_and_nothing_stays_hooked(ground: Ground, method: str) -> None:
    before = {name: value.clone() for name, value in ground.model.state_dict().items()}
    ground.attack(adversarial=method, adversarial_norm=0.3)
    assert all(torch.equal(value, before[name]) for name, value in ground.model.state_dict().items())
    assert not ground.model.encoder.embeddings.word._forward_hooks
    attack = Attack(ground.model, AdversarialConfig(adversarial=method), lambda ask, batch: 1 / 0)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        attack.backward(ground.model, ground.batch)
    assert not ground.model.encoder.embeddings.word._forward_hooks


def test_pgd_climbs_within_its_ball_and_learns_from_the_last_place_only(ground: Ground) -> None:
    how = {"adversarial": "pgd", "adversarial_norm": 0.1, "adversarial_rate": 0.06, "adversarial_steps": 3}
    ground.attack(**how)
    mine = ground.gradients()
    places = [read - ground.read[0] for read in ground.read]
    words = ground.model.encoder.embeddings.word(ground.batch.input_ids).detach()
    far = [norms(place, ground.batch) / norms(words, ground.batch) for place in places]
    assert len(places) == 4
    torch.testing.assert_close(far[1], torch.full((4,), 0.06), rtol=1e-3, atol=0)
    assert all(float(each.max()) <= 0.1001 for each in far)
    torch.testing.assert_close(far[3], torch.full((4,), 0.1), rtol=1e-3, atol=0)
    for name, gradient in ground.gradients_at(torch.zeros_like(places[3]), places[3]).items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-3, atol=1e-5)
    ground.attack(adversarial="pgd", adversarial_norm=0.1, adversarial_rate=0.1, adversarial_steps=1)
    once = ground.gradients()
    ground.attack(adversarial="fgm", adversarial_norm=0.1)
    assert all(torch.equal(once[name], gradient) for name, gradient in ground.gradients().items())


def test_freelb_begins_at_random_and_learns_from_the_mean_over_its_steps(ground: Ground) -> None:
    words = ground.model.encoder.embeddings(
        ground.batch.input_ids, ground.batch.segment_ids, ground.batch.position_ids
    ).shape
    clean = ground.read[0]
    torch.manual_seed(5)
    loss = ground.attack(adversarial="freelb", adversarial_norm=0.2, adversarial_rate=0.05, adversarial_steps=3)
    mine, places = ground.gradients(), [read - clean for read in ground.read]
    assert places[0].shape == words
    scale = norms(ground.model.encoder.embeddings.word(ground.batch.input_ids).detach(), ground.batch)
    first = norms(places[0], ground.batch) / scale
    # The mean square of a uniform number from -1 to 1 is a third.
    torch.testing.assert_close(first, torch.full((4,), 0.2 / 3**0.5), rtol=0.15, atol=0)
    step = norms(places[1] - places[0], ground.batch) / scale
    torch.testing.assert_close(step, torch.full((4,), 0.05), rtol=1e-2, atol=0)
    for name, gradient in ground.gradients_at(*places).items():
        torch.testing.assert_close(mine[name], gradient / 3, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        each = []
        for place in places:
            with ground.moved(place):
                each.append(float(ground.losses(ground.model, ground.batch).total))
    assert float(loss.total) == pytest.approx(sum(each) / 3, rel=1e-4)
    assert float(loss.parts["adversarial_loss"][0]) == pytest.approx(each[-1], rel=1e-4)


@pytest.mark.parametrize("method", ["fgm", "pgd"])
def test_how_a_step_is_cut_changes_nothing(ground: Ground, method: str) -> None:
    config = AdversarialConfig(adversarial=method)  # type: ignore[arg-type]
    attack = Attack(ground.model, config, ground.losses)
    found = []
    for parts in ([ground.encodings], [ground.encodings[:1], ground.encodings[1:]]):
        ground.model.zero_grad()
        for part in parts:
            attack.backward(ground.model, collate(part))
        found.append(ground.gradients())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-4)


def test_frozen_embeddings_are_attacked_all_the_same(ground: Ground) -> None:
    ground.model.encoder.requires_grad_(False)
    loss = ground.attack(adversarial="fgm")
    assert float(loss.parts["adversarial_loss"][0]) > float(loss.total)
    assert {name.split(".")[0] for name in ground.gradients()} == {"pooler", "head"}


class Joint:
    """A loss over all sequences of a step."""

    joint = True

    def __init__(self, ground: Ground) -> None:
        self.ground, self.sizes = ground, list[int]()

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        self.sizes.append(batch.num_sequences)
        return self.ground.task.loss(outputs, batch)


def test_a_loss_over_a_whole_step_is_attacked_as_a_whole(ground: Ground) -> None:
    joint = Joint(ground)
    learned = with_passes(AdversarialConfig(adversarial="fgm"), 0.0, ground.task, ground.model, joint)
    assert isinstance(learned, Passes)

    def feed(step: int) -> list[Batch]:
        return [collate(ground.encodings[:1]), collate(ground.encodings[1:])]

    feed.halve = lambda: None  # type: ignore[attr-defined]
    config = OptimConfig(lr=1e-3)
    optimizer = build_optimizer(ground.model, config)
    (step,) = steps(ground.model, learned, feed, optimizer, config, total=1)  # type: ignore[arg-type]
    assert joint.sizes == [4, 4]
    assert step.tokens == ground.batch.num_tokens
    assert {"accuracy", "adversarial_loss"} <= step.parts.keys()


def test_without_either_nothing_is_wrapped_and_writing_is_refused(ground: Ground) -> None:
    task = ground.task
    assert with_passes(AdversarialConfig(), 0.0, task, ground.model, task) is task
    assert with_passes(AdversarialConfig(), 1.0, task, ground.model, task) is not task
    with pytest.raises(ConfigError, match=r"train\.adversarial does not suit generate"):
        refuse_attack(AdversarialConfig(adversarial="fgm"), SimpleNamespace(name="generate", decides="pieces"))
