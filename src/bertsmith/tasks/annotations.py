"""Texts with marked spans: CoNLL columns, JSON spans, CLUENER; and tags to spans and back."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.tasks.rows import Rejects, read_json

# Single and last words of the BIOES, BILOU and BMES schemes, as IOB2 has them.
PREFIXES = {"B": "B", "I": "I", "S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}
# Characters at which BERT cuts on both sides, so that words there need no space between them.
HAN = re.compile(r"[\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")
SPAN_FIELDS = ("spans", "entities", "label", "labels")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of a text, by character offsets, `end` not included."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Annotated:
    """A text with its spans; `words` are offsets of the words that the file itself gives."""

    text: str
    spans: tuple[Span, ...]
    words: tuple[tuple[int, int], ...] | None
    where: str


def split_tag(tag: str) -> tuple[str, str]:
    """`B-LOC` into `("B", "LOC")`, in IOB2 terms; a bare `LOC` counts as inside."""
    prefix, dash, kind = tag.partition("-")
    if tag == "O":
        return "O", ""
    return (PREFIXES[prefix], kind) if dash and prefix in PREFIXES else ("I", tag)


def tags_to_spans(tags: Sequence[str], words: Sequence[tuple[int, int]]) -> tuple[list[Span], int]:
    """Spans of a tag sequence, and how many began with an inside tag (IOB1, or an illegal IOB2 sequence).

    Source: conlleval of CoNLL-2000: an inside tag after another type, or after O, begins a new entity.
    """
    spans: list[Span] = []
    repaired, open_kind = 0, ""
    for tag, (start, end) in zip(tags, words, strict=True):
        prefix, kind = split_tag(tag)
        if prefix == "I" and kind == open_kind:
            spans[-1] = Span(spans[-1].start, end, kind)
        elif prefix != "O":
            repaired += prefix == "I"
            spans.append(Span(start, end, kind))
        open_kind = kind if prefix != "O" else ""
    return spans, repaired


def spans_to_tags(spans: Sequence[Span], words: Sequence[tuple[int, int]]) -> tuple[list[str], int, int]:
    """IOB2 tags of the words.

    Returns:
        The tags; how many spans do not begin and end where words do (the words they touch are tagged); how many
        overlap a longer one and are left out.
    """
    tags = ["O"] * len(words)
    starts, ends = [start for start, _ in words], [end for _, end in words]
    inexact = overlapping = 0
    for span in sorted(spans, key=lambda span: (span.start - span.end, span)):
        touched = range(bisect_right(ends, span.start), bisect_left(starts, span.end))
        if not touched or any(tags[i] != "O" for i in touched):
            overlapping += bool(touched)
            inexact += not touched
            continue
        inexact += starts[touched[0]] != span.start or ends[touched[-1]] != span.end
        tags[touched[0]] = f"B-{span.type}"
        for i in touched[1:]:
            tags[i] = f"I-{span.type}"
    return tags, inexact, overlapping


def read_conll(path: Path, text: str, rejects: Rejects) -> Iterator[tuple[Annotated, int]]:
    """Sentences of a file with a word a line, word first and tag last, and how many tags of each had to be mended."""
    words: list[str] = []
    tags: list[str] = []
    start, width = 1, 0
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        cells = line.strip().split("\t") if "\t" in line else line.split()
        if not line.strip() or cells[0] == "-DOCSTART-":
            if words:
                yield _sentence(words, tags, f"{path}:{start}")
            words, tags = [], []
            continue
        where = f"{path}:{number}"
        width = width or len(cells)
        if len(cells) > width > 1:
            rejects.tally.add("space_inside_a_word", where)
            cells = [" ".join(cells[: len(cells) - width + 1]), *cells[len(cells) - width + 1 :]]
        if len(cells) != width or width < 2:
            expected = f"{width} columns are" if width > 1 else "a word and a tag are"
            rejects.add("wrong_columns", where, f"{len(cells)} columns where {expected} expected")
            continue
        if cells[-1] != "O" and not re.match(r"[BIESULM]-.", cells[-1]):
            rejects.add("not_a_tag", where, f"{cells[-1]!r} is not a tag such as O, B-LOC or I-LOC")
            continue
        if not words:
            start = number
        words.append(cells[0])
        tags.append(cells[-1])


def _sentence(words: Sequence[str], tags: Sequence[str], where: str) -> tuple[Annotated, int]:
    text, offsets = "", []
    for word in words:
        if text and not (HAN.match(word) or HAN.match(text[-1])):
            text += " "
        offsets.append((len(text), len(text) + len(word)))
        text += word
    spans, repaired = tags_to_spans(tags, offsets)
    return Annotated(text, tuple(spans), tuple(offsets), where), repaired


def read_spans(path: Path, text: str, rejects: Rejects) -> Iterator[Annotated]:
    """Objects with a `text` and its spans, in any of the forms that `_spans` knows."""
    for where, value in read_json(path, text, rejects):
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            fields = ", ".join(value) if isinstance(value, dict) else type(value).__name__
            rejects.add("no_text", where, f"there is no field 'text' (found: {fields})")
            continue
        name = next((name for name in SPAN_FIELDS if value.get(name) is not None), None)
        if name is None:
            message = f"there is none of the fields {', '.join(SPAN_FIELDS)} (found: {', '.join(value)})"
            rejects.add("no_spans", where, message)
            continue
        try:
            spans = [_trim(value["text"], span) for span in _spans(value[name])]
        except (TypeError, ValueError, KeyError) as error:
            rejects.add("bad_span", where, f'{name} does not hold spans such as [0, 5, "LOC"] ({error})')
            continue
        except IndexError as error:
            rejects.add("span_outside_text", where, str(error))
            continue
        yield Annotated(value["text"], tuple(sorted(spans)), None, where)


def _spans(value: Any) -> Iterator[Span]:
    """`[[start, end, type]]`, `[{"start", "end", "type"}]`, or CLUENER's `{type: {surface: [[start, last]]}}`."""
    if isinstance(value, Mapping):
        for kind, surfaces in value.items():
            for places in surfaces.values():
                for start, last in places:
                    yield Span(int(start), int(last) + 1, kind)
        return
    for item in value:
        if isinstance(item, Mapping):
            kind = item.get("type", item.get("label", item.get("entity_group")))
            yield Span(int(item["start"]), int(item["end"]), _type(kind))
        else:
            start, end, kind = item
            yield Span(int(start), int(end), _type(kind))


def _type(kind: Any) -> str:
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"{kind!r} is no type")
    return kind


def _trim(text: str, span: Span) -> Span:
    """The span without white space at its ends."""
    surface = text[span.start : span.end]
    if not 0 <= span.start < span.end <= len(text) or not surface.strip():
        raise IndexError(
            f"the span {span.start} to {span.end} lies outside the text, or is empty; it has {len(text)} characters"
        )
    start = span.start + len(surface) - len(surface.lstrip())
    return Span(start, start + len(surface.strip()), span.type)


def read_annotated(path: Path, text: str, rejects: Rejects) -> list[Annotated]:
    """Read either format, told apart by the first character; says how many tags were mended.

    Raises:
        DataError: names file and line.
    """
    if text.lstrip()[:1] in "[{":
        return list(read_spans(path, text, rejects))
    sentences = []
    for sentence, repaired in read_conll(path, text, rejects):
        sentences.append(sentence)
        for _ in range(repaired):
            rejects.tally.add("inside_tag_read_as_beginning", sentence.where)
    if not sentences:
        raise DataError(f"{path}: there is no tagged sentence in it; each line should hold a word and its tag")
    return sentences
