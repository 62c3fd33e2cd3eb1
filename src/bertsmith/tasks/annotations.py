"""Texts with marked spans: CoNLL columns, JSON spans, doccano, CLUENER; and tags to spans and back."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.values import Rejects, is_json, read_json

# Single and last words of the BIOES, BILOU and BMES schemes, as IOB2 has them.
PREFIXES = {"B": "B", "I": "I", "S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}
# Characters at which BERT cuts on both sides, so that words there need no space between them.
HAN = re.compile(r"[\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")
TEXT_FIELDS = ("text", "data", "sentence")
SPAN_FIELDS = ("spans", "entities", "label", "labels")
WORD_FIELDS, TAG_FIELDS = ("tokens", "words"), ("ner_tags", "tags", "labels", "label")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of a text, by character offsets, `end` not included."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Annotated:
    """A text with its spans.

    Attributes:
        text: as the file has it.
        spans: sorted.
        words: offsets of the words that the file itself gives.
        where: file and line.
        relations: which spans are related, first and second, and how; None where the file's form has no relations.
    """

    text: str
    spans: tuple[Span, ...]
    words: tuple[tuple[int, int], ...] | None
    where: str
    relations: tuple[tuple[Span, Span, str], ...] | None = None


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


def touched_words(span: Span, words: Sequence[tuple[int, int]]) -> range:
    """Indices of the words that a span has characters of.

    Args:
        span: of the text.
        words: offsets, ascending.
    """
    return range(bisect_right(words, span.start, key=lambda word: word[1]), bisect_left(words, (span.end,)))


def spans_to_tags(spans: Sequence[Span], words: Sequence[tuple[int, int]]) -> tuple[list[str], int, int]:
    """IOB2 tags of the words.

    Returns:
        The tags; how many spans do not begin and end where words do (the words they touch are tagged); how many
        overlap a longer one and are left out.
    """
    tags = ["O"] * len(words)
    inexact = overlapping = 0
    for span in sorted(spans, key=lambda span: (span.start - span.end, span)):
        touched = touched_words(span, words)
        if not touched or any(tags[i] != "O" for i in touched):
            overlapping += bool(touched)
            inexact += not touched
            continue
        inexact += (words[touched[0]][0], words[touched[-1]][1]) != (span.start, span.end)
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
    """Objects with a `text` (or `data`) and its spans, in any of the forms that `_spans` knows; or with words and tags.

    Args:
        path: names the file.
        text: its content.
        rejects: takes rows that cannot be used.
    """
    for where, value in read_json(path, text, rejects):
        row = value if isinstance(value, dict) else {}
        if (words := next((row[name] for name in WORD_FIELDS if isinstance(row.get(name), list)), None)) is not None:
            yield from _tagged(words, row, where, rejects)
            continue
        content = next((row[name] for name in TEXT_FIELDS if isinstance(row.get(name), str)), None)
        if content is None:
            fields = ", ".join(row) if isinstance(value, dict) else type(value).__name__
            rejects.add("no_text", where, f"there is no field 'text' (found: {fields})")
            continue
        name = next((name for name in SPAN_FIELDS if row.get(name) is not None), None)
        if name is None:
            message = f"there is none of the fields {', '.join(SPAN_FIELDS)} (found: {', '.join(row)})"
            rejects.add("no_spans", where, message)
            continue
        try:
            found = [
                (key, placed(content, start, end, kind, surface, rejects.tally, where))
                for key, start, end, kind, surface in _spans(row[name])
            ]
            known = {key: span for key, span in found if key is not None}
            related = [
                (known[item["from_id"]], known[item["to_id"]], _type(item["type"]))
                for item in row.get("relations") or ()
            ]
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            rejects.add("bad_span", where, f'{name} does not hold spans such as [0, 5, "LOC"] ({error})')
            continue
        except IndexError as error:
            rejects.add("span_outside_text", where, str(error))
            continue
        spans = tuple(sorted({span for _, span in found}))
        yield Annotated(content, spans, None, where, tuple(related) if "relations" in row else None)


def _tagged(words: Sequence[Any], row: Mapping[str, Any], where: str, rejects: Rejects) -> Iterator[Annotated]:
    """A list of words with a list of tags, as data sets of the hub have them."""
    tags: list[Any] = next((row[name] for name in TAG_FIELDS if isinstance(row.get(name), list)), [])
    if len(tags) != len(words) or not all(isinstance(word, str) and word.strip() for word in words):
        rejects.add(
            "wrong_columns", where, f"{len(words)} words, none of them empty, need as many tags, not {len(tags)}"
        )
        return
    wrong = next((tag for tag in tags if tag != "O" and not re.match(r"[BIESULM]-.", str(tag))), None)
    if wrong is not None:
        numbers = "; numbers need the names that stand in the features of Parquet or a data set"
        hint = numbers if isinstance(wrong, int) else ""
        rejects.add("not_a_tag", where, f"{wrong!r} is not a tag such as O, B-LOC or I-LOC{hint}")
        return
    sentence, repaired = _sentence(words, tags, where)
    for _ in range(repaired):
        rejects.tally.add("inside_tag_read_as_beginning", where)
    yield sentence


def _spans(value: Any) -> Iterator[tuple[Any, int, int, str, str | None]]:
    """Identifier, start, end, type and surface of each span; the first and the last may be unknown.

    `[[start, end, type]]`, `[{"start", "end", "type"}]`, doccano's `[{"id", "start_offset", "end_offset", "label"}]`,
    `{type: [[start, end]]}`, or CLUENER's `{type: {surface: [[start, last]]}}`.
    """
    if isinstance(value, Mapping):
        for kind, surfaces in value.items():
            if isinstance(surfaces, list):
                for start, end in surfaces:
                    yield None, int(start), int(end), kind, None
                continue
            for surface, places in surfaces.items():
                for start, last in places:
                    yield None, int(start), int(last) + 1, kind, surface
        return
    for item in value:
        if isinstance(item, Mapping):
            kind = item.get("type", item.get("label", item.get("entity_group")))
            start, end = (item.get(name, item.get(f"{name}_offset")) for name in ("start", "end"))
            yield item.get("id"), int(start), int(end), _type(kind), item.get("text")
        else:
            start, end, kind = item
            yield None, int(start), int(end), _type(kind), None


def _type(kind: Any) -> str:
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"{kind!r} is no type")
    return kind


def placed(text: str, start: int, end: int, kind: str, surface: str | None, tally: Tally, where: str) -> Span:
    """The span without white space at its ends; counted in UTF-16 units, as JavaScript does, where only that fits.

    Args:
        text: the whole text.
        start: its first character.
        end: the one after the last.
        kind: its type.
        surface: what the file says that the span holds; None: it does not say.
        tally: counts offsets in UTF-16 units.
        where: file and line.

    Raises:
        IndexError: the span is outside the text, empty, or holds something else.
    """
    found = text[start:end] if 0 <= start < end <= len(text) else ""
    if surface is not None and found.split() != surface.split():
        units = text.encode("utf-16-le", "surrogatepass")
        part = units[2 * start : 2 * end] if 0 <= start < end else b""
        if part.decode("utf-16-le", "replace").split() == surface.split():
            start = len(units[: 2 * start].decode("utf-16-le", "surrogatepass"))
            found, end = surface, start + len(surface)
            tally.add("offsets_in_utf16_units", where)
        elif found.strip():
            raise IndexError(
                f"the span {start} to {end} is {found!r} in the text, not {surface!r}{_inside(text, start, end)}"
            )
    if not found.strip():
        raise IndexError(
            f"the span {start} to {end} lies outside the text, or is empty; it has {len(text)} characters"
            f"{_inside(text, start, end)}"
        )
    start += len(found) - len(found.lstrip())
    return Span(start, start + len(found.strip()), kind)


def _inside(text: str, *offsets: int) -> str:
    """A hint where offsets seem to count UTF-16 units, but lie between the halves of a character."""
    units = text.encode("utf-16-le", "surrogatepass")
    for offset in offsets:
        if (
            0 < 2 * offset < len(units)
            and 0xDC <= units[2 * offset + 1] <= 0xDF
            and 0xD8 <= units[2 * offset - 1] <= 0xDB
        ):
            character = units[2 * offset - 2 : 2 * offset + 2].decode("utf-16-le")
            return f"; counted in UTF-16 units, {offset} lies inside the surrogate pair of {character!r}"
    return ""


def read_annotated(path: Path, text: str, rejects: Rejects) -> list[Annotated]:
    """Read columns or JSON, told apart by the first character; says how many tags were mended.

    Raises:
        DataError: names file and line.
    """
    if is_json(path, text):
        return list(read_spans(path, text, rejects))
    sentences = []
    for sentence, repaired in read_conll(path, text, rejects):
        sentences.append(sentence)
        for _ in range(repaired):
            rejects.tally.add("inside_tag_read_as_beginning", sentence.where)
    if not sentences:
        raise DataError(f"{path}: there is no tagged sentence in it; each line should hold a word and its tag")
    return sentences
