"""Adversarial training: the words of a batch are moved to where the loss is larger, and the model learns there, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch
from bertsmith.tasks.base import Loss
from bertsmith.train.loop import Ask, Learnable
from bertsmith.train.losses import Losses, r_drop


class AdversarialConfig(Config):
    """How word embeddings are moved."""

    adversarial: Literal["fgm", "pgd", "freelb"] | None = Field(
        None,
        description="also learn from word embeddings that are moved against the model: fgm in one step, pgd in "
        "several, freelb from each of several steps",
    )
    adversarial_norm: float = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="how far at most, as a share of the norm of the text's word embeddings",
    )
    adversarial_steps: int = Field(3, ge=1, description="pgd, freelb: steps")
    adversarial_rate: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="pgd, freelb: length of a step, by default half of adversarial_norm",
    )


class Attack:
    """Moves what the word embeddings give, text by text; the model's weights are never touched.

    A perturbation is kept as a share of the norm of the text's word embeddings, so that one setting suits encoders
    whatever their width, and it depends neither on the other texts of a batch nor on how a step is cut.

    Sources: Miyato et al. 2017 (FGM, arXiv:1605.07725), which also scales embeddings; Madry et al. 2018 (PGD,
    arXiv:1706.06083); Zhu et al. 2020 (FreeLB, arXiv:1909.11764).
    """

    def __init__(self, model: Model, config: AdversarialConfig, losses: Losses) -> None:
        """Nothing is moved yet.

        Args:
            model: whose word embeddings are moved while `backward` runs.
            config: how.
            losses: gives the loss of a batch.
        """
        self.words, self.losses, self.config = model.encoder.embeddings.word, losses, config
        self.norm = config.adversarial_norm
        self.rate = config.adversarial_rate or self.norm / 2
        self.moved: Tensor | None = None

    def backward(self, ask: Ask, batch: Batch) -> Loss:
        """Take the forward and backward passes of a batch; gradients add up in the parameters.

        FGM and PGD learn from the texts as they are and from the last perturbation; FreeLB from the mean over all its
        steps, the first of which begins at a random place.

        Args:
            ask: calls the model.
            batch: to learn.

        Returns:
            The loss on the texts as they are (FreeLB: the mean), with `adversarial_loss` among the parts.
        """
        with self._moving(batch):
            return self._free(ask, batch) if self.config.adversarial == "freelb" else self._after_clean(ask, batch)

    def _after_clean(self, ask: Ask, batch: Batch) -> Loss:
        moved = self._put(self._nothing(batch))
        clean = self.losses(ask, batch)
        clean.total.backward()
        assert moved.grad is not None
        once = self.config.adversarial == "fgm"
        rate, count = (self.norm, 1) if once else (self.rate, self.config.adversarial_steps)
        place = self._climb(moved.detach(), moved.grad, rate, batch)
        for _ in range(count - 1):
            moved = self._put(place)
            # The gradients of the places on the way are for the way alone.
            (slope,) = torch.autograd.grad(self.losses(ask, batch).total, [moved])
            place = self._climb(place, slope, rate, batch)
        self.moved = place
        there = self.losses(ask, batch)
        there.total.backward()
        return self._told(clean, clean.total, there)

    def _free(self, ask: Ask, batch: Batch) -> Loss:
        lengths = torch.tensor(batch.lengths, device=self.words.weight.device)
        start = self._nothing(batch).uniform_(-1, 1) * self.norm
        place = start / self._spread((lengths * start.shape[1]).sqrt(), batch)
        count = self.config.adversarial_steps
        total = place.new_zeros(())
        for _ in range(count):
            moved = self._put(place)
            loss = self.losses(ask, batch)
            (loss.total / count).backward()
            assert moved.grad is not None
            total = total + loss.total.detach() / count
            place = self._climb(place, moved.grad, self.rate, batch)
        return self._told(loss, total, loss)

    @staticmethod
    def _told(loss: Loss, total: Tensor, there: Loss) -> Loss:
        parts = {**loss.parts, "adversarial_loss": (there.total.detach(), there.count)}
        return Loss(total.detach(), loss.count, parts)

    def _nothing(self, batch: Batch) -> Tensor:
        weight = self.words.weight
        return weight.new_zeros((batch.num_tokens, weight.shape[1]), dtype=torch.float32)

    def _put(self, place: Tensor) -> Tensor:
        """Move words to a place, `[T, H]`, of which the gradient is wanted."""
        self.moved = place.clone().requires_grad_()
        return self.moved

    def _climb(self, place: Tensor, slope: Tensor, rate: float, batch: Batch) -> Tensor:
        """A step of length `rate` up the slope, and back into the ball of radius `norm`; all `[T, H]`."""
        place = place + rate * slope / self._spread(norms(slope, batch), batch)
        return place * (self.norm / self._spread(norms(place, batch), batch)).clamp_max(1.0)

    @staticmethod
    def _spread(each: Tensor, batch: Batch) -> Tensor:
        """A figure of each text `[S]`, at each of its tokens `[T, 1]`; none is 0."""
        lengths = torch.tensor(batch.lengths, device=each.device)
        tiny = torch.finfo(each.dtype).tiny
        return each.clamp_min(tiny).repeat_interleave(lengths, output_size=batch.num_tokens)[:, None]

    @contextmanager
    def _moving(self, batch: Batch) -> Iterator[None]:
        def move(module: Any, given: Any, found: Tensor) -> Tensor:
            assert self.moved is not None
            words = found[: batch.num_tokens]  # there may be rows after them that fill the batch up
            moved = words + self.moved * self._spread(norms(words.detach(), batch), batch)
            return moved if len(words) == len(found) else torch.cat([moved, found[batch.num_tokens :]])

        handle = self.words.register_forward_hook(move)
        try:
            yield
        finally:
            handle.remove()
            self.moved = None


def norms(x: Tensor, batch: Batch) -> Tensor:
    """The Euclidean norm of each text's part of `x` `[T, H]`, as `[S]` in fp32.

    Args:
        x: one vector a token.
        batch: says where texts begin and end.
    """
    return torch.stack([part.float().norm() for part in x.split(list(batch.lengths))])


@dataclass(frozen=True)
class Passes:
    """A task of which a batch takes more than one forward and backward pass.

    Attributes:
        learned: gives the loss of one pass.
        losses: gives the loss of a batch.
        attack: takes the passes; None: there is one backward pass.
    """

    learned: Learnable
    losses: Losses
    attack: Attack | None

    @property
    def joint(self) -> bool:
        """As the task has it."""
        return bool(getattr(self.learned, "joint", False))

    def backward(self, ask: Ask, batch: Batch) -> Loss:
        """Take all passes of a batch; see `train.loop.Learnable`."""
        if self.attack is not None:
            return self.attack.backward(ask, batch)
        loss = self.losses(ask, batch)
        loss.total.backward()
        return loss

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        """That of one pass."""
        return self.learned.loss(outputs, batch)


def refuse_attack(config: AdversarialConfig, task: Any) -> None:
    """Refuse to move words where texts are written from them.

    Args:
        config: what is asked for.
        task: has read its rows.

    Raises:
        ConfigError: says what to do.
    """
    if config.adversarial and getattr(task, "decides", None) == "pieces":
        raise ConfigError(
            f"train.adversarial does not suit {task.name}: moved words would also be those that are written; "
            "leave it out"
        )


def with_passes(config: AdversarialConfig, weight: float, task: Any, model: Model, learned: Learnable) -> Learnable:
    """What is learned, with the passes that R-Drop and adversarial training take; as it is where neither is asked for.

    Args:
        config: how words are moved.
        weight: of R-Drop; 0: without it.
        task: says what is decided.
        model: whose word embeddings are moved.
        learned: gives the loss of one pass.
    """
    if not weight and config.adversarial is None:
        return learned
    losses: Losses = lambda ask, batch: learned.loss(ask(batch), batch)  # noqa: E731
    if weight:
        losses = r_drop(learned, task, weight)
    return Passes(learned, losses, Attack(model, config, losses) if config.adversarial else None)
