"""Which columns of a table hold the text, its pair and the label: named by the user, or guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bertsmith.core.errors import DataError
from bertsmith.tasks.rows import LABEL_NAMES, PAIR_NAMES, TEXT_NAMES, Table, is_number, plain_name


@dataclass(frozen=True, slots=True)
class Columns:
    """Indices of a table's columns; None where there is no such column."""

    text: int
    pair: int | None
    label: int | None

    def shown(self, table: Table) -> str:
        """`text = column 'review', label = column 'stars'`, for people."""
        places = {"text": self.text, "pair": self.pair, "label": self.label}
        return ", ".join(f"{role} = column {table.columns[i]!r}" for role, i in places.items() if i is not None)


def choose_columns(
    table: Table,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    paired: bool | None = None,
    labelled: bool = True,
) -> Columns:
    """Find the columns.

    Args:
        table: the rows.
        text: name of the text's column; None guesses.
        pair: name of the second text's column; None guesses, unless `text` is given.
        label: name of the label's column; None guesses.
        paired: whether there must be a second text; None takes what the file has.
        labelled: whether a label is needed.

    Raises:
        DataError: no such column, or no guess is safe; lists the columns that there are.
    """
    guess = _guess_by_name(table) if table.headed else _guess_by_content(table, labelled=labelled)
    wanted: Mapping[str, str | None] = {"text": text, "pair": pair, "label": label}
    found = {role: table.column(name) if name else guess.get(role) for role, name in wanted.items()}
    for role, place in found.items():
        if place is not None and not wanted[role]:
            table.alone(place)
    if paired is False or (text and not pair and not paired):
        found["pair"] = None
    roles = {"text": "text", "pair": "second text", "label": "label"}
    for role, needed in (("text", True), ("pair", paired is True), ("label", labelled)):
        if needed and found[role] is None:
            if len(table.columns) == 1:
                raise DataError(
                    f"{table.path}: only one column was found ({table.columns[0][:60]}), so none is left for the "
                    f"{roles[role]}; columns may be parted by , ; | or a tab"
                )
            raise DataError(
                f"{table.path}: cannot tell which column holds the {roles[role]}; the columns are "
                f"{', '.join(table.columns)}{'' if table.headed else ' (there is no header row)'}; name it, or give "
                f"its number from 1, with --set task.{role}_column=NAME"
            )
    assert found["text"] is not None
    if found["label"] == found["text"]:
        found["label"] = None
    return Columns(found["text"], found["pair"], found["label"])


def _guess_by_name(table: Table) -> dict[str, int]:
    names = {plain_name(column): i for i, column in reversed(list(enumerate(table.columns)))}
    guess: dict[str, int] = {}
    pair = next(((a, b) for a, b in PAIR_NAMES if a in names and b in names), None)
    text = pair[0] if pair else next((name for name in TEXT_NAMES if name in names), None)
    if text is not None:
        guess["text"] = names[text]
    if pair is not None:
        guess["pair"] = names[pair[1]]
    label = next((name for name in LABEL_NAMES if name in names), None)
    if label is not None:
        guess["label"] = names[label]
    if len(table.columns) == 2 and len(guess) == 1:
        missing = "label" if "text" in guess else "text"
        other = 1 - next(iter(guess.values()))
        if missing == "text" or _distinct(table, other) < len(table.rows):
            guess[missing] = other
    return guess


def _guess_by_content(table: Table, *, labelled: bool) -> dict[str, int]:
    """Without a header: the label repeats most; texts are long and differ; numbers that never repeat are ids."""
    if len(table.columns) == 4 and all(row.cells[1] in ("0", "1") and row.cells[2] in ("", "*") for row in table.rows):
        return {"text": 3, "label": 1}  # CoLA: source, label, mark of the source's author, sentence
    total = len(table.rows)
    full = [i for i in range(len(table.columns)) if all(row.cells[i].strip() for row in table.rows)]
    if len(full) < 2:
        return {"text": full[0]} if full else {}
    guess: dict[str, int] = {}
    if labelled:
        lengths = {i: sum(len(row.cells[i]) for row in table.rows) for i in full}
        guess["label"] = min(full, key=lambda i: (_distinct(table, i), lengths[i]))
    texts = [
        i
        for i in full
        if i != guess.get("label")
        and _distinct(table, i) > total / 10
        and not all(is_number(row.cells[i]) for row in table.rows)
    ]
    if len(texts) in (1, 2):
        guess.update(zip(("text", "pair"), texts, strict=False))
    return guess


def _distinct(table: Table, column: int) -> int:
    return len({row.cells[column] for row in table.rows})
