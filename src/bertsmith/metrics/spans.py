"""Scores of entities written as IOB2 tags: `B-PER I-PER O`.

An entity counts as found only when its type, its start and its end are all right (Tjong Kim Sang & De Meulder 2003).
`strict` reads tags to the letter: an entity starts with B. `conlleval` is lenient, like the CoNLL-2003 script and
seqeval's default: an I after O or after another type starts an entity too. Published CoNLL-2003 figures are lenient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, TypeAlias

from bertsmith.core.errors import DataError
from bertsmith.metrics.classification import Scores, check_pairs

Entity: TypeAlias = tuple[str, int, int]
"""Type, first tag, one past the last tag."""
Mode: TypeAlias = Literal["strict", "conlleval"]
Sentences: TypeAlias = Sequence[Sequence[str]]


def entities(tags: Sequence[str], mode: Mode = "strict") -> set[Entity]:
    """Read the entities out of one sentence's tags.

    Args:
        tags: `O`, `B-type` or `I-type`; a bare `B` or `I` has the type `_`.
        mode: what an I-tag without its B-tag means: nothing (`strict`) or the start of an entity (`conlleval`).

    Raises:
        DataError: a tag is none of these; names it and its place.
    """
    found: set[Entity] = set()
    kind, start = "", -1  # of the open entity; start < 0: none is open
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if prefix not in ("B", "I", "O") or (prefix == "O" and name):
            raise DataError(f"tag {tag!r} at position {place + 1} is not O, B-type or I-type; convert the tags to IOB2")
        name = name or "_"
        if start >= 0 and prefix == "I" and name == kind:
            continue
        if start >= 0:
            found.add((kind, start, place))
        opens = prefix == "B" or (prefix == "I" and mode == "conlleval")
        kind, start = (name, place) if opens else ("", -1)
    return found


def entity_scores(gold: Sentences, predicted: Sentences, mode: Mode = "strict") -> tuple[Scores, dict[str, Scores]]:
    """Micro-averaged scores of all entities, and the scores of each type, sorted by name.

    Raises:
        DataError: numbers of sentences or tags differ (names the sentence), nothing to score, or an invalid tag.
    """
    check_pairs(gold, predicted)
    correct: Counter[str] = Counter()
    offered: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    for number, (true_tags, tags) in enumerate(zip(gold, predicted, strict=True), start=1):
        if len(true_tags) != len(tags):
            raise DataError(
                f"sentence {number}: {len(true_tags)} gold tags but {len(tags)} predicted; give one for each"
            )
        true, guess = entities(true_tags, mode), entities(tags, mode)
        correct.update(entity[0] for entity in true & guess)
        offered.update(entity[0] for entity in guess)
        wanted.update(entity[0] for entity in true)
    by_type = {kind: Scores.of(correct[kind], offered[kind], wanted[kind]) for kind in sorted({*offered, *wanted})}
    return Scores.of(correct.total(), offered.total(), wanted.total()), by_type


def strict_f1(gold: Sentences, predicted: Sentences) -> float:
    """Micro-averaged F1 of entities read strictly; seqeval's `mode="strict", scheme=IOB2`. 0 when nothing is right."""
    return entity_scores(gold, predicted, "strict")[0].f1


def conlleval_f1(gold: Sentences, predicted: Sentences) -> float:
    """Micro-averaged F1 of entities read leniently; seqeval's default and conlleval's. 0 when nothing is right."""
    return entity_scores(gold, predicted, "conlleval")[0].f1
