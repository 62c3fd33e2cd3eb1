"""Scores of relations, against a second reading of SemEval-2010 task 8's scorer."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from sklearn.metrics import f1_score

from bertsmith.core.errors import DataError
from bertsmith.metrics.relations import relation_scores, undirected

RELATIONS = ["Cause-Effect", "Component-Whole", "Entity-Origin"]
LABELS = [f"{name}({way})" for name in RELATIONS for way in ("e1,e2", "e2,e1")] + ["Other"]


def reading(gold: list[str], predicted: list[str]) -> tuple[float, float]:
    """The script's way: a confusion matrix of undirected relations with a column for the wrong direction."""
    matrix: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for right, guess in zip(gold, predicted, strict=True):
        row, column = right.split("(")[0], guess.split("(")[0]
        matrix[row]["wrong way" if row == column and right != guess else column] += 1
    f1, totals = [], [0, 0, 0]
    for name in matrix:
        if name == "Other":
            continue
        offered = sum(row[name] for row in matrix.values()) + matrix[name]["wrong way"]
        counts = [matrix[name][name], offered, sum(matrix[name].values())]
        precision, recall = counts[0] / max(1, offered), counts[0] / counts[2]
        f1.append(2 * precision * recall / (precision + recall) if counts[0] else 0.0)
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
    precision, recall = totals[0] / max(1, totals[1]), totals[0] / max(1, totals[2])
    micro = 2 * precision * recall / (precision + recall) if totals[0] else 0.0
    return sum(f1) / len(f1) if f1 else 0.0, micro


def test_scores_equal_a_second_reading_of_the_script() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        size = rng.randint(1, 30)
        gold = [rng.choice(LABELS[: rng.randint(1, 7)]) for _ in range(size)]
        predicted = [label if rng.random() < 0.5 else rng.choice(LABELS) for label in gold]
        macro, micro, each = relation_scores(gold, predicted, "Other")
        assert (macro, micro) == pytest.approx(reading(gold, predicted)), (gold, predicted)
        assert each.keys() == {undirected(label) for label in gold} - {"Other"}


def test_a_wrong_direction_is_wrong_twice() -> None:
    gold = ["Cause-Effect(e1,e2)", "Cause-Effect(e1,e2)", "Other"]
    macro, _, each = relation_scores(
        gold, ["Cause-Effect(e2,e1)", "Cause-Effect(e1,e2)", "Cause-Effect(e1,e2)"], "Other"
    )
    assert each["Cause-Effect"] == pytest.approx((1 / 3, 1 / 2, 0.4, 2))
    assert macro == pytest.approx(0.4)


def test_without_directions_and_none_it_is_scikit_learns() -> None:
    rng = random.Random(1)
    gold = [rng.choice("abcd") for _ in range(200)]
    predicted = [rng.choice("abcd") for _ in range(200)]
    macro, micro, _ = relation_scores(gold, predicted)
    assert macro == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert micro == pytest.approx(f1_score(gold, predicted, average="micro"))
    _, micro, _ = relation_scores(gold, predicted, "a")  # as TACRED counts
    assert micro == pytest.approx(f1_score(gold, predicted, average="micro", labels=list("bcd")))


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(DataError):
        relation_scores([], [])
