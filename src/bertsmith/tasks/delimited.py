"""Lines to rows of cells: what parts the columns, where quotation marks belong, and where one is left open."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally

SAMPLE = 50
"""Lines by which the separator is judged."""
PARTED = {";": "semicolons", "|": "bars", "\t": "tabs"}
_LONGEST = 1 << 26


class Record(NamedTuple):
    """The cells of a row, the lines in which it begins and ends, and whether its quotation marks are in order."""

    line: int
    cells: list[str]
    last: int
    closed: bool = True

    @property
    def opened(self) -> int | None:
        """The line in which the first cell begins that holds several lines; of a broken row, its last cell."""
        number = next((n for n, cell in enumerate(self.cells) if "\n" in cell), None)
        if number is None and self.closed:
            return None
        before = self.cells[:number] if number is not None else self.cells[:-1]
        return self.line + sum(cell.count("\n") for cell in before)


def read_records(path: Path, text: str, suffix: str, tally: Tally) -> tuple[list[Record], str]:
    """The rows of a text whose lines are rows, as CSV, TSV or `sentence@label`; the latter gets a header in line 0.

    Args:
        path: names the file.
        text: its content.
        suffix: what its name says that it is, such as `.csv`.
        tally: counts blank lines and empty rows.

    Returns:
        The rows, and what parts their columns where the file's name does not tell, else nothing.

    Raises:
        DataError: a cell is too long.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    lines = text.removesuffix("\n").split("\n")
    head = [line for line in lines[: 2 * SAMPLE] if line.strip()][:SAMPLE]
    tabs = head[0].count("\t") if head else 0
    separator, sure = ("\t", True) if tabs and (suffix == ".tsv" or tabs >= head[0].count(",")) else _separator(head)
    if suffix not in (".csv", ".tsv") and separator != "\t" and (parts := _at_separated(lines)):
        return _filled(path, parts, tally), ""
    if suffix == ".tsv" and not sure:
        separator = "\t"
    try:
        found = _tab_separated(lines) if separator == "\t" else list(_csv(lines, separator))
    except csv.Error as error:
        raise DataError(f"{path}: {error}; is a quotation mark left open?") from error
    told = "" if (separator, suffix) == ("\t", ".tsv") else PARTED.get(separator, "")
    return _filled(path, found, tally), told


def _filled(path: Path, records: Sequence[Record], tally: Tally) -> list[Record]:
    """The rows in which something stands; others are counted."""
    filled = []
    for record in records:
        if any(cell.strip() for cell in record.cells):
            filled.append(record)
        else:
            tally.add("blank_line" if len(record.cells) < 2 else "empty_row", f"{path}:{record.line}")
    return filled


def _separator(head: Sequence[str]) -> tuple[str, bool]:
    """The character that gives most rows equally many cells, a comma in doubt; and whether it does so for all."""
    shares: dict[str, float] = {}
    for character in ",;|":
        widths = Counter(len(cells) for cells in csv.reader(head, delimiter=character))
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        shares[character] = count / widths.total() if width > 1 else 0.0
    best = max(shares, key=lambda character: shares[character])
    return best, shares[best] == 1.0


def _tab_separated(lines: Sequence[str]) -> list[Record]:
    """GLUE writes quotes as plain text; spreadsheets write them around cells. Take the reading that fits."""
    plain = [Record(n, line.split("\t") if line.strip() else [], n) for n, line in enumerate(lines, start=1)]
    opened = [cell for record in plain for cell in record.cells if cell.startswith('"')]
    widths = {len(record.cells) for record in plain if record.cells}
    wrapped = bool(opened) and all(re.fullmatch(r'"(?:[^"]|"")*"', cell) for cell in opened)
    if wrapped or (opened and len(widths) > 1):
        quoted = list(_csv(lines, "\t"))
        if wrapped or len({len(record.cells) for record in quoted if any(map(str.strip, record.cells))}) == 1:
            return quoted
    return plain


def _csv(lines: Sequence[str], delimiter: str) -> Iterator[Record]:
    line = 1
    while line <= len(lines):
        reader = csv.reader((text + "\n" for text in islice(lines, line - 1, None)), delimiter=delimiter)
        before = line - 1
        for cells in reader:
            last = before + reader.line_num
            # A quotation mark that nobody closes takes in all lines to the next one, or to the end.
            suspect = last > line or last == len(lines)
            closed = not suspect or _closed(lines[line - 1 : last], delimiter)
            yield Record(line, cells, last, closed)
            line = last + 1 if closed else line + 1
            if not closed:
                break  # what it took in may be rows


def _closed(lines: Sequence[str], delimiter: str) -> bool:
    """Whether each quotation mark that opens a cell closes it; in a single line, what follows it does not matter."""
    try:
        list(csv.reader([line + "\n" for line in lines], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return len(lines) == 1 and "end of data" not in str(error)
    return True


def _at_separated(lines: Sequence[str]) -> list[Record] | None:
    """`sentence@label`, where nearly every line ends in `@` and one of a few words; None when it is something else."""
    numbered = [(n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]
    parts = [(n, [cell.strip() for cell in line.rpartition("@")[::2]]) for n, line in numbered]
    labels = Counter(cells[1] for _, cells in parts if cells[0])
    few = len(labels) <= max(2, len(numbered) // 10) and all(len(label.split()) <= 3 for label in labels)
    if not few or labels.total() < 0.9 * len(numbered):
        return None
    found = {n: Record(n, cells if cells[0] else cells[1:], n) for n, cells in parts}
    every = [found.get(n, Record(n, [], n)) for n in range(1, len(lines) + 1)]
    return [Record(0, ["sentence", "label"], 0), *every]
