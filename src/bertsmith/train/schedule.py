"""The learning rate at each step, as a pure function of the step."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from bertsmith.core.config import Config, parse_count, parse_duration
from bertsmith.core.errors import ConfigError

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_RISE = 0.3


def _amount(phase: str) -> tuple[float, str]:
    """How much of what a phase lasts: `steps`, `tokens` or `seconds`."""
    if found := re.fullmatch(r"\s*(.*?)\s*(step|token)s?\s*", phase):
        return parse_count(found[1]), f"{found[2]}s"
    return parse_duration(phase), "seconds"


def _is_phase(phase: str) -> str:
    try:
        _amount(phase)
    except ValueError:
        raise ValueError(f"'{phase}' is no length; write it like 500steps, 2Mtokens or 3m") from None
    return phase


Phase = Annotated[str, AfterValidator(_is_phase)]


class ScheduleConfig(Config):
    """How the learning rate moves over a run."""

    schedule: Literal["linear", "cosine", "one-cycle", "wsd", "constant"] = Field(
        "linear",
        description="after the rise: linear or cosine fall; one-cycle: long rise, cosine fall; "
        "wsd: stays, falls at the end; constant: stays",
    )
    warmup_ratio: float = Field(
        0.06, ge=0, lt=1, description="share of the steps over which the rate rises (one-cycle: 0.3)"
    )
    decay_ratio: float = Field(0.2, gt=0, le=1, description="wsd: share of the steps over which the rate falls")
    warmup: Phase | None = Field(
        None, description="how long the rate rises, instead of warmup_ratio: 500steps, 2Mtokens, or 3m of a budget"
    )
    decay: Phase | None = Field(None, description="wsd: how long the rate falls, instead of decay_ratio")
    min_lr_ratio: float = Field(0.0, ge=0, le=1, description="share of the peak learning rate at which the fall ends")

    @model_validator(mode="before")
    @classmethod
    def _one_cycle_default(cls, values: Any) -> Any:
        """What one-cycle means where nothing else is said."""
        if isinstance(values, dict) and values.get("schedule") == "one-cycle":
            return {"warmup_ratio": ONE_CYCLE_RISE} | values
        return values

    @model_validator(mode="after")
    def _phases_fit(self) -> Self:
        if self.decay is not None and self.schedule != "wsd":
            raise ValueError(
                f"decay={self.decay} is for schedule=wsd; with {self.schedule} the fall begins after the rise"
            )
        if self.schedule == "wsd" and self.warmup_ratio + self.decay_ratio > 1:
            raise ValueError(
                f"warmup_ratio {self.warmup_ratio} and decay_ratio {self.decay_ratio} are more than the whole run"
            )
        return self


S = TypeVar("S", bound=ScheduleConfig)


def phased(config: S, total: int, tokens_per_step: float) -> S:
    """The same settings with each phase as a share of the run.

    Args:
        config: with phases in steps, tokens or seconds, or without.
        total: steps of the run.
        tokens_per_step: of an average step.

    Raises:
        ConfigError: a phase is longer than the run, both are together, or seconds are given of no budget.
    """
    shares: dict[str, float] = {}
    for name in ("warmup", "decay"):
        if (phase := getattr(config, name)) is None:
            continue
        amount, unit = _amount(phase)
        budget = getattr(config, "budget", None)
        if unit == "seconds" and budget is None:
            raise ConfigError(
                f"train.{name}={phase} is a part of a --budget, and this run has none; write it in steps or tokens, "
                f"such as 500steps, or as a share: train.{name}_ratio"
            )
        whole = {"steps": total, "tokens": total * tokens_per_step, "seconds": budget or math.inf}[unit]
        shares[f"{name}_ratio"] = amount / whole
        if amount > whole:
            raise ConfigError(f"train.{name}={phase} is more than the whole run ({whole:,.0f} {unit}); make it shorter")
    found = config.model_copy(update=shares)
    if found.schedule == "wsd" and found.warmup_ratio + found.decay_ratio > 1:
        rise, fall = (f"{getattr(found, f'{name}_ratio'):.0%}" for name in ("warmup", "decay"))
        raise ConfigError(
            f"the rate would rise over {rise} of the run and fall over {fall}; make train.warmup or decay less"
        )
    return found


def share(step: int, total: int, config: ScheduleConfig) -> float:
    """Share of the peak learning rate at a step.

    Args:
        step: steps done before this one, from 0.
        total: steps in all.
        config: which schedule, and its phases.

    Returns:
        0 to 1; never 0 at a step that is taken.
    """
    return SCHEDULES[config.schedule](step, total, config)


def linear(step: int, total: int, config: ScheduleConfig) -> float:
    """Up in a line during warm-up, then down in a line.

    Args:
        step: steps done before this one, from 0.
        total: steps in all.
        config: `warmup_ratio`, `min_lr_ratio`.

    Source: Devlin et al. 2019, appendix A.2.
    """
    warmup = _warmup(total, config)
    if step < warmup:
        return _rise(step, warmup)
    return _above(config.min_lr_ratio, max(0.0, (total - step) / max(1, total - warmup)))


def cosine(step: int, total: int, config: ScheduleConfig) -> float:
    """Up in a line during warm-up, then down along half a cosine.

    Args:
        step: steps done before this one, from 0.
        total: steps in all.
        config: `warmup_ratio`, `min_lr_ratio`.

    Source: Loshchilov & Hutter 2017 (arXiv:1608.03983), without restarts.
    """
    warmup = _warmup(total, config)
    if step < warmup:
        return _rise(step, warmup)
    return _above(config.min_lr_ratio, _half_cosine(step - warmup, total - warmup))


def one_cycle(step: int, total: int, config: ScheduleConfig) -> float:
    """Up from a 25th of the peak along half a cosine, then down along another; momentum is not cycled.

    Args:
        step: steps done before this one, from 0.
        total: steps in all.
        config: `warmup_ratio` (the rise), `min_lr_ratio`.

    Source: Smith & Topin 2017 (arXiv:1708.07120); cosines and the 25th as in torch's OneCycleLR.
    """
    rise = _warmup(total, config)
    if step < rise:
        return _above(ONE_CYCLE_START, 1 - _half_cosine(step, rise))
    return _above(config.min_lr_ratio, _half_cosine(step - rise, total - rise))


def wsd(step: int, total: int, config: ScheduleConfig) -> float:
    """Warm-up, stable, decay: up in a line, level, and down at the end as 1 less a square root.

    Args:
        step: steps done before this one, from 0.
        total: steps in all.
        config: `warmup_ratio`, `decay_ratio`, `min_lr_ratio`.

    Source: Hu et al. 2024 (arXiv:2404.06395) for the phases; Hägele et al. 2024 (arXiv:2405.18392) for the shape of
    the fall, better there than a line, and for its length of a fifth.
    """
    warmup, decay = _warmup(total, config), max(1, round(config.decay_ratio * total))
    if step < warmup:
        return _rise(step, warmup)
    fallen = min(1.0, max(0.0, (step - (total - decay)) / decay))
    return _above(config.min_lr_ratio, 1 - math.sqrt(fallen))


def constant(step: int, total: int, config: ScheduleConfig) -> float:
    """Up in a line during warm-up, then level.

    Args:
        step: steps done before this one, from 0.
        total: steps in all.
        config: `warmup_ratio`.
    """
    warmup = _warmup(total, config)
    return _rise(step, warmup) if step < warmup else 1.0


SCHEDULES: dict[str, Callable[[int, int, ScheduleConfig], float]] = {
    "linear": linear,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "wsd": wsd,
    "constant": constant,
}


def _warmup(total: int, config: ScheduleConfig) -> int:
    return round(config.warmup_ratio * total)


def _rise(step: int, warmup: int) -> float:
    return (step + 1) / (warmup + 1)


def _half_cosine(step: int, steps: int) -> float:
    """From 1 at step 0 to 0 at step `steps`."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))


def _above(floor: float, share: float) -> float:
    """A share of 0 to 1 as one of `floor` to 1."""
    return floor + (1 - floor) * share
