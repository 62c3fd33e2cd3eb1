"""Each schedule rises, falls or stays as its name says, and is never 0 at a step that is taken."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bertsmith.train.optim import OptimConfig
from bertsmith.train.schedule import SCHEDULES, ScheduleConfig, linear, share


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
