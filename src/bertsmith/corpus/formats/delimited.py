"""CSV and TSV: one document a row, its text in a column."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from bertsmith.core.errors import DataError
from bertsmith.corpus import layout
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.fields import cell_documents, choose_columns
from bertsmith.corpus.lines import read_lines
from bertsmith.corpus.source import Source

_LONGEST = 1 << 26
"""Characters of one cell, and of one line; more is a quotation mark left open, or no table."""

_WRAPPED = re.compile(r'"(?:[^"]|"")*"')


def read_delimited(source: Source, tally: Tally) -> Iterator[Document]:
    """A table with a header; a tab separates cells in `.tsv`, else that of `,` `;` and tab that the header has most of.

    The text is the column that the user named, else `text`, `content` or `body`; a column `id` names the documents,
    and `title` is kept as their description. Quoted cells may hold line breaks.

    Args:
        source: where the table comes from.
        tally: counts rows without text, and rows with fewer or more cells than the header (used if they have a text).

    Raises:
        DataError: no such column, or a quotation mark left open; names file and line.
    """
    lines = _whole_lines(source, tally)
    head = list(islice(lines, layout.SAMPLE))
    header = next((line for line in head if line.strip()), None)
    if header is None:
        tally.add("empty_file", source.name)
        return
    delimiter = "\t" if source.kind == ".tsv" else max(",;\t", key=header.count)
    # Corpus tools write quotation marks into TSV as text, spreadsheets put them around cells.
    plain = delimiter == "\t" and _quotes_are_text(head)
    rows = csv.reader(
        chain(head, lines), delimiter=delimiter, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, strict=True
    )
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    columns: list[str] = []
    begin = 1
    try:
        for cells in rows:
            where = f"{source.name}:{begin}"
            if not columns:
                if any(cell.strip() for cell in cells):
                    columns = cells
                    text, title = choose_columns(columns, source)
                    id = columns.index("id") if "id" in columns else None
            elif cells:
                if len(cells) != len(columns):
                    tally.add("row_of_another_width", where)
                if len(cells) <= text or not cells[text].strip():
                    tally.add("empty_text", where)
                else:
                    meta = {"title": cells[title]} if title is not None and title < len(cells) else {}
                    name = cells[id].strip() if id is not None and id < len(cells) else ""
                    yield from cell_documents(cells[text], name or where, source, meta)
            begin = rows.line_num + 1
    except csv.Error as error:
        raise DataError(f"{source.name}:{begin}: {error}; is a quotation mark left open in the row?") from error


def _quotes_are_text(lines: Sequence[str]) -> bool:
    """Whether quotation marks belong to the text: cells begin with one but are not wrapped in two, and rows fit."""
    rows = [line.rstrip("\n").split("\t") for line in lines if line.strip()]
    opened = [cell for cells in rows for cell in cells if cell.startswith('"')]
    wrapped = all(_WRAPPED.fullmatch(cell) for cell in opened)
    return bool(opened) and not wrapped and len({len(cells) for cells in rows}) == 1


def _whole_lines(source: Source, tally: Tally) -> Iterator[str]:
    pieces: list[str] = []
    size = 0
    for line in read_lines(source, tally):
        pieces.append(line.text)
        size += len(line.text)
        if size > _LONGEST:
            raise DataError(f"{source.name}:{line.number}: a line of more than {_LONGEST >> 20} MB; is this a table?")
        if line.whole:
            yield "".join(pieces) + "\n"
            pieces.clear()
            size = 0
    if pieces:
        yield "".join(pieces)
