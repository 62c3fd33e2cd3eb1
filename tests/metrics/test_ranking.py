"""Ranking scores equal scikit-learn where it has them, and the mean over every order of equal scores where not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, ndcg_score

from bertsmith.core.errors import DataError
from bertsmith.metrics.ranking import (
    average_precision,
    best_threshold,
    hits,
    ndcg,
    ranking_scores,
    recall,
    reciprocal_rank,
)

Case = tuple[NDArray[np.float64], NDArray[np.float64]]


def cases(count: int, sizes: tuple[int, int], *, graded: bool) -> list[Case]:
    """Random queries; every second one with many equal scores, some where all are relevant, none, or all equal."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(count):
        size = int(rng.integers(*sizes))
        gold = rng.integers(0, 4 if graded else 2, size).astype(float)
        scores = rng.normal(size=size) if number % 2 else rng.integers(0, 3, size).astype(float)
        if number % 10 == 0:
            gold[:] = number % 20 == 0
        if number % 14 == 0:
            scores[:] = 0.25
        made.append((gold, scores))
    return made


@pytest.mark.parametrize("k", [3, 10])
def test_ndcg_equals_scikit_learn(k: int) -> None:
    for gold, scores in cases(1000, (2, 40), graded=True):
        assert ndcg(gold, scores, k) == pytest.approx(ndcg_score([gold], [scores], k=k), abs=1e-12)


def test_average_precision_equals_scikit_learn() -> None:
    for gold, scores in cases(1000, (1, 40), graded=False):
        if gold.any():
            assert average_precision(gold, scores) == pytest.approx(average_precision_score(gold, scores), abs=1e-12)
        else:
            assert average_precision(gold, scores) == 0.0


def plain_ndcg(gold: list[float], k: int) -> float:
    def gained(values: list[float]) -> float:
        return sum(value / math.log2(place + 2) for place, value in enumerate(values[:k]))

    ideal = gained(sorted(gold, reverse=True))
    return gained(gold) / ideal if ideal else 0.0


PLAIN: dict[str, tuple[Callable[..., float], Callable[[list[float]], float]]] = {
    "ndcg@3": (lambda g, s: ndcg(g, s, 3), lambda gold: plain_ndcg(gold, 3)),
    "recall@2": (lambda g, s: recall(g, s, 2), lambda gold: sum(gold[:2]) / sum(gold) if any(gold) else 0.0),
    "mrr": (reciprocal_rank, lambda gold: 1 / (gold.index(1) + 1) if any(gold) else 0.0),
    "hits@1": (hits, lambda gold: float(gold[0])),
    "hits@3": (lambda g, s: hits(g, s, 3), lambda gold: float(any(gold[:3]))),
}


@pytest.mark.parametrize("name", PLAIN)
def test_equal_scores_give_the_mean_over_all_their_orders(name: str) -> None:
    ours, plain = PLAIN[name]
    for gold, scores in cases(1000, (1, 6), graded=False):
        orders = [
            [gold[i] for i in order]
            for order in itertools.permutations(range(len(gold)))
            if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
        ]
        assert ours(gold, scores) == pytest.approx(np.mean([plain(order) for order in orders]), abs=1e-12)


def test_a_model_that_says_the_same_of_all_gets_what_chance_gets() -> None:
    gold = np.zeros(100)
    gold[0] = 1
    scores = ranking_scores([(gold, np.ones(100))])
    assert scores["hits@1"] == scores["recall@1"] == pytest.approx(0.01)
    assert scores["recall@10"] == pytest.approx(0.1)
    assert scores["mrr"] == pytest.approx(sum(1 / n for n in range(1, 101)) / 100)


def test_means_are_over_queries() -> None:
    found = ranking_scores([([1, 0, 0], [3.0, 2.0, 1.0]), ([1, 0, 0], [1.0, 2.0, 3.0])])
    assert found["mrr"] == pytest.approx((1 + 1 / 3) / 2)
    assert (found["hits@1"], found["recall@1"], found["recall@10"]) == (0.5, 0.5, 1.0)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / 2) / 2)


def f1(gold: NDArray[np.float64], guesses: NDArray[np.bool_]) -> float:
    return float(2 * (gold * guesses).sum() / (gold.sum() + guesses.sum()))


def test_the_threshold_has_the_best_f1_of_all() -> None:
    for gold, scores in cases(1000, (1, 30), graded=False):
        at = best_threshold(gold, scores)
        if not gold.any():
            assert at == scores.min()
            continue
        assert f1(gold, scores >= at) == pytest.approx(max(f1(gold, scores >= one) for one in scores))


def test_the_threshold_lies_between_two_scores() -> None:
    assert best_threshold([1, 1, 0, 0], [0.9, 0.7, 0.3, 0.1]) == pytest.approx(0.5)
    assert best_threshold([1, 1], [0.9, 0.7]) == 0.7


@pytest.mark.parametrize(
    ("gold", "scores", "message"),
    [
        ([1, 0], [0.5], "2 gold answers but 1 predictions"),
        ([], [], "nothing to score"),
        ([1, 0], [0.5, math.nan], "score of candidate 2 is nan"),
        ([math.inf, 0], [0.5, 0.1], "relevance of candidate 1 is inf"),
    ],
)
def test_what_cannot_be_ranked_is_named(gold: list[float], scores: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ndcg(gold, scores)


def test_no_query_is_nothing_to_score() -> None:
    with pytest.raises(DataError, match="there is no query"):
        ranking_scores([])
