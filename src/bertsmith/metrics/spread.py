"""How much a score differs from run to run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev


def deviation(scores: Sequence[float]) -> float:
    """The standard deviation of a score over runs, with n - 1; 0 for one run, nan where a score is not finite.

    Args:
        scores: one a run, of which some may be undefined, such as the correlation with a constant.
    """
    if not all(map(math.isfinite, scores)):
        return math.nan
    return stdev(scores) if len(scores) > 1 else 0.0
