"""Labelled rows as a Table: CSV, TSV, JSON, JSON lines, `sentence@label`, Parquet and data sets."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.delimited import Record, read_records
from bertsmith.tasks.origins import kind, read_text
from bertsmith.tasks.values import Rejects, is_json, read_json

__all__ = [
    "LABEL_NAMES",
    "LISTED",
    "PAIR_NAMES",
    "TEXT_NAMES",
    "Rejects",
    "Row",
    "Table",
    "are_scores",
    "check_named",
    "is_number",
    "kind",
    "no_column",
    "plain_name",
    "read_json",
    "read_table",
    "read_text",
]

LISTED = "\0"
"""What ends each item of a list of JSON that was joined into one cell; alone it is the empty list."""
MOSTLY = 0.9
"""Share of labels that must be numbers for those with decimals to be scores."""
LABEL_NAMES = [
    "label",
    "labels",
    "gold_label",
    "category",
    "class",
    "target",
    "intent",
    "sentiment",
    "score",
    "quality",
    "similarity",
    "stars",
    "rating",
    "标签",
    "类别",
    "分类",
    "情感",
    "分数",
    "评分",
]
TEXT_NAMES = [
    "text",
    "sentence",
    "review",
    "content",
    "text_a",
    "comment",
    "tweet",
    "utterance",
    "query",
    "question",
    "title",
    "body",
    "文本",
    "内容",
    "句子",
    "评论",
    "正文",
    "标题",
]
PAIR_NAMES = [
    ("query", "positive"),
    ("anchor", "positive"),
    ("question", "positive"),
    ("text", "positive"),
    ("query", "pos"),
    ("sentence1", "sentence2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text", "pair"),
    ("s1", "s2"),
    ("#1_string", "#2_string"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("sentence_a", "sentence_b"),
    ("question", "sentence"),
    ("question", "answer"),
    ("query", "passage"),
    ("query", "title"),
    ("query", "document"),
    ("question", "context"),
    ("context", "response"),
    ("句子1", "句子2"),
    ("文本1", "文本2"),
    ("问题", "答案"),
    ("问题", "回答"),
]


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row, in the order of the table's columns, and the file and line it starts at.

    `hint` is what may be wrong with a row that has too few or too many cells.
    """

    cells: Sequence[str]
    where: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that all have a cell for each column; columns without a header are called 1, 2, 3.

    `told` is what was worked out and a person should know: what parts the columns, that there is no header.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Row]
    headed: bool
    told: str = ""

    def column(self, name: str) -> int:
        """Where the column called `name` stands; `2` also means the second.

        Raises:
            DataError: there is none, or there are two; lists those there are.
        """
        if name in self.columns:
            return self.alone(self.columns.index(name))
        if name.isdecimal() and 1 <= int(name) <= len(self.columns):
            return int(name) - 1
        if name == "0":
            raise DataError(f"{self.path}: columns are counted from 1; the first is {self.columns[0]!r}, or 1")
        raise no_column(self.path, name, self.columns)

    def alone(self, place: int) -> int:
        """The place, if no other column has the same name.

        Raises:
            DataError: another one has.
        """
        same = [str(number) for number, name in enumerate(self.columns, 1) if name == self.columns[place]]
        if self.headed and len(same) > 1:
            raise DataError(
                f"{self.path}: columns {' and '.join(same)} are both called {self.columns[place]!r}; "
                "name the one that is meant by its number"
            )
        return place


def no_column(path: Path, name: str, known: Sequence[str]) -> DataError:
    """The error that says that there is no such column or field, and which one may be meant.

    Args:
        path: where it was looked for.
        name: as the user gave it.
        known: the names there are.
    """
    plain = {plain_name(one): one for one in reversed(known)}
    near = difflib.get_close_matches(plain_name(name), plain, n=1)
    hint = f"did you mean {plain[near[0]]!r}? " if near else ""
    return DataError(f"{path}: there is no column {name!r}; {hint}the columns are {', '.join(map(str, known))}")


