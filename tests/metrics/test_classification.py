from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from bertsmith.core.errors import DataError
from bertsmith.metrics.classification import (
    accuracy,
    confusion_matrix,
    label_set_scores,
    macro_f1,
    matthews,
    precision_recall_f1,
    subset_accuracy,
)

CLASSES = ["bad", "good", "neutral", "未知"]
rows = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=60)


@settings(deadline=None)
@given(rows)
def test_every_score_equals_scikit_learn(rows: list[tuple[str, str]]) -> None:
    gold, predicted = map(list, zip(*rows, strict=True))
    assert accuracy(gold, predicted) == pytest.approx(reference.accuracy_score(gold, predicted))
    assert macro_f1(gold, predicted) == pytest.approx(
        reference.f1_score(gold, predicted, average="macro", zero_division=0)
    )
    if len({*gold, *predicted}) > 1:  # scikit-learn warns about a matrix of one class
        assert matthews(gold, predicted) == pytest.approx(reference.matthews_corrcoef(gold, predicted))
        assert (confusion_matrix(gold, predicted) == reference.confusion_matrix(gold, predicted)).all()
    expected = reference.precision_recall_fscore_support(gold, predicted, labels=CLASSES, zero_division=0)
    ours = precision_recall_f1(gold, predicted, CLASSES)
    assert np.array([tuple(ours[label]) for label in CLASSES]) == pytest.approx(np.array(expected).T)


def test_integers_in_arrays_score_like_lists() -> None:
    gold, predicted = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])
    assert accuracy(gold, predicted) == 0.5
    assert list(precision_recall_f1(gold, predicted)) == [0, 1, 2]
    assert confusion_matrix(gold, predicted).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]


def test_confusion_matrix_follows_the_order_of_labels() -> None:
    assert confusion_matrix(["b", "b", "a"], ["b", "a", "a"], ["b", "a", "c"]).tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_a_class_that_only_the_schema_knows_lowers_macro_f1() -> None:
    assert macro_f1(["a", "b"], ["a", "b"], ["a", "b", "c", "d"]) == 0.5


def test_matthews_of_one_class_is_zero() -> None:
    assert matthews(["a", "a"], ["a", "a"]) == 0.0
    assert matthews(["a", "b"], ["a", "a"]) == 0.0


def test_matthews_of_many_rows_does_not_overflow() -> None:
    gold = np.tile([0, 1], 200_000)
    assert matthews(gold, gold) == pytest.approx(1.0)


@pytest.mark.parametrize("score", [accuracy, confusion_matrix, macro_f1, matthews, precision_recall_f1])
def test_unequal_or_empty_input_is_refused(score: object) -> None:
    with pytest.raises(DataError, match="2 gold answers but 1 predictions"):
        score(["a", "b"], ["a"])  # type: ignore[operator]
    with pytest.raises(DataError, match="nothing to score"):
        score([], [])  # type: ignore[operator]


def test_scores_of_label_sets_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        rows, classes = rng.integers(1, 12), rng.integers(2, 6)
        gold = rng.random((rows, classes)) < rng.choice([0.0, 0.2, 0.5, 1.0])
        predicted = np.where(rng.random(gold.shape) < 0.5, gold, rng.random(gold.shape) < rng.choice([0.0, 0.3, 1.0]))
        micro, macro, each = label_set_scores(gold, predicted)
        assert micro == pytest.approx(reference.f1_score(gold, predicted, average="micro", zero_division=0))
        assert macro == pytest.approx(reference.f1_score(gold, predicted, average="macro", zero_division=0))
        assert subset_accuracy(gold, predicted) == pytest.approx(reference.accuracy_score(gold, predicted))
        expected = reference.precision_recall_fscore_support(gold, predicted, zero_division=0)
        assert np.array(each) == pytest.approx(np.array(expected).T)
