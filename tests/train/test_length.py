"""A time, steps, tokens or epochs: in the end always steps."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from bertsmith.core.errors import ConfigError
from bertsmith.train.length import Length, fit


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"steps": "2k"}, 2000),
        ({"tokens": "1M"}, 1000),
        ({"epochs": 2.5}, 125),
        ({"epochs": 0.001}, 1),
        ({"tokens": 1}, 1),
        ({"budget": "30m"}, None),
        ({}, None),
    ],
)
def test_each_way_to_say_it(asked: dict[str, object], expected: int | None) -> None:
    length = Length.model_validate(asked)
    assert length.count(tokens_per_step=1000.0, steps_per_epoch=50) == expected


@pytest.mark.parametrize("asked", [{"steps": 5, "budget": "1m"}, {"tokens": 5, "epochs": 1}])
def test_one_of_them_only(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"give one of budget, steps, tokens, epochs, not \w+ and \w+"):
        Length.model_validate(asked)


@pytest.mark.parametrize(
    "asked", [{"steps": 0}, {"epochs": 0}, {"epochs": float("inf")}, {"tokens": -1}, {"budget": 0}]
)
def test_nothing_is_no_length(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Length.model_validate(asked)


def test_a_budget_becomes_steps() -> None:
    said: list[str] = []
    assert fit(100.0, 10.0, 0.5, 20.0, said.append) == 140
    assert said == ["budget: 0.500 s a step here, so 140 steps fit into the 70 s left of 100 s"]


def test_a_budget_too_short_says_what_would_do() -> None:
    with pytest.raises(ConfigError, match="a budget of 10 s is too short here") as caught:
        fit(10.0, 8.0, 0.5, 3.0, print)
    advised = re.search(r"at least (\d+)s", str(caught.value))
    assert advised is not None
    assert fit(float(advised[1]), 8.0, 0.5, 3.0, lambda text: None) >= 1
