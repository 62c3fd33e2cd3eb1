"""Other forms of a task's loss: weighed classes, focal loss, smoothed labels; and R-Drop's second opinion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.annotations import split_tag
from bertsmith.tasks.base import Loss
from bertsmith.tasks.decisions import Decisions
from bertsmith.tasks.label_sets import shown
from bertsmith.train.loop import Ask, Learnable

Losses = Callable[[Ask, Batch], Loss]
"""The loss of a batch, from as many forward passes as it takes."""
LEAST = 1e-6
"""What is left of a focal factor at certainty, so that its gradient stays finite."""
WHY = {
    None: "the loss of this head or mode does not fall apart into decisions",
    "numbers": "this task learns numbers",
    "places": "this task has no labels: what can be chosen differs from row to row",
    "pieces": "this task writes pieces of text",
}
SUITS: dict[str, tuple[str, ...]] = {
    "class_weights": ("classes", "sets"),
    "focal_gamma": ("classes", "sets", "places"),
    "label_smoothing": ("classes", "sets", "places"),
    "r_drop": ("classes", "sets", "places", "numbers", "pieces"),
}
"""What a task must decide (`tasks.decisions`) for a setting to make sense."""


class LossConfig(Config):
    """The form of the loss."""

    class_weights: Literal["balanced"] | dict[str, float] | None = Field(
        None,
        description="balanced: rare labels weigh more, so that all weigh the same together; or a weight a label, such "
        "as {spam=5}, 1 for the others (tags: also by type)",
    )
    focal_gamma: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="focal loss: what is nearly learned counts less; 2 is usual, 0: off"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the target given to all labels alike; 0.1 is usual"
    )
    r_drop: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="weight of the difference of two passes with different dropout (R-Drop); 0.5 to 5, 0: off",
    )

    @field_validator("class_weights", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        numbers = value.values() if isinstance(value, Mapping) else [-1.0]
        good = all(isinstance(one, int | float) and math.isfinite(one) and one >= 0 for one in numbers)
        if value not in (None, "balanced") and not good:
            raise ValueError("write balanced, or a weight of 0 or more for labels, such as {spam=5}")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.focal_gamma and self.label_smoothing:
            raise ValueError("focal_gamma and label_smoothing both temper what is certain; choose one of them")
        return self


def refuse_misfits(config: LossConfig, task: Any, dropout: float) -> None:
    """Refuse forms of the loss that mean nothing for a task.

    Args:
        config: what is asked for.
        task: has read its rows, so that it knows what it decides.
        dropout: of the run.

    Raises:
        ConfigError: names the setting, and what to do.
    """
    decides = getattr(task, "decides", None)
    for name, suits in SUITS.items():
        if getattr(config, name) and decides not in suits:
            instead = "use task.label_smoothing" if (name, decides) == ("label_smoothing", "pieces") else "leave it out"
            raise ConfigError(f"train.{name} does not suit {task.name}: {WHY.get(decides, WHY[None])}; {instead}")
    if config.r_drop and not dropout:
        raise ConfigError("train.r_drop compares passes that differ in dropout, and train.dropout is 0; raise it")


@dataclass(frozen=True)
class Shaped:
    """A task whose loss has another form; what it was is among the parts as `cross_entropy`.

    The sum is still divided by the number of targets, not by the sum of their weights, so that the loss does not depend
    on how a step is cut; balanced weights are 1 on average.

    Attributes:
        task: the task.
        config: the form.
        weights: one a label, `[C]`, or None.
    """

    task: Any
    config: LossConfig
    weights: Tensor | None

    @property
    def joint(self) -> bool:
        """As the task has it."""
        return bool(getattr(self.task, "joint", False))

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """The loss in its form."""
        plain, how = self.task.loss(outputs, batch), self.config
        total = plain.total.new_zeros(())
        for one in self.task.decisions(outputs, batch):
            weights = None if self.weights is None else self.weights.to(one.logits.device)
            total = total + one.share * shaped(one, how.focal_gamma, how.label_smoothing, weights).sum()
        return Loss(total, plain.count, {**plain.parts, "cross_entropy": (plain.total.detach(), plain.count)})


def shape(config: LossConfig, task: Any, encodings: Sequence[Encoding]) -> Learnable:
    """The task with the loss that is asked for; the task itself where nothing is.

    Args:
        config: the form.
        task: has read its rows; `refuse_misfits` has found nothing.
        encodings: what is learned from, with targets.

    Raises:
        ConfigError: a weight is given to a label that there is not.
    """
    if config.class_weights is None and not config.focal_gamma and not config.label_smoothing:
        return task  # type: ignore[no-any-return]
    return Shaped(task, config, label_weights(config.class_weights, task, encodings))


def label_weights(
    asked: Literal["balanced"] | dict[str, float] | None, task: Any, encodings: Sequence[Encoding]
) -> Tensor | None:
    """The weight of each label.

    Balanced is N / (C n) for a label that n of N targets have, C being the labels that occur. Where a text may have
    several labels, it is what having a label weighs beside not having it: (N - n) / n.

    Args:
        asked: `balanced`, or weights by name; None: there are none.
        task: has `labels`, and says in `weighed` which target holds them.
        encodings: with targets.

    Returns:
        `[C]` in fp32.

    Raises:
        ConfigError: no such label.
    """
    if asked is None:
        return None
    labels: Sequence[str] = task.labels
    if not isinstance(asked, str):
        known = {*labels, *(split_tag(label)[1] for label in labels if task.weighed == "tag")} - {""}
        if unknown := [name for name in asked if name not in known]:
            raise ConfigError(f"train.class_weights: {unknown[0]!r} is not one of {shown(sorted(known))}")
        by_type = [split_tag(label)[1] if task.weighed == "tag" else label for label in labels]
        found = [asked.get(label, asked.get(kind, 1.0)) for label, kind in zip(labels, by_type, strict=True)]
        return torch.tensor(found, dtype=torch.float32)
    targets = [np.asarray(encoding.targets[task.weighed]) for encoding in encodings]
    if task.decides == "sets":
        having = np.sum(targets, axis=0)
        return torch.from_numpy(np.maximum(len(targets) - having, 1) / np.maximum(having, 1)).float()
    gold = np.concatenate([target.reshape(-1) for target in targets])
    counts = np.bincount(gold[gold >= 0], minlength=len(labels))
    weights = counts.sum() / ((counts > 0).sum() * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts > 0, weights, 1.0)).float()


def shaped(one: Decisions, gamma: float, smoothing: float, weights: Tensor | None) -> Tensor:
    """The loss of each decision, `[N]`.

    With classes y and probabilities p: w_y (1 - p_y)^gamma (1 - smoothing) (-log p_y), and besides
    smoothing / C · sum over classes c of w_c (-log p_c), as `torch.nn.functional.cross_entropy` has it; C counts what
    can be chosen. Of sets each label has two classes, and `weights` are of having it (torch's `pos_weight`).

    Args:
        one: the decisions, of classes or sets.
        gamma: of the focal loss; 0: plain.
        smoothing: share of the target given to all classes alike.
        weights: of the labels, `[C]`; None: 1.

    Source: Lin et al. 2017 (arXiv:1708.02002); Szegedy et al. 2016, section 7 (arXiv:1512.00567).
    """
    if one.kind == "sets":
        gold = one.gold * (1 - smoothing) + smoothing / 2
        each = F.binary_cross_entropy_with_logits(one.logits, gold, pos_weight=weights, reduction="none")
        if gamma:
            chance = one.logits.sigmoid()
            each = each * torch.where(one.gold > 0, 1 - chance, chance).clamp_min(LEAST) ** gamma
        return each.sum(-1)
    logs = one.logits.log_softmax(-1)
    each = -logs.gather(1, one.gold[:, None])[:, 0]
    if gamma:
        each = each * (1 - (-each).exp()).clamp_min(LEAST) ** gamma
    if weights is not None:
        each = each * weights[one.gold]
    if not smoothing:
        return each
    possible = torch.isfinite(one.logits)
    all_alike = -logs.masked_fill(~possible, 0.0)
    all_alike = all_alike if weights is None else all_alike * weights
    return (1 - smoothing) * each + smoothing * all_alike.sum(-1) / possible.sum(-1)


def difference(one: Decisions, other: Decisions) -> Tensor:
    """How far two passes are apart in each decision, `[N]`: the mean of the two Kullback-Leibler divergences.

    Of numbers it is the square of the difference.

    Args:
        one: of a pass.
        other: of another pass over the same batch.
    """
    if one.kind == "numbers":
        return (one.logits - other.logits)[:, 0] ** 2
    if one.kind == "sets":
        return ((one.logits.sigmoid() - other.logits.sigmoid()) * (one.logits - other.logits)).sum(-1) / 2
    a, b = one.logits.log_softmax(-1), other.logits.log_softmax(-1)
    gap = (a - b).masked_fill(~torch.isfinite(one.logits), 0.0)
    return ((a.exp() - b.exp()) * gap).sum(-1) / 2


def r_drop(learned: Learnable, task: Any, weight: float) -> Losses:
    """The mean loss of two passes with different dropout, and `weight` times the difference of what they say.

    Args:
        learned: gives the loss of a pass.
        task: says what is decided.
        weight: R-Drop's alpha.

    Source: Liang et al. 2021 (arXiv:2106.14448), divided by two as in its published code.
    """

    def loss(ask: Ask, batch: Batch) -> Loss:
        first, second = ask(batch), ask(batch)
        one, other = learned.loss(first, batch), learned.loss(second, batch)
        gap = one.total.new_zeros(())
        for a, b in zip(task.decisions(first, batch), task.decisions(second, batch), strict=True):
            gap = gap + a.share * difference(a, b).sum()
        parts = {name: ((total + other.parts[name][0]) / 2, count) for name, (total, count) in one.parts.items()}
        parts["r_drop"] = (gap.detach(), one.count)
        return Loss((one.total + other.total) / 2 + weight * gap, one.count, parts)

    return loss
