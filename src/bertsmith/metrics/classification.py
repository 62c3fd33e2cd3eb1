"""Scores of predicted classes. Gold first, as in scikit-learn, to whose results every function here is equal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import DataError

Labels: TypeAlias = Sequence[str] | Sequence[int] | NDArray[Any]


class Scores(NamedTuple):
    """How well one class, or one type of entity, was found.

    Attributes:
        precision: share of the predictions that are right; 0 when there are none.
        recall: share of the gold that was predicted; 0 when there is none.
        f1: harmonic mean of both; 0 when both are 0.
        support: how many gold items there are.
    """

    precision: float
    recall: float
    f1: float
    support: int

    @classmethod
    def of(cls, correct: int, predicted: int, gold: int) -> Scores:
        """Compute from counts of right predictions, of all predictions and of gold items."""
        return cls(
            correct / predicted if predicted else 0.0,
            correct / gold if gold else 0.0,
            2 * correct / (predicted + gold) if correct else 0.0,
            gold,
        )


def check_pairs(gold: Sequence[Any] | NDArray[Any], predicted: Sequence[Any] | NDArray[Any]) -> None:
    """Raise DataError unless both have the same length and hold anything at all."""
    if len(gold) != len(predicted):
        raise DataError(
            f"{len(gold)} gold answers but {len(predicted)} predictions; give one prediction for each gold answer"
        )
    if not len(gold):
        raise DataError("nothing to score: there are no gold answers; check that the file has labelled rows")


def accuracy(gold: Labels, predicted: Labels) -> float:
    """Share of rows whose predicted class is the gold one, 0 to 1."""
    check_pairs(gold, predicted)
    return float(np.mean(np.asarray(gold) == np.asarray(predicted)))


def confusion_matrix(gold: Labels, predicted: Labels, labels: Labels | None = None) -> NDArray[np.int64]:
    """Count rows by gold and predicted class.

    Args:
        gold: true classes.
        predicted: predicted classes.
        labels: the classes in the wanted order, C of them; None takes those that occur, sorted. Rows with a gold or
            predicted class outside `labels` are not counted.

    Returns:
        Counts `[C, C]`; a row for each gold class, a column for each predicted one.
    """
    check_pairs(gold, predicted)
    index = {
        label: number for number, label in enumerate(occurring(gold, predicted) if labels is None else _plain(labels))
    }
    matrix = np.zeros((len(index), len(index)), dtype=np.int64)
    if not index:
        return matrix
    rows = np.array([index.get(label, -1) for label in _plain(gold)])
    columns = np.array([index.get(label, -1) for label in _plain(predicted)])
    known = (rows >= 0) & (columns >= 0)
    np.add.at(matrix, (rows[known], columns[known]), 1)
    return matrix


def occurring(gold: Labels, predicted: Labels) -> list[Any]:
    """The classes that occur in either, sorted: the default order of `confusion_matrix`."""
    return sorted({*_plain(gold), *_plain(predicted)})


def precision_recall_f1(gold: Labels, predicted: Labels, labels: Labels | None = None) -> dict[Any, Scores]:
    """Scores of each class.

    Args:
        gold: true classes.
        predicted: predicted classes.
        labels: which classes to score, and in what order; None takes those that occur, sorted.
    """
    check_pairs(gold, predicted)
    right, offered, wanted = _counts(gold, predicted)
    scored = occurring(gold, predicted) if labels is None else _plain(labels)
    return {label: Scores.of(right[label], offered[label], wanted[label]) for label in scored}


def macro_f1(gold: Labels, predicted: Labels, labels: Labels | None = None) -> float:
    """Mean F1 of the classes, each weighing the same; a class that occurs only in `labels` counts as 0."""
    return float(np.mean([scores.f1 for scores in precision_recall_f1(gold, predicted, labels).values()]))


def label_set_scores(gold: NDArray[Any], predicted: NDArray[Any]) -> tuple[float, float, list[Scores]]:
    """Scores where a row may have several classes, or none.

    Args:
        gold: which classes each row has, `[N, C]` bool.
        predicted: which it was given, `[N, C]` bool.

    Returns:
        Micro-F1 over all rows and classes, macro-F1 over all classes, and the scores of each class.
    """
    check_pairs(gold, predicted)
    right, offered, wanted = (
        np.sum(cells, axis=0).astype(int).tolist() for cells in (gold & predicted, predicted, gold)
    )
    each = [Scores.of(*counts) for counts in zip(right, offered, wanted, strict=True)]
    micro = Scores.of(sum(right), sum(offered), sum(wanted)).f1
    return micro, float(np.mean([scores.f1 for scores in each])) if each else 0.0, each


def subset_accuracy(gold: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Share of rows whose classes are all right, and none too many.

    Args:
        gold: `[N, C]` bool.
        predicted: `[N, C]` bool.
    """
    check_pairs(gold, predicted)
    return float(np.mean((gold == predicted).all(axis=1)))


def matthews(gold: Labels, predicted: Labels) -> float:
    """Matthews' correlation of gold and predicted classes, -1 to 1.

    It is 0, by the convention of GLUE and scikit-learn, when either side knows one class only.

    Source: Matthews 1975; for more than two classes Gorodkin 2004 (R_K).
    """
    check_pairs(gold, predicted)
    right, offered, wanted = _counts(gold, predicted)
    known = [*(offered | wanted)]
    predicted_counts, gold_counts = (np.array([float(side[one]) for one in known]) for side in (offered, wanted))
    total = float(len(gold))
    covariance = right.total() * total - gold_counts @ predicted_counts
    spread = math.sqrt(total**2 - gold_counts @ gold_counts) * math.sqrt(total**2 - predicted_counts @ predicted_counts)
    return float(covariance / spread) if spread else 0.0


def _counts(gold: Labels, predicted: Labels) -> tuple[Counter[Any], Counter[Any], Counter[Any]]:
    """Of each class how often it was given and right, given, and gold; no table of all pairs, which may be millions."""
    pairs = list(zip(_plain(gold), _plain(predicted), strict=True))
    right = Counter(wanted for wanted, given in pairs if wanted == given)
    return right, Counter(given for _, given in pairs), Counter(wanted for wanted, _ in pairs)


def _plain(labels: Labels) -> list[Any]:
    return labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
