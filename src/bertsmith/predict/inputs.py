"""What to predict on: lines as they arrive, or the rows of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.lines import read_lines
from bertsmith.tasks.base import Example
from bertsmith.tasks.columns import choose_columns
from bertsmith.tasks.origins import check_there
from bertsmith.tasks.rows import kind, read_table

Input: TypeAlias = str | tuple[str, ...] | Example
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
CHUNK = 1024


def from_stream(stream: BufferedReader, tally: Tally, *, paired: bool, several: bool = False) -> Iterator[list[Input]]:
    """Lines as they arrive, a text each, or a pair separated by a tab; empty lines are counted and left out.

    Args:
        stream: bytes.
        tally: counts what is left out.
        paired: whether a line holds two texts.
        several: whether it holds any number of them.

    Raises:
        DataError: a line that should hold a pair does not (names the line).
    """
    rest, number = b"", 0
    while data := stream.read1(1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from _chunk(lines, number, tally, paired=paired, several=several)
        number += len(lines)
    if rest:
        yield from _chunk([rest], number, tally, paired=paired, several=several)


def _chunk(lines: Sequence[bytes], before: int, tally: Tally, *, paired: bool, several: bool) -> Iterator[list[Input]]:
    """The texts of some lines at once; those before a line that cannot be used come before its error."""
    chunk: list[Input] = []
    try:
        for number, line in enumerate(lines, start=before + 1):
            where = f"standard input:{number}"
            chunk += _input(_decoded(line, where, tally), where, tally, paired=paired, several=several)
    except DataError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def from_file(
    path: Path,
    tally: Tally,
    *,
    paired: bool,
    several: bool = False,
    config: Any = None,
    read: Callable[[Path, Tally], list[Example]] | None = None,
) -> Iterator[list[Input]]:
    """The texts of a file: a column of a CSV, TSV or JSON lines file, or else a text a line.

    Args:
        path: the file, compressed or not.
        tally: counts what is left out.
        paired: whether pairs are wanted, not single texts.
        several: whether a line of plain text holds any number of texts.
        config: a task's config, for the columns it names.
        read: reads a task's own forms, such as SQuAD's; of pairs, only JSON and tables.

    Raises:
        DataError: no such file, no such column, or a line without a pair (names file and line).
    """
    check_there(path)
    if read is not None and (kind(path) in TABLES or not paired) and not (several and kind(path) == ".txt"):
        examples = read(path, tally)
        for start in range(0, len(examples), CHUNK):
            yield [*examples[start : start + CHUNK]]
        return
    if kind(path) in TABLES:
        yield from _from_table(path, tally, paired=paired, config=config)
        return
    chunk: list[Input] = []
    text = ""
    for line in read_lines(path, tally):
        text += line.text
        if line.whole:
            chunk += _input(text, f"{path}:{line.number}", tally, paired=paired, several=several)
            text = ""
        if len(chunk) >= CHUNK:
            yield chunk
            chunk = []
    if text:
        chunk += _input(text, str(path), tally, paired=paired, several=several)
    if chunk:
        yield chunk


def _from_table(path: Path, tally: Tally, *, paired: bool, config: Any) -> Iterator[list[Input]]:
    names = {"text": getattr(config, "text_column", None), "pair": getattr(config, "pair_column", None)}
    table = read_table(path, tally, named=[name for name in names.values() if name])
    columns = choose_columns(table, **names, paired=paired, labelled=False)
    for start in range(0, len(table.rows), CHUNK):
        rows = [row.cells for row in table.rows[start : start + CHUNK]]
        yield [
            (row[columns.text], row[columns.pair]) if columns.pair is not None else row[columns.text] for row in rows
        ]


def _decoded(line: bytes, where: str, tally: Tally) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        tally.add("invalid_utf8", where)
        return line.decode(errors="replace")


def _input(line: str, where: str, tally: Tally, *, paired: bool, several: bool = False) -> list[Input]:
    line = line.removesuffix("\r").removeprefix("\ufeff")
    if not line.strip():
        tally.add("empty_line", where)
        return []
    if several:
        return [tuple(line.split("\t"))]
    if not paired:
        return [line]
    first, tab, second = line.partition("\t")
    if not tab or "\t" in second:
        raise DataError(f"{where}: a pair is two texts with a tab between them; there are {line.count(chr(9))} tabs")
    return [(first, second)]
