"""Stages of a run: sequences that grow, steps that grow, and what is predicted, one after another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from bertsmith.core.config import Config, Count
from bertsmith.core.errors import ConfigError
from bertsmith.model.packing import Batch
from bertsmith.tasks.pretraining import Objective
from bertsmith.train.feed import MixedFeed, PretrainingFeed, progress

OwnFeed = PretrainingFeed | MixedFeed
WHOLE = 1e-6
"""How far the shares of all stages may be from 1."""


class Stage(Config):
    """A part of a run, with what is different in it."""

    share: float = Field(gt=0, le=1, description="of the run's steps; those of all stages add up to 1")
    max_length: int | None = Field(None, ge=16, description="pieces of a full sequence; task.max_length when not given")
    batch_tokens: Count | None = Field(None, ge=64, description="of an update; train.batch_tokens when not given")
    objective: Objective = Field(
        "masked", description="masked: hide pieces, as task.objective has it; causal: predict what comes next"
    )
    causal_share: float = Field(
        0.0, ge=0, lt=1, description="masked: of the tokens, in updates of their own, predict what comes next instead"
    )
    predicted: float = Field(1.0, gt=0, le=1, description="causal: share of pieces that are predicted")

    @property
    def objectives(self) -> dict[Objective, float]:
        """What is predicted, each in which share of the tokens."""
        if self.objective == "causal" or not self.causal_share:
            return {self.objective: 1.0}
        return {"masked": 1 - self.causal_share, "causal": self.causal_share}

    @model_validator(mode="after")
    def _one_or_both(self) -> Self:
        if self.objective == "causal" and self.causal_share:
            raise ValueError("causal_share mixes into a masked stage; in one that is causal all of it is")
        return self


def _add_up(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    whole = sum(stage.share for stage in stages)
    if stages and abs(whole - 1) > WHOLE:
        raise ValueError(f"the shares of the stages add up to {whole:g}; make it 1")
    return stages


Stages = Annotated[tuple[Stage, ...], AfterValidator(_add_up)]


class StagedFeed:
    """One feed after another, each for its share of the run's steps.

    Which feed gives step k, and which of its batches that is, is arithmetic on k and the run's length.

    Source: Devlin et al. 2019, appendix A.2, for lengths that grow; Smith et al. 2018 (arXiv:1711.00489) for steps that
    grow; Gisserot-Boukhlef et al. 2025 (arXiv:2507.00994) for predicting what comes next before what is hidden.
    """

    def __init__(self, feeds: Sequence[OwnFeed], shares: Sequence[float]) -> None:
        """Put feeds in a row.

        Args:
            feeds: at least one.
            shares: of the run's steps, one a feed, adding up to 1.
        """
        self.feeds, self.shares = list(feeds), list(shares)
        self._total: int | None = None
        self._starts: list[int] = []
        pairs = list(zip(feeds, shares, strict=True))
        self.tokens_per_step = sum(share * feed.tokens_per_step for feed, share in pairs)
        tokens_per_epoch = feeds[0].tokens_per_step * feeds[0].steps_per_epoch
        self.steps_per_epoch = max(1, round(tokens_per_epoch / self.tokens_per_step))
        """Steps of average size in which a text is passed over once."""

    @property
    def total(self) -> int | None:
        """Steps of the run, to be set before its first step."""
        return self._total

    @total.setter
    def total(self, steps: int) -> None:
        self._total = steps
        self._starts = [round(before * steps) for before in accumulate(self.shares[:-1], initial=0.0)]
        for feed in self.feeds:
            feed.total = steps

    def turn(self, step: int) -> tuple[int, int]:
        """Which stage `step` is in, and how many steps that stage has had before."""
        stage = bisect_right(self._starts, step) - 1
        return stage, step - self._starts[stage]

    def __call__(self, step: int) -> list[Batch]:
        """This rank's batches of `step`, from 0."""
        stage, own = self.turn(step)
        return self.feeds[stage].batches(own, progress(step, self._total))

    def source_of(self, step: int) -> int:
        """Which of several corpora `step` reads: 0 is the run's own, then those that are replayed."""
        stage, own = self.turn(step)
        return self.feeds[stage].source_of(own)

    def halve(self) -> None:
        """From now on cut each step into twice as many batches."""
        for feed in self.feeds:
            feed.halve()


def staged(stages: Sequence[Stage], longest: int, feed_of: Callable[[int, Stage], OwnFeed]) -> OwnFeed | StagedFeed:
    """The feed of a run with these stages; with none, one feed for all of it.

    Args:
        stages: in their order.
        longest: `task.max_length`, at which held-out text is measured.
        feed_of: makes the feed of a stage from its number, from 0, and its settings.

    Raises:
        ConfigError: a stage has longer sequences than held-out text is measured at.
    """
    for number, stage in enumerate(stages):
        if (stage.max_length or 0) > longest:
            raise ConfigError(
                f"train.stages[{number}].max_length {stage.max_length} is more than task.max_length {longest}, the "
                f"length at which held-out text is measured; set task.max_length to the longest"
            )
    if not stages:
        return feed_of(0, Stage(share=1.0))
    return StagedFeed([feed_of(number, stage) for number, stage in enumerate(stages)], [s.share for s in stages])


def phases(feed: OwnFeed | StagedFeed) -> list[tuple[float, OwnFeed]]:
    """The feeds of a run with their shares of its steps, each of which may take its own time a step."""
    return list(zip(feed.shares, feed.feeds, strict=True)) if isinstance(feed, StagedFeed) else [(1.0, feed)]


def begins(stages: Sequence[Stage], feed: OwnFeed | StagedFeed, step: int) -> str:
    """A line for the user at the first step of a stage; empty at others.

    Args:
        stages: of the run.
        feed: of the run.
        step: from 0.
    """
    if not isinstance(feed, StagedFeed) or len(stages) < 2:
        return ""
    number, own = feed.turn(step)
    if own:
        return ""
    objective = stages[number].objective
    aim = "what comes next" if objective == "causal" else "what is hidden"
    if share := stages[number].causal_share:
        aim += f", and of {share:.0%} of the text what comes next"
    changed = number and objective != stages[number - 1].objective
    after = "; losses from here do not compare with those before" if changed else ""
    return f"step {step + 1}: stage {number + 1} of {len(stages)}, learning {aim}{after}"
