"""What a text is to be found among: all texts of a file, or some that are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bertsmith.tasks.base import Answer, Example
from bertsmith.tasks.pairs import draw_negatives

SAME = 6
"""Decimals to which cosines are compared."""
BLOCK = 256
"""Queries whose similarities to all candidates are held at once."""


def texts_of(example: Example) -> list[str]:
    """An example's texts: the query, what belongs to it where there is one, and what does not."""
    fields = example.fields
    return [fields["text"], *([fields["pair"]] if "pair" in fields else []), *fields.get("negatives", ())]


def against_all(
    answers: Sequence[Answer], examples: Sequence[Example]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]:
    """Relevance and scores of all texts of the file, for each different query of it.

    Args:
        answers: with `vectors`, to `examples`.
        examples: rows that go together.
    """
    candidates: dict[str, NDArray[np.float32]] = {}
    queries: dict[str, NDArray[np.float32]] = {}
    right: dict[str, set[str]] = {}
    for answer, example in zip(answers, examples, strict=True):
        query, *others = texts_of(example)
        queries.setdefault(query, answer["vectors"][0])
        right.setdefault(query, set()).add(others[0])
        for text, vector in zip(others, answer["vectors"][1:], strict=True):
            candidates.setdefault(text, vector)
    place = {text: number for number, text in enumerate(candidates)}
    matrix = np.stack(list(candidates.values()))
    names = list(queries)
    for start in range(0, len(names), BLOCK):
        block = names[start : start + BLOCK]
        for name, scores in zip(block, np.stack([queries[name] for name in block]) @ matrix.T, strict=True):
            relevance = np.zeros(len(place))
            relevance[[place[text] for text in right[name]]] = 1
            yield relevance, scores.round(SAME)  # equal vectors must tie, however a matrix product rounds them


def among_drawn(
    answers: Sequence[Answer], examples: Sequence[Example], count: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]:
    """Relevance and scores of what belongs to each query and of `count - 1` texts of other rows, always the same ones.

    Args:
        answers: with `vectors`, to `examples`.
        examples: rows that go together.
        count: candidates of each query, 2 or more; fewer where the file has not so many texts.
    """
    vectors: dict[str, NDArray[np.float32]] = {}
    for answer, example in zip(answers, examples, strict=True):
        for text, vector in zip(texts_of(example)[1:], answer["vectors"][1:], strict=True):
            vectors.setdefault(text, vector)
    bare = [Example({"text": one.fields["text"], "pair": one.fields["pair"]}, one.label, one.where) for one in examples]
    for answer, example in zip(answers, draw_negatives(bare, count - 1), strict=True):
        others = [vectors[text] for text in example.fields["negatives"]]
        scores = np.stack([answer["vectors"][1], *others]) @ answer["vectors"][0]
        relevance = np.zeros(len(scores))
        relevance[0] = 1
        yield relevance, scores.round(SAME)
