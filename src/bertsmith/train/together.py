"""Several tasks learned and judged as one: their losses in turn, their scores side by side, and the mean of these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor

from bertsmith.core.device import Precision
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch
from bertsmith.model.views import view
from bertsmith.tasks.base import Answer, Loss
from bertsmith.train.best import judged
from bertsmith.train.loop import Learnable
from bertsmith.train.subject import Subject

MEAN = "mean"
"""The score by which several tasks are judged together: the mean of the headlines of all."""


@dataclass(frozen=True)
class Together:
    """Several tasks, of which a step learns one: the one whose heads read its batches.

    Attributes:
        parts: by name, what is learned of each.
    """

    parts: Mapping[str, Learnable]

    def part(self, batch: Batch) -> Learnable:
        """The task of a batch; see `train.loop.Learnable`."""
        return self.parts[batch.heads]

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """The loss of the task of a batch."""
        return self.part(batch).loss(outputs, batch)


def together(parts: Mapping[str, Learnable]) -> Learnable:
    """What the loop asks for the loss.

    Args:
        parts: by name; of a single task the name is empty.
    """
    return parts[""] if list(parts) == [""] else Together(parts)


def headline_of(subjects: Mapping[str, Subject]) -> str:
    """The score by which weights are kept where no other is asked for.

    Args:
        subjects: by name; of a single task the name is empty.
    """
    return subjects[""].task.headline if list(subjects) == [""] else MEAN


def judged_together(
    subjects: Mapping[str, Subject], model: Model, precision: Precision
) -> tuple[dict[str, list[Answer]], dict[str, float]]:
    """Answers to the dev rows of each task, and all scores.

    Args:
        subjects: by name.
        model: of one task or several.
        precision: of matrix products.
    """
    found = {name: judged(one.task, view(model, name), one.data.dev, precision) for name, one in subjects.items()}
    answers = {name: answers for name, (answers, _) in found.items()}
    return answers, joined({name: scores for name, (_, scores) in found.items()}, subjects)


def joined(scores: Mapping[str, Mapping[str, float]], subjects: Mapping[str, Subject]) -> dict[str, float]:
    """The scores of all tasks by `task/score`, after the mean of their headlines; those of a single task as they are.

    The mean is there where every task has its headline; a headline that is undefined counts as 0 in it.

    Args:
        scores: by task, by name.
        subjects: all tasks, by name.
    """
    if list(subjects) == [""]:
        return dict(scores.get("", {}))
    each = {f"{name}/{key}": value for name, found in scores.items() for key, value in found.items()}
    values = [scores.get(name, {}).get(subject.task.headline) for name, subject in subjects.items()]
    if None in values:
        return each
    return {MEAN: fmean(value if value is not None and math.isfinite(value) else 0.0 for value in values), **each}


def shown(subjects: Mapping[str, Subject], scores: Mapping[str, float]) -> str:
    """The headline of each of several tasks, for the end of a line; empty for a single task.

    Args:
        subjects: by name.
        scores: as `joined` gives them.
    """
    if list(subjects) == [""]:
        return ""
    names = [f"{name}/{subject.task.headline}" for name, subject in subjects.items()]
    return f" ({', '.join(f'{name} {scores[name]:.4f}' for name in names if name in scores)})"
