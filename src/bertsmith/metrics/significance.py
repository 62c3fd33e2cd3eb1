"""Whether two systems that answered the same rows differ by more than chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Swapped = NDArray[np.bool_]
Measure = Callable[[Rows, Swapped], tuple[float, float]]
"""The scores of both systems on some rows (numbers, which may repeat), where the answers to some are swapped."""
SLACK = 1e-12
"""By so much sums of the same floats in another order may differ."""


@dataclass(frozen=True, slots=True)
class Significance:
    """How much one system is better than another, and how sure that is.

    Attributes:
        scores: of the one and of the other.
        difference: of the two; above 0: the one scores more.
        p: of as large a difference, either way, where it is chance which of the two gave which answer; above 0, to 1.
        low: below it lies the difference on other such rows with a probability of (1 - level) / 2.
        high: above it likewise.
        level: of the interval from `low` to `high`, 0 to 1.
        rows: that both answered.
        resamples: drawn for `p`, and again for the interval.
        seed: by which they were drawn.
    """

    scores: tuple[float, float]
    difference: float
    p: float
    low: float
    high: float
    level: float
    rows: int
    resamples: int
    seed: int


def paired(measure: Measure, rows: int, *, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Significance:
    """Compare two systems by approximate randomisation, and give the bootstrap's interval of the difference.

    A resample in which a score is not defined counts against a difference, and is left out of the interval.

    Args:
        measure: scores both.
        rows: how many there are, 1 or more.
        resamples: 1 or more; p is at least 1 / (resamples + 1).
        seed: of the draw.
        level: of the interval, 0 to 1.

    Source: Noreen 1989; Yeh 2000 (arXiv:cs/0008005) for swapping answers; Efron 1979 and Koehn 2004 for drawing rows.
    """
    rng = np.random.default_rng(seed)
    everything, as_is = np.arange(rows), np.zeros(rows, np.bool_)
    scores = measure(everything, as_is)
    difference = scores[0] - scores[1]
    hits = 0
    for _ in range(resamples):
        one, other = measure(everything, rng.integers(0, 2, rows).astype(np.bool_))
        hits += not abs(one - other) < abs(difference) - SLACK
    drawn = np.array([np.subtract(*measure(rng.integers(0, rows, rows), as_is)) for _ in range(resamples)])
    edges = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2]) if np.isfinite(drawn).any() else [np.nan] * 2
    return Significance(
        scores, difference, (hits + 1) / (resamples + 1), float(edges[0]), float(edges[1]), level, rows, resamples, seed
    )


def of_sums(one: NDArray[np.float64], other: NDArray[np.float64], score: Callable[..., float]) -> Measure:
    """A measure that is a function of sums over rows, such as accuracy or micro-F1; fast.

    Args:
        one: figures of each row, `[N, K]`, by the one system.
        other: by the other.
        score: of K sums.
    """

    def measure(rows: Rows, swapped: Swapped) -> tuple[float, float]:
        chosen = swapped[rows, None]
        a = np.where(chosen, other[rows], one[rows]).sum(0)
        b = np.where(chosen, one[rows], other[rows]).sum(0)
        return score(*a.tolist()), score(*b.tolist())

    return measure
