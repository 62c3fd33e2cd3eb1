"""The test of two systems: against all swaps there are, against scipy's bootstrap, and where nothing differs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from bertsmith.metrics.significance import Rows, Swapped, of_sums, paired


def mean(total: float, count: float) -> float:
    return total / count


def hits(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.stack([values, np.ones(len(values))], axis=1).astype(np.float64)


def drawn(seed: int, rows: int, gap: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    return rng.random(rows) < 0.6 + gap, rng.random(rows) < 0.6


@pytest.mark.parametrize(("seed", "gap"), [(0, 0.0), (1, 0.2), (2, 0.4)])
def test_p_is_the_share_of_all_swaps_that_give_as_much(seed: int, gap: float) -> None:
    one, other = drawn(seed, 12, gap)
    real = abs(one.mean() - other.mean())
    found = []
    for swap in itertools.product((False, True), repeat=12):
        swapped = np.array(swap)
        a, b = np.where(swapped, other, one), np.where(swapped, one, other)
        found.append(abs(a.mean() - b.mean()) >= real - 1e-12)
    exact = float(np.mean(found))
    result = paired(of_sums(hits(one), hits(other), mean), 12, resamples=4000)
    assert result.p == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 4000) ** 0.5 + 1e-3)
    assert result.scores == (one.mean(), other.mean())
    assert result.difference == pytest.approx(one.mean() - other.mean())


def test_the_interval_is_the_bootstraps() -> None:
    one, other = drawn(3, 300, 0.1)
    result = paired(of_sums(hits(one), hits(other), mean), 300, resamples=4000, level=0.9)
    reference = stats.bootstrap(
        (one.astype(float), other.astype(float)), lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True, vectorized=True, n_resamples=4000, confidence_level=0.9, method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    assert result.low == pytest.approx(reference.low, abs=0.006)
    assert result.high == pytest.approx(reference.high, abs=0.006)
    assert result.low < result.difference < result.high


def test_equal_systems_do_not_differ_and_a_clear_difference_does() -> None:
    one, _ = drawn(4, 200, 0.0)
    same = paired(of_sums(hits(one), hits(one), mean), 200, resamples=200)
    assert (same.p, same.difference, same.low, same.high) == (1.0, 0.0, 0.0, 0.0)
    clear = paired(of_sums(hits(np.ones(200)), hits(np.arange(200) % 2), mean), 200, resamples=199)
    assert clear.p == 1 / 200
    assert clear.low > 0.4


def test_the_seed_decides_and_is_told() -> None:
    one, other = drawn(5, 80, 0.1)
    measure = of_sums(hits(one), hits(other), mean)
    first, again, different = (paired(measure, 80, resamples=300, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.p, first.low) != (different.p, different.low)
    assert (first.seed, first.resamples, first.rows, first.level) == (1, 300, 80, 0.95)


def test_scores_that_are_not_defined_count_against_a_difference() -> None:
    def measure(rows: Rows, swapped: Swapped) -> tuple[float, float]:
        return (0.9, 0.1) if not swapped.any() and len(set(rows)) == 4 else (float("nan"), 0.0)

    found = paired(measure, 4, resamples=50)
    assert found.p > 0.9
    assert np.isfinite([found.low, found.high]).all() == bool(found.low == pytest.approx(0.8))
