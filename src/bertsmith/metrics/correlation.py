"""Agreement of predicted numbers with gold ones (STS-B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.metrics.classification import check_pairs

Numbers: TypeAlias = Sequence[float] | NDArray[np.floating]


def pearson(gold: Numbers, predicted: Numbers) -> float:
    """Pearson's correlation, -1 to 1: how nearly the points lie on a line.

    Returns:
        The correlation; nan when it is undefined: fewer than two rows, or one side constant.

    Raises:
        DataError: lengths differ, nothing to score, or a value is not finite (names the row).
    """
    x, y = _centred(_finite(gold, predicted, "gold")), _centred(_finite(predicted, gold, "predicted"))
    spread = math.sqrt(x @ x) * math.sqrt(y @ y)
    return float(np.clip((x @ y) / spread, -1.0, 1.0)) if spread else math.nan


def spearman(gold: Numbers, predicted: Numbers) -> float:
    """Spearman's rank correlation, -1 to 1: how nearly the order agrees; equal values share their mean rank.

    Returns:
        The correlation; nan when it is undefined: fewer than two rows, or one side constant.

    Raises:
        DataError: lengths differ, nothing to score, or a value is not finite (names the row).
    """
    return pearson(ranks(_finite(gold, predicted, "gold")), ranks(_finite(predicted, gold, "predicted")))


def ranks(values: Numbers) -> NDArray[np.float64]:
    """Rank of each value from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return mean_rank


def _finite(values: Numbers, others: Numbers, name: str) -> NDArray[np.float64]:
    check_pairs(values, others)
    array = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise DataError(f"{name} value {int(bad[0]) + 1} is {array[bad[0]]}, not a finite number; fix or drop that row")
    return array


def _centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations from the mean, scaled to at most 1 so that no square over- or underflows; zeros when constant."""
    if (values == values[0]).all():
        return np.zeros_like(values)
    scaled = values / np.abs(values).max()
    centred = scaled - scaled.mean()
    largest = float(np.abs(centred).max())
    result: NDArray[np.float64] = centred / largest if largest else centred
    return result
