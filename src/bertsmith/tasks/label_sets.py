"""Labels that are sets, and labels that are paths: `sport; politics`, `animal/bird/owl`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bertsmith.metrics import classification as metrics
from bertsmith.metrics.ranking import best_threshold
from bertsmith.tasks.base import Example
from bertsmith.tasks.rows import LISTED, is_number
from bertsmith.tasks.values import Rejects

Sets = Sequence[Collection[str]]
DEFAULT = 0.5


def split_labels(cell: str, separator: str | None) -> list[str]:
    """The labels that a cell holds, without white space around them; an empty one stays, for the caller to refuse.

    Args:
        cell: one label, several with `separator` between them, or a list of JSON as `read_table` joins it.
        separator: such as `;`.
    """
    if cell.endswith(LISTED):
        parts = cell.split(LISTED)[:-1]
        return [] if cell == LISTED else [part.strip() for part in parts]
    return [part.strip() for part in cell.split(separator)] if separator else [cell]


def without_missing(examples: Sequence[Example], rejects: Rejects) -> list[Example]:
    """Examples but those labelled `nan` where all labels are numbers: pandas writes it for what is missing.

    Args:
        examples: with a label each.
        rejects: takes those.
    """
    missing = [example for example in examples if example.label.lower() == "nan"]
    if not missing or not all(is_number(example.label) for example in examples):
        return list(examples)
    for example in missing:
        message = f"label {example.label!r} is not a finite number; pandas writes it where a label is missing"
        rejects.add("label_not_a_number", example.where, message)
    return [example for example in examples if example.label.lower() != "nan"]


@lru_cache(maxsize=4)
def numbers(labels: tuple[str, ...]) -> Mapping[str, int]:
    """The place of each label."""
    return {label: number for number, label in enumerate(labels)}


def likely(chances: NDArray[np.float64], labels: Sequence[str]) -> dict[str, float]:
    """The probability of each label; of more than 1,000 the 100 highest, or answers to many rows would fill the memory.

    Args:
        chances: `[C]`.
        labels: C of them.
    """
    if len(labels) <= 1000:
        return dict(zip(labels, chances.tolist(), strict=True))
    best = np.argpartition(-chances, 100)[:100]
    return {labels[place]: float(chances[place]) for place in best[np.argsort(-chances[best], kind="stable")].tolist()}


def positive_of(labels: Sequence[str]) -> str | None:
    """Which of two labels says yes, where their names tell: `match` of `match` and `no match`, `相似` of `不相似`.

    Args:
        labels: of a classifier.
    """
    if len(labels) != 2:
        return None
    for yes, no in (labels, labels[::-1]):
        plain, denied = ("".join(filter(str.isalnum, label.casefold())) for label in (yes, no))
        if (denied in _NO and plain == _NO[denied]) or _DENIAL.sub("", denied) == plain != denied:
            return yes
    return None


_NO = {
    "no": "yes",
    "n": "y",
    "false": "true",
    "f": "t",
    "0": "1",
    "negative": "positive",
    "neg": "pos",
    "contradiction": "entailment",
    "否": "是",
    "错": "对",
    "假": "真",
    "different": "same",
}
_DENIAL = re.compile(r"^(?:not|non|no|un|in|im|ir|dis|不|非|无|未)")


def shown(labels: Sequence[str], most: int = 12) -> str:
    """The first `most` of the labels, for a message, and how many more there are."""
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")


def ancestors(label: str, levels: str | None) -> list[str]:
    """A path's beginnings, itself last: `a/b/c` gives `a`, `a/b`, `a/b/c`; without `levels` the label alone.

    Args:
        label: a path.
        levels: what stands between its levels.
    """
    if not levels:
        return [label]
    parts = label.split(levels)
    return [levels.join(parts[: depth + 1]) for depth in range(len(parts))]


def closed(labels: Collection[str], known: Sequence[str], levels: str | None) -> tuple[str, ...]:
    """The labels with those of `known` that they imply: who is an `animal/bird` is an `animal`.

    Args:
        labels: paths, or plain labels.
        known: all labels, in order.
        levels: what stands between levels.
    """
    implied = {name for label in labels for name in ancestors(label, levels)} | set(labels)
    return tuple(label for label in known if label in implied)


def descend(chances: Mapping[str, float], levels: str) -> list[tuple[str, float]]:
    """The way down from the most probable first level, at each the most probable of what lies below.

    A node's probability is the sum over all labels that begin with it, so the levels never contradict each other.

    Args:
        chances: of each whole label; they sum to 1.
        levels: what stands between levels.

    Returns:
        Nodes with their probabilities; the last one is a label.
    """
    path: list[tuple[str, float]] = []
    inside = {label: ancestors(label, levels) for label in chances}
    while True:
        depth = len(path)
        total: Counter[str] = Counter()
        for label, nodes in inside.items():
            total[nodes[min(depth, len(nodes) - 1)]] += chances[label]  # type: ignore[assignment]
        node, chance = max(total.items(), key=lambda item: item[1])
        if path and node == path[-1][0]:
            return path
        path.append((node, float(chance)))
        inside = {label: nodes for label, nodes in inside.items() if node in nodes}
        if list(inside) == [node]:
            return path


def chosen(chances: NDArray[np.float64], labels: Sequence[str], thresholds: Sequence[float]) -> list[str]:
    """The labels whose probability reaches their threshold.

    Args:
        chances: `[C]`.
        labels: C of them.
        thresholds: one a label; empty: one half each.
    """
    return [
        label
        for label, chance, least in zip(labels, chances, thresholds or [DEFAULT] * len(labels), strict=True)
        if chance >= least
    ]


def tuned(gold: NDArray[np.bool_], chances: NDArray[np.float64]) -> tuple[float, ...]:
    """For each label the threshold with which its F1 is best; one half for a label that gold never has.

    Args:
        gold: `[N, C]`.
        chances: `[N, C]`.
    """
    return tuple(
        best_threshold(gold[:, i].astype(np.int64), chances[:, i]) if gold[:, i].any() else DEFAULT
        for i in range(gold.shape[1])
    )


def members(sets: Sets, labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which label is in which set.

    Args:
        sets: N of them.
        labels: C of them.

    Returns:
        `[N, C]`.
    """
    return np.array([[label in one for label in labels] for one in sets], dtype=np.bool_).reshape(
        len(sets), len(labels)
    )


def level_scores(gold: Sets, predicted: Sets, levels: str | None, *, single: bool) -> dict[str, float]:
    """Scores at each level of paths that are cut there; a path that ends above counts as it is.

    Args:
        gold: the right labels of each text.
        predicted: those given.
        levels: what stands between levels; None: there are none.
        single: each text has one label: accuracy and macro-F1 (else micro- and macro-F1).
    """
    if not levels:
        return {}
    deepest = max(len(ancestors(label, levels)) for one in gold for label in one or ("",))
    scores: dict[str, float] = {}
    for depth in range(deepest):
        cut = [
            [{(way := ancestors(label, levels))[min(depth, len(way) - 1)] for label in one} for one in side]
            for side in (gold, predicted)
        ]
        if single:
            sides = [[next(iter(one)) for one in side] for side in cut]
            found = {"accuracy": metrics.accuracy(*sides), "macro_f1": metrics.macro_f1(*sides)}
        else:
            names = sorted({label for side in cut for one in side for label in one})
            micro, macro, _ = metrics.label_set_scores(members(cut[0], names), members(cut[1], names))
            found = {"micro_f1": micro, "macro_f1": macro}
        scores |= {f"{name}/level {depth + 1}": value for name, value in found.items()}
    return scores
