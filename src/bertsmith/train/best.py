"""The best weights so far, by one held-out score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model
from bertsmith.predict.engine import answer
from bertsmith.tasks.base import Answer, Example, Task
from bertsmith.train.checkpoint import Checkpoint, load_tensors, weights

WEIGHTS = "best"


class Best:
    """Remembers the weights with the best score, and after how many evaluations without a better one a run is weary."""

    def __init__(self, metric: str, patience: int | None = None) -> None:
        """Nothing is known yet.

        Args:
            metric: the score's name; of one that is a loss or an error, less is better.
            patience: evaluations without a better one, after which the run is weary; None: never.
        """
        self.metric, self.patience = metric, patience
        self.standing, self.step, self.since = -math.inf, 0, 0
        self.scores: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def judge(self, step: int, scores: Mapping[str, float], model: nn.Module) -> None:
        """Take an evaluation into account; one in which a loss is infinite or NaN is never the best.

        Of all others the first counts, for other scores may be undefined: a correlation with one row, say.
        """
        self.since += 1
        sound = all(math.isfinite(value) for name, value in scores.items() if name.endswith("loss"))
        if sound and ((standing := rank(self.metric, scores)) > self.standing or not self.weights):
            self.standing, self.step, self.since, self.scores = standing, step, 0, dict(scores)
            self.weights = {name: value.detach().clone() for name, value in weights(model).items()}

    @property
    def weary(self) -> bool:
        """Whether patience is at an end."""
        return self.patience is not None and self.since >= self.patience

    def chosen(self, run: Path, lr: float) -> dict[str, Tensor]:
        """The best weights, at the end of a run.

        Args:
            run: its folder, for the message.
            lr: the peak rate that was asked, for the message.

        Raises:
            ConfigError: no evaluation was sound; says what to change.
        """
        if not self.weights:
            raise ConfigError(
                f"{run}: no evaluation had a finite loss, so there are no weights to keep; begin a new run with a "
                f"lower train.lr (now {lr:g}), or from other weights if they were not finite before the first step"
            )
        return self.weights

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the weights; JSON values."""
        return {"standing": self.standing, "step": self.step, "since": self.since, "scores": self.scores}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The weights, as `save_checkpoint` takes them."""
        return {WEIGHTS: self.weights} if self.weights else {}

    def restore(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        """Go on from what `state` and `tensors` were when the checkpoint was written.

        Args:
            checkpoint: of a run with the same metric.
            model: if it is cut over ranks, so are the best weights.
        """
        state = checkpoint.state["best"]
        self.standing, self.step, self.since = state["standing"], state["step"], state["since"]
        self.scores = state["scores"]
        self.weights = load_tensors(checkpoint, WEIGHTS, model)


def judged(
    task: Task, model: Model, rows: Sequence[Example], precision: Precision
) -> tuple[list[Answer], dict[str, float]]:
    """Answers to dev rows and their scores; what a task lets dev decide, such as a threshold, is decided first.

    Args:
        task: may have a method `tune(answers, rows)` that decides, and gives the answers that follow.
        model: with the task's head.
        rows: of the dev set.
        precision: of matrix products.
    """
    answers = answer(task, model, rows, precision=precision)
    if (tune := getattr(task, "tune", None)) is not None:
        answers = tune(answers, rows)
    return answers, task.score(answers, rows)


def rank(metric: str, scores: Mapping[str, float]) -> float:
    """A score as something of which more is better: losses and errors count downwards, an undefined one is the worst.

    Args:
        metric: the score's name.
        scores: by name.
    """
    value = -scores[metric] if metric.endswith(("loss", "mse")) else scores[metric]
    return value if math.isfinite(value) else -math.inf
