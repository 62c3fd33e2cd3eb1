"""How much a score differs from run to run."""

from __future__ import annotations

import math

import pytest

from bertsmith.metrics.spread import deviation


@pytest.mark.parametrize(("scores", "expected"), [([0.5], 0.0), ([1.0, 3.0], math.sqrt(2)), ([2.0, 2.0, 2.0], 0.0)])
def test_the_deviation_of_a_sample(scores: list[float], expected: float) -> None:
    assert deviation(scores) == pytest.approx(expected)


@pytest.mark.parametrize("scores", [[math.nan], [0.5, math.nan], [math.inf, 0.5]])
def test_a_score_that_is_undefined_makes_it_undefined(scores: list[float]) -> None:
    assert math.isnan(deviation(scores))
