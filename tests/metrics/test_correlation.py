from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

from bertsmith.core.errors import DataError
from bertsmith.metrics.correlation import pearson, ranks, spearman

numbers = st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), min_size=2, max_size=50)


@settings(deadline=None)
@given(numbers, st.floats(0.001, 1000), st.floats(-100, 100))
def test_both_equal_scipy_with_ties(points: list[tuple[int, int]], scale: float, shift: float) -> None:
    x, y = (np.array(side, dtype=float) for side in zip(*points, strict=True))
    y = y * scale + shift
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(pearson(x, y))
        assert math.isnan(spearman(x, y))
    else:
        assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-7)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_ranks_equal_scipy(values: list[float]) -> None:
    assert (ranks(values) == stats.rankdata(values)).all()


def test_one_row_has_no_correlation() -> None:
    assert math.isnan(pearson([1.0], [2.0]))


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_very_small_and_very_large_numbers_keep_their_correlation(factor: float) -> None:
    assert pearson(np.array([1.0, 2.0, 3.0]) * factor, [1.0, 2.0, 3.0]) == pytest.approx(1.0)


def test_a_constant_that_is_no_binary_fraction_is_still_constant() -> None:
    assert math.isnan(pearson([0.1] * 7, [1, 2, 3, 4, 5, 6, 7]))


def test_a_value_that_is_no_number_is_named() -> None:
    with pytest.raises(DataError, match="predicted value 2 is nan"):
        pearson([1.0, 2.0], [1.0, math.nan])
    with pytest.raises(DataError, match="gold value 1 is inf"):
        spearman([math.inf, 2.0], [1.0, 2.0])


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="3 gold answers but 2 predictions"):
        spearman([1, 2, 3], [1, 2])
