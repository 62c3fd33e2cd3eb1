"""Texts with what is to be written from them: tables, JSON, line-parallel files, dialogues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.lines import COMPRESSED
from bertsmith.tasks.base import Example
from bertsmith.tasks.dialogue import is_dialogue, read_turns
from bertsmith.tasks.rows import Table, check_named, kind, plain_name, read_table, read_text
from bertsmith.tasks.values import Rejects, is_json, read_json

SOURCES = ("source", "src", "document", "article", "passage", "input", "text", "content", "history", "context", "en")
TARGETS = (
    "target",
    "tgt",
    "summary",
    "highlights",
    "abstract",
    "translation",
    "response",
    "output",
    "reference",
    "references",
    "headline",
    "title",
)
Spans = tuple[tuple[int, int], ...]


class References(tuple[str, ...]):
    """What may be written from a text, each of which would be right: no classes, unlike the labels of a text."""


def read_parallel(
    path: Path,
    tally: Tally,
    *,
    source: str | None,
    target: str | None,
    parallel: str | None,
    max_turns: int,
    labelled: bool,
    skip_bad_rows: bool = False,
) -> list[Example]:
    """Read texts and what is to be written from each.

    An example's field is `text`, and `sentences`, their places in it, where the file gives sentences; of a dialogue
    also `turns`. Its label is a tuple of references, None where there is none.

    Args:
        path: the file.
        tally: counts what is skipped.
        source: column of the text; None guesses.
        target: column of what is to be written; None guesses.
        parallel: the ending of a file beside `path`, such as `de`, whose lines are what is to be written.
        max_turns: of a dialogue, turns before the response.
        labelled: whether there must be something to be written.
        skip_bad_rows: count rows that cannot be used instead of stopping at the first.

    Raises:
        DataError: names file, line and what to do.
    """
    rejects = Rejects(tally, skip=skip_bad_rows)
    text = read_text(path, tally)
    rows: list[tuple[str, Mapping[str, Any], Any]]
    if parallel is not None and labelled:
        rows = _lines(path, text, parallel, tally)
    elif is_dialogue(text):
        turns = read_turns(path, text, rejects, max_turns)
        rows = [
            (turn.where, {"text": turn.history, "turns": True, "article": turn.dialogue}, turn.response)
            for turn in turns
        ]
    elif is_json(path, text):
        rows = _json(path, text, rejects, source, target, labelled=labelled)
    elif not labelled and (parallel is not None or kind(path) not in (".csv", ".tsv")):
        lines = enumerate(text.split("\n"), start=1)
        rows = [(f"{path}:{number}", {"text": line.strip()}, None) for number, line in lines if line.strip()]
    else:
        named = [name for name in (source, target) if name]
        table = read_table(path, tally, skip_bad_rows=skip_bad_rows, named=named)
        rows = _table(table, source, target, labelled=labelled)
    examples = []
    for where, fields, written in rows:
        several = written if isinstance(written, list | tuple) else [written]
        golds = tuple(dict.fromkeys(gold.strip() for gold in several if isinstance(gold, str) and gold.strip()))
        if not fields["text"].strip():
            rejects.add("empty_text", where, "the text is empty")
        elif labelled and not golds:
            rejects.add("empty_target", where, "there is nothing to be written")
        else:
            examples.append(Example(fields, References(golds) or None, where))
    if not examples:
        raise DataError(f"{path}: no usable row is left; {tally.summary() or 'there is none in it'}")
    if labelled and len(examples) > 1 and len({example.label for example in examples}) == 1:
        raise DataError(
            f"{path}: all {len(examples)} rows have the same text to be written, {examples[0].label[0][:40]!r}; "
            "name the right column with task.target_column"
        )
    return examples


def _lines(path: Path, text: str, ending: str, tally: Tally) -> list[tuple[str, Mapping[str, Any], Any]]:
    packed = path.suffix if path.suffix.lower() in COMPRESSED else ""
    plain = path.with_suffix("") if packed else path
    stem = plain.with_suffix("")
    places = [stem.with_name(f"{stem.name}.{ending}{suffix}") for suffix in ("", *COMPRESSED)]
    other = next((place for place in places if place.is_file() and place != path), None)
    if other is None:
        raise DataError(f"{path}: there is no {places[0].name} beside it, whose lines would be what is to be written")
    sources, targets = text.rstrip("\n").split("\n"), read_text(other, tally).rstrip("\n").split("\n")
    if len(sources) != len(targets):
        raise DataError(
            f"{path} has {len(sources):,} lines and {other} {len(targets):,}; line n of one belongs to line n of the "
            "other"
        )
    return [
        (f"{path}:{number}", {"text": " ".join(a.split())}, " ".join(b.split()))
        for number, (a, b) in enumerate(zip(sources, targets, strict=True), start=1)
    ]


def _json(
    path: Path, text: str, rejects: Rejects, source: str | None, target: str | None, *, labelled: bool
) -> list[tuple[str, Mapping[str, Any], Any]]:
    rows: list[tuple[str, Mapping[str, Any], Any]] = []
    values = list(read_json(path, text, rejects))
    check_named(path, (source, target if labelled else None), [value for _, value in values if isinstance(value, dict)])
    for where, value in values:
        row = value
        if isinstance(value, dict) and isinstance(value.get("translation"), dict):
            row = list(value["translation"].values())  # {"translation": {"en": …, "de": …}}
        if isinstance(row, list):
            row = dict(zip_longest(("source", "target"), row[:2]))
        if not isinstance(row, dict):
            rejects.add("not_an_object", where, 'a row must be a JSON object such as {"source": …, "target": …}')
            continue
        names = {plain_name(name): name for name in row}
        first = source or next((names[name] for name in SOURCES if name in names), None)
        if first is None or first not in row:
            listed = ", ".join(map(str, row))
            rejects.add(
                "no_source", where, f"there is no field of the text; the fields are {listed}; name it by source_column"
            )
            continue
        second = target or next((names[name] for name in TARGETS if name in names and names[name] != first), None)
        rows.append((where, _fields(row[first]), row.get(second) if second else None))
    return rows


def _fields(value: Any) -> dict[str, Any]:
    """A text, or sentences with their places in the text that they make up together."""
    if not isinstance(value, list):
        return {"text": value if isinstance(value, str) else ""}
    sentences = [" ".join(one.split()) for one in value if isinstance(one, str) and one.strip()]
    starts = [sum(len(one) + 1 for one in sentences[:number]) for number in range(len(sentences))]
    spans = tuple((start, start + len(one)) for start, one in zip(starts, sentences, strict=True))
    return {"text": " ".join(sentences), "sentences": spans}


def _table(
    table: Table, source: str | None, target: str | None, *, labelled: bool
) -> list[tuple[str, Mapping[str, Any], Any]]:
    names = [plain_name(column) for column in table.columns] if table.headed else []

    def place(named: str | None, known: Sequence[str], fallback: int, taken: int | None) -> int | None:
        if named:
            return table.column(named)
        found = next((names.index(name) for name in known if name in names and names.index(name) != taken), None)
        return found if found is not None or len(table.columns) <= fallback else fallback

    first = place(source, SOURCES, 0, None)
    assert first is not None
    second = place(target, TARGETS, 1, first)
    if second == first:
        second = next((number for number in range(len(table.columns)) if number != first), None)
    if second is None and labelled:
        raise DataError(
            f"{table.path}: only one column ({table.columns[0]}); a row is a text and what is to be written from it; "
            "for two files with a line each, name the ending of the second by task.parallel"
        )
    found = [(row.where, {"text": row.cells[first]}, row.cells) for row in table.rows]
    return [(where, fields, None if second is None else cells[second]) for where, fields, cells in found]
