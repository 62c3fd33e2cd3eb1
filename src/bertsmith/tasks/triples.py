"""Whole texts with spans and relations, taken apart into pairs of spans that one can be asked about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from bertsmith.corpus.document import Tally
from bertsmith.tasks.annotations import Annotated, Span
from bertsmith.tasks.base import Example
from bertsmith.tasks.brat import is_brat
from bertsmith.tasks.rows import read_text
from bertsmith.tasks.values import Rejects, is_json, read_json

Types = Collection[tuple[str, str]]


def has_relations(path: Path, tally: Tally) -> bool:
    """Whether a file holds whole texts: BRAT's, or objects with a list `relations`, as doccano writes them.

    Args:
        path: a file or folder.
        tally: counts what is mended on reading.
    """
    if is_brat(path):
        return True
    text = read_text(path, tally)
    if not is_json(path, text):
        return False
    first: Any = next((value for _, value in read_json(path, text, Rejects(Tally(), skip=True))), None)
    return isinstance(first, dict) and isinstance(first.get("relations"), list)


def related_types(documents: Sequence[Annotated]) -> set[tuple[str, str]]:
    """The pairs of types that have a relation somewhere in `documents`."""
    return {(a.type, b.type) for document in documents for a, b, _ in document.relations or ()}


def candidates(spans: Sequence[Span], types: Types, reach: int, *, both_ways: bool = True) -> list[tuple[Span, Span]]:
    """Pairs of spans that could be related.

    Args:
        spans: of one text.
        types: of the first and the second; with only `("", "")` types are not asked about, and not told.
        reach: characters between the two at most.
        both_ways: each span may be the first; else the one that begins first is, since the relation tells the way.
    """
    untyped = set(types) == {("", "")}
    spans = sorted({Span(span.start, span.end, "") for span in spans} if untyped else set(spans))
    return [
        (a, b)
        for number, a in enumerate(spans)
        for other, b in enumerate(spans)
        if number != other
        and (both_ways or number < other)
        and (not types or (a.type, b.type) in types)
        and max(a.start, b.start) - min(a.end, b.end) <= reach
    ]


def document_examples(document: Annotated, types: Types, reach: int, none: str, tally: Tally) -> Iterator[Example]:
    """An example for each pair of spans that has a relation, or could have one.

    Args:
        document: a whole text.
        types: pairs of types that could be related.
        reach: characters between two spans at most that are not said to be related.
        none: the label of those.
        tally: counts pairs with a second relation, which is left out.
    """
    labels: dict[tuple[Span, Span], str] = {}
    for first, second, kind in document.relations or ():
        if labels.setdefault((first, second), kind) != kind:
            tally.add("second_relation_of_a_pair", document.where)
    for pair in dict.fromkeys([*labels, *candidates(document.spans, types, reach)]):
        fields = {"text": document.text, "first": pair[0], "second": pair[1], "article": document.where}
        yield Example(fields, labels.get(pair, none), document.where)
