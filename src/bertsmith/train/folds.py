"""Which rows are held out in turn, and which few are learned from: groups stay whole, and classes keep their shares."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from bertsmith.core.errors import ConfigError
from bertsmith.tasks.base import Example
from bertsmith.tasks.doctor import classes, key_of
from bertsmith.tasks.windows import counter_rng

SHOTS = 4
"""Marks the random numbers by which few rows are drawn."""


def groups_of(examples: Sequence[Example], order: Sequence[int]) -> list[list[int]]:
    """Numbers of the examples that must not be torn apart: those of one article, or with the same text.

    Args:
        examples: the rows.
        order: of all numbers; groups stand where their first one does.
    """
    groups: dict[Any, list[int]] = {}
    for number in order:
        groups.setdefault(examples[number].fields.get("article", key_of(examples[number])), []).append(number)
    return list(groups.values())


def kinds_of(examples: Sequence[Example]) -> list[list[str]]:
    """What each example counts for when shares are kept: its classes, or the tenth in which its number lies."""
    numbers = [example.label for example in examples]
    if not all(isinstance(number, float) for number in numbers):
        return [classes(example) for example in examples]
    borders = np.quantile(numbers, np.linspace(0, 1, 11)[1:-1])
    return [[str(tenth)] for tenth in np.searchsorted(borders, numbers).tolist()]


def folds(examples: Sequence[Example], count: int) -> list[list[int]]:
    """Deal the examples into folds of about one size in which classes have their shares; whole groups only.

    The largest groups go first, then those whose rarest class is the rarest; each goes to the fold that lacks most of
    that class, or else most rows. The same examples are always dealt alike.

    Args:
        examples: the rows.
        count: of folds.

    Returns:
        The numbers of each fold's examples, ascending.

    Raises:
        ConfigError: there are too few groups, so that a fold stays empty.

    Source: Sechidis et al. 2011, iterative stratification. Differs: a group goes as a whole.
    """
    order = counter_rng(len(examples)).permutation(len(examples)).tolist()
    groups, kinds = groups_of(examples, order), kinds_of(examples)
    total = Counter(kind for mine in kinds for kind in mine)
    lacking = [{kind: number / count for kind, number in total.items()} for _ in range(count)]
    room = [len(examples) / count] * count
    found: list[list[int]] = [[] for _ in range(count)]
    dealt = []
    for group in groups:
        held = Counter(kind for number in group for kind in kinds[number])
        rarest = min(held, key=lambda kind: (total[kind], kind)) if held else None
        dealt.append((group, held, rarest))
    dealt.sort(key=lambda one: (-len(one[0]), total[one[2]] if one[2] is not None else len(examples)))
    for group, held, rarest in dealt:
        wanted = [lacking[i][rarest] if rarest is not None else 0.0 for i in range(count)]
        # Rounded, so that what many subtractions leave behind decides nothing.
        best = max(range(count), key=lambda i: (round(wanted[i], 6), round(room[i], 6), -i))
        found[best] += group
        room[best] -= len(group)
        for kind, number in held.items():
            lacking[best][kind] -= number
    if not all(found):
        what = "articles" if any("article" in example.fields for example in examples) else "different texts"
        raise ConfigError(f"{len(groups)} {what} cannot be dealt into {count} folds; choose fewer with --folds")
    return [sorted(fold) for fold in found]


def few(examples: Sequence[Example], shots: int, seed: int) -> tuple[list[int], dict[str, int]]:
    """Draw so many examples of each class, or all where there are fewer.

    Where an example may hold several classes, those of the rarest class are drawn first, and each counts for all that
    it holds, so that frequent classes may have more.

    Args:
        examples: the rows.
        shots: examples of each class.
        seed: of the draw.

    Returns:
        The numbers of the examples drawn, ascending; and how many there are of each class that has fewer than `shots`.

    Raises:
        ConfigError: the rows have no classes.
    """
    kinds = kinds_of(examples)
    total = Counter(kind for mine in kinds for kind in set(mine))
    if not total:
        raise ConfigError("these rows have no classes of which to draw so many each; use train.rows instead of --shots")
    members: dict[str, list[int]] = defaultdict(list)
    for number in counter_rng(seed, SHOTS).permutation(len(examples)).tolist():
        for kind in set(kinds[number]):
            members[kind].append(number)
    drawn: set[int] = set()
    have: Counter[str] = Counter()
    for kind in sorted(total, key=lambda kind: (total[kind], kind)):
        for number in members[kind]:
            if have[kind] >= shots:
                break
            if number not in drawn:
                drawn.add(number)
                have.update(set(kinds[number]))
    return sorted(drawn), {kind: number for kind, number in total.items() if number < shots}