def check_named(path: Path, named: Iterable[str | None], rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a column or field that the user named and that no row has.

    Args:
        path: names the file.
        named: what the user gave; None where it was left open.
        rows: by name of the field.

    Raises:
        DataError: lists the fields there are.
    """
    known = list(dict.fromkeys(name for row in rows for name in row))
    for name in named:
        if name and rows and name not in known and name not in map(plain_name, known):
            raise no_column(path, name, known)


def read_table(
    path: Path,
    tally: Tally,
    *,
    skip_bad_rows: bool = False,
    named: Sequence[str] = (),
    lists: Callable[[str], bool] = lambda name: False,
    joined: Callable[[str], bool] = lambda name: False,
) -> Table:
    """Read a file of rows, working out its format from its name and its content.

    Args:
        path: the file; .gz, .xz, .zst and .bz2 are read as they come; or a data set, `hf:NAME`.
        tally: counts what is skipped, by reason.
        skip_bad_rows: count rows that cannot be used instead of stopping at the first.
        named: columns that the user named; their presence marks the first row as a header.
        lists: says of a field of JSON whether a list in it is read: its items become columns `name 1`, `name 2`.
        joined: says of a field of JSON whether a list in it becomes one cell, each item followed by `LISTED`.

    Raises:
        DataError: nothing in it, or a row with too few or too many columns (names file and line).
    """
    rejects = Rejects(tally, skip=skip_bad_rows)
    text = read_text(path, tally)
    if is_json(path, text):
        if kind(path) in (".jsonl", ".ndjson"):
            for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
                if not line.strip():
                    tally.add("blank_line", f"{path}:{number}")
        return _from_json(path, text, rejects, lists, joined)
    records, parted = read_records(path, text, kind(path), tally)
    rows = [Row([cell.lstrip("\ufeff") for cell in record.cells], *_placed(path, record)) for record in records]
    for record, row in zip(records, rows, strict=True):
        if not record.closed:
            rejects.add("quotation_mark_left_open", row.where, row.hint)
    table = _table(path, [row for row, record in zip(rows, records, strict=True) if record.closed], rejects, named)
    told = [f"columns are parted by {parted}"] if parted else []
    told += [] if table.headed else ["there is no header row, so columns are called by their numbers, from 1"]
    return replace(table, told="; ".join(told))


def _placed(path: Path, record: Record) -> tuple[str, str]:
    """Where a row stands, and what may be wrong with it."""
    if record.closed and record.opened is None:
        return f"{path}:{record.line}", ""
    told = f'the quotation mark (") that opens a cell in line {record.opened} is closed in line {record.last} or never'
    return f"{path}:{record.line}", f'{told}; write "" for one that belongs to the text'


def _from_json(
    path: Path, text: str, rejects: Rejects, lists: Callable[[str], bool], joined: Callable[[str], bool]
) -> Table:
    values = [(where, _spread(value, lists, joined)) for where, value in read_json(path, text, rejects)]
    columns: dict[str, None] = {}
    for where, value in values:
        if isinstance(value, dict):
            columns.update(dict.fromkeys(name for name, cell in value.items() if not isinstance(cell, dict | list)))
        elif not isinstance(value, list):
            rejects.add("not_an_object", where, 'a row must be a JSON object such as {"text": …, "label": …}')
    if not columns:
        rows = [Row([_cell(cell) for cell in value], where) for where, value in values if isinstance(value, list)]
        return _table(path, rows, rejects, ())
    names = tuple(columns)
    rows = [
        Row([_cell(value.get(name)) for name in names], where) for where, value in values if isinstance(value, dict)
    ]
    return Table(path, names, rows, headed=True)


def _spread(value: Any, lists: Callable[[str], bool], joined: Callable[[str], bool]) -> Any:
    if not isinstance(value, dict):
        return value
    row = dict[str, Any]()
    for name, cell in value.items():
        if isinstance(cell, list) and lists(name):
            row |= {f"{name} {number}": item for number, item in enumerate(cell, start=1)}
        elif isinstance(cell, list) and joined(name):
            row[name] = "".join(f"{_cell(item)}{LISTED}" for item in cell) or LISTED
        else:
            row[name] = cell
    return row


def _cell(value: Any) -> str:
    if value is None or isinstance(value, dict | list):
        return ""
    return str(value) if not isinstance(value, bool) else str(value).lower()


def _table(path: Path, rows: list[Row], rejects: Rejects, named: Sequence[str]) -> Table:
    if not rows:
        raise DataError(f"{path}: there are no rows in it; give a file with at least one labelled row")
    width = Counter(len(row.cells) for row in rows).most_common(1)[0][0]
    headed = _is_header(rows, named)
    columns = tuple(cell.strip() for cell in rows[0].cells) if headed else ()
    width = len(columns) or width
    columns = columns or tuple(str(n) for n in range(1, width + 1))
    good = []
    for row in rows[headed:]:
        if len(row.cells) == width:
            good.append(row)
        else:
            few = "too_few_columns" if len(row.cells) < width else "too_many_columns"
            told = f"{len(row.cells)} columns where {width} are expected ({', '.join(columns)})"
            rejects.add(few, row.where, f"{told}; {row.hint}" if row.hint else told)
    return Table(path, columns, good, headed)


def plain_name(column: str) -> str:
    """A column's name in the form in which known names are compared."""
    return column.strip().casefold().replace(" ", "_")


def _is_header(rows: Sequence[Row], named: Sequence[str]) -> bool:
    first = [cell.strip() for cell in rows[0].cells]
    known = {*LABEL_NAMES, *TEXT_NAMES, *(name for pair in PAIR_NAMES for name in pair)}
    if any(cell in named and not cell.isdecimal() for cell in first):
        return True
    counted = first[1:] if first[0] == "" else first
    if len(counted) > 1 and counted in ([str(n + start) for n in range(len(counted))] for start in (0, 1)):
        return True  # as pandas writes columns without names, and before them an index
    if any(len(cell) > 40 or len(cell.split()) > 3 or is_number(cell) for cell in first):
        return False
    if any(plain_name(cell) in known for cell in first):
        return True
    # Otherwise a header is a row of short, different words that are never seen again below; that of an index is empty.
    seen_again = any(first[i] == cell.strip() for row in rows[1:] for i, cell in enumerate(row.cells[: len(first)]))
    return len(rows) > 2 and "" not in first[1:] and len(set(first)) == len(first) and not seen_again


def is_number(text: str) -> bool:
    """Whether `float` takes it; so do `nan` and `inf`."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def are_scores(values: Counter[str]) -> bool:
    """Whether labels are numbers to predict: some have decimals, and nearly all are numbers; or none is finite.

    `values` are labels and how often each occurs. A single word among scores is a bad row, not a reason to take each
    score for a class.
    """
    numbers = {label: count for label, count in values.items() if is_number(label)}
    if numbers.keys() == values.keys() and not any(math.isfinite(float(label)) for label in values):
        return True
    decimals = any(math.isfinite(float(label)) and float(label) != int(float(label)) for label in numbers)
    return decimals and sum(numbers.values()) >= MOSTLY * values.total()
