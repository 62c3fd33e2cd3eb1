"""BRAT standoff: a folder of texts, each with a file of annotations beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.source import file_source
from bertsmith.tasks.annotations import Annotated, Span, placed, read_annotated
from bertsmith.tasks.rows import read_text
from bertsmith.tasks.values import Rejects

MOST = 1 << 28
"""Bytes of a text."""
_ENTITY = re.compile(r"(T\S+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t?(.*)")
_RELATION = re.compile(r"R\S+\t(\S+) \S+?:(\S+) \S+?:(\S+)\s*")


def read_documents(path: Path, rejects: Rejects) -> list[Annotated]:
    """Read texts with their spans, in any of the forms: a folder of BRAT, one of its files, columns, or JSON.

    Args:
        path: a file or folder.
        rejects: takes what cannot be used.

    Raises:
        DataError: names file and line.
    """
    if path.is_dir():
        return list(_folder(path, rejects))
    if path.suffix == ".ann":
        return [_document(path, rejects)]
    return read_annotated(path, read_text(path, rejects.tally), rejects)


def is_brat(path: Path) -> bool:
    """Whether `path` is a folder, or a file of BRAT's annotations."""
    return path.is_dir() or path.suffix == ".ann"


def _folder(folder: Path, rejects: Rejects) -> Iterator[Annotated]:
    files = sorted(folder.rglob("*.ann"))
    if not files:
        raise DataError(f"{folder}: there is no .ann file in this folder; BRAT keeps one beside each .txt")
    for text in sorted(folder.rglob("*.txt")):
        if not text.with_suffix(".ann").exists():
            rejects.tally.add("text_without_annotations", str(text))
    for file in files:
        yield _document(file, rejects)


def _document(file: Path, rejects: Rejects) -> Annotated:
    """One text; its offsets count every character of the file, line ends as they are."""
    text = _content(file.with_suffix(".txt"), rejects.tally)
    spans: dict[str, Span] = {}
    related: list[tuple[str, str, str, str]] = []
    for number, line in enumerate(_content(file, rejects.tally).split("\n"), start=1):
        where, line = f"{file}:{number}", line.removesuffix("\r")
        if line.startswith("T"):
            if (found := _ENTITY.fullmatch(line)) is None:
                rejects.add("not_an_entity", where, "an entity looks like T1<tab>PER 0 4<tab>Anna")
            elif ";" in found[3]:
                rejects.add("discontinuous_span", where, f"{found[1]} is in several pieces; a span is one stretch")
            elif found[1] in spans:
                rejects.add("entity_twice", where, f"there is an entity {found[1]} above; number this one otherwise")
            else:
                start, end = map(int, found[3].split())
                try:
                    spans[found[1]] = placed(text, start, end, found[2], found[4] or None, rejects.tally, where)
                except IndexError as error:
                    rejects.add("span_outside_text", where, str(error))
        elif line.startswith("R"):
            if found := _RELATION.fullmatch(line):
                related.append((where, found[1], found[2], found[3]))
            else:
                rejects.add("not_a_relation", where, "a relation looks like R1<tab>Works-For Arg1:T1 Arg2:T2")
        elif line.strip():
            rejects.tally.add("neither_entity_nor_relation", where)
    relations = []
    for where, kind, *ends in related:
        if missing := [end for end in ends if end not in spans]:
            rejects.add("relation_without_entity", where, f"there is no entity {missing[0]}")
        else:
            relations.append((spans[ends[0]], spans[ends[1]], kind))
    return Annotated(text, tuple(sorted(set(spans.values()))), None, f"{file}:1", tuple(relations))


def _content(file: Path, tally: Tally) -> str:
    if not file.exists():
        raise DataError(f"{file}: no such file; BRAT keeps a .txt and an .ann of the same name beside each other")
    data = file_source(file).whole(tally, MOST)
    if data is None:
        raise DataError(f"{file}: more than {MOST >> 20} MB; cut the text into several")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 (byte {error.start}); convert it with iconv") from None
