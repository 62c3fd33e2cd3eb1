"""Scores of an order: how far up the right ones stand. Gold first, as in scikit-learn.

Candidates with equal scores have no order, so every figure here is the mean over all orders that they could take. A
model that gives everything the same score then gets what chance would get, and no more.

Sources: Järvelin & Kekäläinen 2002 for nDCG, Voorhees 1999 for the reciprocal rank; McSherry & Najork 2008 for ties.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.metrics.classification import check_pairs

Numbers: TypeAlias = Sequence[float] | Sequence[int] | NDArray[np.floating] | NDArray[np.integer]


class Tie(NamedTuple):
    """Candidates of one score, some of them relevant.

    Attributes:
        above: how many candidates have a higher score.
        size: how many have this one.
        relevant: how many of these are relevant.
        gain: sum of their relevance.
    """

    above: int
    size: int
    relevant: int
    gain: float


def ties(relevance: Numbers, scores: Numbers) -> list[Tie]:
    """Where the relevant candidates of one query stand, best first.

    Args:
        relevance: of each candidate, `[D]`; 0 or less is not relevant.
        scores: higher is better, `[D]`.

    Raises:
        DataError: lengths differ, there is no candidate, or a value is not finite (names its place).
    """
    check_pairs(relevance, scores)
    gold, found = np.asarray(relevance, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    for name, values in (("relevance", gold), ("score", found)):
        if len(bad := np.flatnonzero(~np.isfinite(values))):
            raise DataError(f"{name} of candidate {int(bad[0]) + 1} is {values[bad[0]]}, not a finite number")
    _, place, size = np.unique(found, return_inverse=True, return_counts=True)
    right = gold > 0
    relevant = np.bincount(place[right], minlength=len(size))
    gain = np.bincount(place[right], weights=gold[right], minlength=len(size))
    above = len(found) - np.cumsum(size)
    columns = [values[relevant > 0][::-1].tolist() for values in (above, size, relevant, gain)]
    return [Tie(*row) for row in zip(*columns, strict=True)]


def ndcg(relevance: Numbers, scores: Numbers, k: int = 10) -> float:
    """Discounted gain of the best k, divided by that of the best order, 0 to 1; linear gain, 0 when none is relevant.

    Equals scikit-learn's `ndcg_score` of one query.
    """
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, len(scores) + 2)))])
    discounts[k + 1 :] = discounts[min(k, len(scores))]
    gained = sum(
        tie.gain / tie.size * (discounts[tie.above + tie.size] - discounts[tie.above])
        for tie in ties(relevance, scores)
    )
    best = np.sort(np.maximum(np.asarray(relevance, dtype=np.float64), 0))[::-1]
    ideal = float((best * np.diff(discounts)).sum())
    return float(gained / ideal) if ideal else 0.0


def recall(relevance: Numbers, scores: Numbers, k: int) -> float:
    """Share of the relevant candidates that stand among the best k, 0 to 1; 0 when none is relevant."""
    found = ties(relevance, scores)
    total = sum(tie.relevant for tie in found)
    inside = sum(tie.relevant * min(1.0, max(0, k - tie.above) / tie.size) for tie in found)
    return inside / total if total else 0.0


def reciprocal_rank(relevance: Numbers, scores: Numbers) -> float:
    """1 / rank of the first relevant candidate, 0 to 1; 0 when none is relevant."""
    first = ties(relevance, scores)[:1]
    return sum(chance / (tie.above + n) for tie in first for n, chance in enumerate(_first(tie), start=1))


def hits(relevance: Numbers, scores: Numbers, k: int = 1) -> float:
    """Whether any relevant candidate stands among the best k: 0 or 1, and between them where scores are equal."""
    first = ties(relevance, scores)[:1]
    return sum(chance for tie in first for n, chance in enumerate(_first(tie), start=1) if tie.above + n <= k)


def average_precision(gold: Numbers, scores: Numbers) -> float:
    """Mean precision at the place of each relevant candidate, 0 to 1; 0 when none is relevant.

    Candidates of equal score are taken in together. Equals scikit-learn's `average_precision_score`.
    """
    found = ties(gold, scores)
    seen, total = 0, 0.0
    for tie in found:
        seen += tie.relevant
        total += tie.relevant * seen / (tie.above + tie.size)
    return total / seen if seen else 0.0


def ranking_scores(queries: Iterable[tuple[Numbers, Numbers]]) -> dict[str, float]:
    """Means over queries: `ndcg@10`, `mrr`, `recall@1`, `recall@10`, `hits@1`.

    Args:
        queries: relevance and scores of each query's candidates.

    Raises:
        DataError: there is no query.
    """
    rows = [
        (
            ndcg(relevance, scores, 10),
            reciprocal_rank(relevance, scores),
            recall(relevance, scores, 1),
            recall(relevance, scores, 10),
            hits(relevance, scores, 1),
        )
        for relevance, scores in queries
    ]
    if not rows:
        raise DataError("nothing to score: there is no query; check that the file has rows")
    means = np.mean(rows, axis=0).tolist()
    return dict(zip(("ndcg@10", "mrr", "recall@1", "recall@10", "hits@1"), means, strict=True))


def best_threshold(gold: Numbers, scores: Numbers) -> float:
    """The threshold from which on to call candidates relevant, for the best F1.

    It lies halfway between two neighbouring scores, so that it carries over to others.

    Args:
        gold: whether each candidate is relevant, `[D]`; above 0 is.
        scores: higher is better, `[D]`.

    Returns:
        The threshold; the lowest score where nothing is relevant.
    """
    check_pairs(gold, scores)
    found = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-found, kind="stable")
    truth, found = (np.asarray(gold, dtype=np.float64) > 0)[order], found[order]
    last = np.append(np.flatnonzero(np.diff(found)), len(found) - 1)
    right = np.cumsum(truth)[last]
    f1 = 2 * right / (last + 1 + truth.sum())
    best = int(f1.argmax())
    place = int(last[best]) if f1[best] else len(found) - 1
    below = found[place + 1] if place + 1 < len(found) else found[place]
    middle = float(found[place] + below) / 2
    return middle if middle > below else float(found[place])


def _first(tie: Tie) -> Iterable[float]:
    """The chance that the first relevant one stands at each place of a tie, 1 to size."""
    size, relevant = tie.size, tie.relevant
    chance = relevant / size
    for place in range(1, size - relevant + 2):
        yield chance
        left = size - place
        if left:
            chance *= (left - relevant + 1) / left
    assert math.isfinite(chance)
