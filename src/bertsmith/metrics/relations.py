"""Scores of relations between two marked stretches of a text, as the scorer of SemEval-2010 task 8 counts them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence, Set
from typing import TypeAlias

from bertsmith.metrics.classification import Scores, check_pairs

Triple: TypeAlias = tuple[Hashable, str, Hashable]
"""First stretch, relation, second stretch."""
_DIRECTION = re.compile(r"\((?:e1,\s*e2|e2,\s*e1)\)$")


def undirected(relation: str) -> str:
    """A relation's name without `(e1,e2)` or `(e2,e1)` at its end."""
    return _DIRECTION.sub("", relation)


def triple_scores(gold: Sequence[Set[Triple]], predicted: Sequence[Set[Triple]]) -> Scores:
    """Micro-averaged scores of triples found in whole texts: both stretches, their types and the relation are right.

    Args:
        gold: of each text.
        predicted: of each text, as many.

    Raises:
        DataError: nothing to score, or lengths differ.

    Source: strict evaluation of Bekoulis et al. 2018, section 4.2 (arXiv:1804.07847); Taillé et al. 2020
    (arXiv:2009.10684) on how scores that count less compare.
    """
    check_pairs(gold, predicted)
    right = sum(len(true & found) for true, found in zip(gold, predicted, strict=True))
    return Scores.of(right, sum(map(len, predicted)), sum(map(len, gold)))


def relation_scores(
    gold: Sequence[str], predicted: Sequence[str], none: str | None = None
) -> tuple[float, float, dict[str, Scores]]:
    """Macro-F1, micro-F1, and scores of each relation.

    Both directions of a relation are scored together; one in the wrong direction is wrong, as a prediction and as a
    gold relation. `none` has no score of its own: predicting it misses a relation, and predicting a relation where
    there is none is wrong. Predicting one that gold never has is like predicting none.

    Args:
        gold: right relations.
        predicted: given ones, as many.
        none: the name of no relation, such as Other; None: each label is a relation.

    Raises:
        DataError: nothing to score, or lengths differ.

    Source: Hendrickx et al. 2010, section 4 (https://aclanthology.org/S10-1006): the (9+1)-way evaluation with
    directionality taken into account; the macro average is over the relations that gold has.
    """
    check_pairs(gold, predicted)
    wanted = Counter(undirected(label) for label in gold if label != none)
    offered = Counter(undirected(label) for label in predicted if label != none)
    right = Counter(undirected(a) for a, b in zip(gold, predicted, strict=True) if a == b != none)
    each = {name: Scores.of(right[name], offered[name], wanted[name]) for name in sorted(wanted)}
    macro = sum(scores.f1 for scores in each.values()) / len(each) if each else 0.0
    micro = Scores.of(right.total(), sum(offered[name] for name in wanted), wanted.total()).f1
    return macro, micro, each
