"""Each schedule rises, falls or stays as its name says, and is never 0 at a step that is taken."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bertsmith.core.errors import ConfigError
from bertsmith.train.finetuning import FinetuningRun
from bertsmith.train.optim import OptimConfig
from bertsmith.train.schedule import SCHEDULES, ScheduleConfig, linear, phased, share


def configured(**values: object) -> ScheduleConfig:
    return ScheduleConfig.model_validate(values)


@pytest.mark.parametrize("name", SCHEDULES)
@given(total=st.integers(1, 3000), ratio=st.floats(0, 0.8), floor=st.floats(0, 1))
@settings(deadline=None)
def test_up_then_never_up_again_and_never_zero(name: str, total: int, ratio: float, floor: float) -> None:
    config = configured(schedule=name, warmup_ratio=ratio, min_lr_ratio=floor)
    shares = [share(step, total, config) for step in range(total)]
    assert all(0 < value <= 1 for value in shares)
    top = min(round(ratio * total), total - 1)
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert all(value >= floor - 1e-12 for value in shares[top + 1 :])


def test_the_corners_of_linear() -> None:
    level, rising = configured(warmup_ratio=0), configured(warmup_ratio=0.09)
    assert linear(0, 100, level) == 1.0
    assert linear(0, 100, rising) == pytest.approx(0.1)
    assert linear(9, 100, rising) == 1.0
    assert linear(99, 100, rising) == pytest.approx(1 / 91)


def test_cosine_is_half_way_down_half_way_through() -> None:
    config = configured(schedule="cosine", warmup_ratio=0.1, min_lr_ratio=0.2)
    assert [share(step, 1000, config) for step in (100, 550, 1000)] == pytest.approx([1.0, 0.6, 0.2])


def test_wsd_stays_and_then_falls_as_a_square_root() -> None:
    config = configured(schedule="wsd", warmup_ratio=0.1, decay_ratio=0.2)
    assert {share(step, 1000, config) for step in range(100, 801)} == {1.0}
    for step in (801, 850, 999):
        assert share(step, 1000, config) == pytest.approx(1 - math.sqrt((step - 800) / 200))
    with pytest.raises(ValidationError, match="more than the whole run"):
        configured(schedule="wsd", warmup_ratio=0.3, decay_ratio=0.8)


def test_one_cycle_rises_from_a_25th_over_three_tenths() -> None:
    config = configured(schedule="one-cycle")
    assert config.warmup_ratio == 0.3
    assert configured(schedule="one-cycle", warmup_ratio=0.5).warmup_ratio == 0.5
    assert OptimConfig.model_validate({"schedule": "one-cycle"}).warmup_ratio == 0.3
    expected = [0.04, 0.52, 1.0, 0.5]
    assert [share(step, 1000, config) for step in (0, 150, 300, 650)] == pytest.approx(expected)


def test_constant_stays() -> None:
    config = configured(schedule="constant", warmup_ratio=0.1)
    assert {share(step, 100, config) for step in range(10, 100)} == {1.0}
    assert share(0, 100, config) == pytest.approx(1 / 11)


@pytest.mark.parametrize(
    ("told", "rise"),
    [({"warmup": "30steps"}, 30), ({"warmup": "1.5k tokens"}, 30), ({"warmup": "90s", "budget": "10m"}, 30)],
)
def test_a_rise_in_steps_tokens_or_seconds(told: dict[str, object], rise: int) -> None:
    config = phased(FinetuningRun.model_validate(told), 200, tokens_per_step=50.0)
    rates = [share(step, 200, config) for step in range(200)]
    assert rates.index(1.0) == rise
    assert FinetuningRun.model_validate(config.model_dump(mode="json")).warmup == told["warmup"]


def test_a_fall_in_steps() -> None:
    config = phased(configured(schedule="wsd", warmup="10steps", decay="40 steps"), 200, tokens_per_step=50.0)
    rates = [share(step, 200, config) for step in range(200)]
    assert [step for step, rate in enumerate(rates) if rate == 1.0] == list(range(10, 161))
    assert phased(configured(), 200, tokens_per_step=50.0) == configured()


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"warmup": "300steps"}, r"train.warmup=300steps is more than the whole run \(200 steps\)"),
        ({"warmup": "3m"}, "is a part of a --budget, and this run has none"),
        ({"schedule": "wsd", "warmup": "150steps", "decay": "5ktokens"}, "rise over 75% of the run and fall over 50%"),
    ],
)
def test_phases_that_do_not_fit(told: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        phased(configured(**told), 200, tokens_per_step=50.0)


@pytest.mark.parametrize(
    ("told", "why"), [({"warmup": "soon"}, "500steps, 2Mtokens or 3m"), ({"decay": "5steps"}, "wsd")]
)
def test_phases_that_are_none(told: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        configured(**told)
