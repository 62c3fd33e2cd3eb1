"""How long a run is: a time, a number of steps, tokens or epochs; in the end always steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator

from bertsmith.core.config import Config, Count, Duration
from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model
from bertsmith.train.distributed import ALONE, Ranks
from bertsmith.train.loop import Feed, Learnable, steps
from bertsmith.train.optim import OptimConfig, build_optimizer


class Length(Config):
    """One of four ways to say how long; the last three need no measurement."""

    budget: Duration | None = Field(
        None, description="train for about this long: 30m, 2h; turned into steps at the start"
    )
    steps: Count | None = Field(None, ge=1, description="number of updates")
    tokens: Count | None = Field(None, ge=1, description="number of tokens to train on")
    epochs: float | None = Field(None, gt=0, allow_inf_nan=False, description="passes over the data")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("budget", "steps", "tokens", "epochs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of budget, steps, tokens, epochs, not {' and '.join(given)}")
        if self.budget is not None and self.budget <= 0:
            raise ValueError("a budget must be longer than 0 seconds")
        return self

    def count(self, *, tokens_per_step: float, steps_per_epoch: int) -> int | None:
        """Steps, where that is a matter of counting; None for a budget.

        Args:
            tokens_per_step: packed tokens of an average step.
            steps_per_epoch: steps of a pass over the data.
        """
        if self.steps is not None:
            return self.steps
        if self.tokens is not None:
            return max(1, round(self.tokens / tokens_per_step))
        if self.epochs is not None:
            return max(1, round(self.epochs * steps_per_epoch))
        return None


def seconds_per_step(
    model: Model,
    task: Learnable,
    feed: Feed,
    config: OptimConfig,
    *,
    dtype: torch.dtype,
    seconds: float,
    ranks: Ranks = ALONE,
) -> float:
    """Measure a step on this machine by taking some; the weights are put back.

    Args:
        model: whose weights stay as they are.
        task: gives the loss.
        feed: real batches.
        config: the optimiser.
        dtype: of matrix products.
        seconds: measure for about this long, at least two steps after the first, which compiles.
        ranks: the processes that take the steps together; the first one's clock counts.

    Returns:
        The median, in seconds.
    """
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    taken: list[float] = []
    began = time.perf_counter()
    for step in steps(
        model, task, feed, build_optimizer(model, config), config, total=1_000_000, dtype=dtype, ranks=ranks
    ):
        taken.append(step.seconds)
        if ranks.share(len(taken) >= 3 and time.perf_counter() - began >= seconds):
            break
    model.load_state_dict(kept)
    return float(ranks.share(torch.tensor(taken[1:]).median().item()))


def fit(budget: float, spent: float, step_seconds: float, evaluation_seconds: float, say: Callable[[str], None]) -> int:
    """Steps that fit into what is left of a budget.

    Args:
        budget: seconds in all.
        spent: seconds gone already.
        step_seconds: measured.
        evaluation_seconds: of all evaluations together, measured.
        say: takes a line for the user.

    Raises:
        ConfigError: not one step fits.
    """
    left = budget - spent - evaluation_seconds
    count = int(left / step_seconds)
    if count < 1:
        raise ConfigError(
            f"a budget of {budget:.0f} s is too short here: preparing and measuring took {spent:.1f} s, "
            f"evaluation takes {evaluation_seconds:.0f} s and a step {step_seconds:.3f} s; give at least "
            f"{spent + evaluation_seconds + 10 * step_seconds:.0f}s, or say how many updates with --steps"
        )
    say(
        f"budget: {step_seconds:.3f} s a step here, so {count:,} steps fit into the {left:.0f} s left of {budget:.0f} s"
    )
    return count
