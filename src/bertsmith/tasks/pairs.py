"""Rows of texts that belong together: a query, what answers it, and perhaps what does not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example
from bertsmith.tasks.columns import choose_columns
from bertsmith.tasks.dialogue import is_dialogue, read_turns
from bertsmith.tasks.rows import LABEL_NAMES, Table, is_number, plain_name, read_text
from bertsmith.tasks.values import Rejects
from bertsmith.tasks.windows import counter_rng

POSITIVE = re.compile(r"(positives?|pos)(_\d+)?")
NEGATIVE = re.compile(r"(hard_)?(negatives?|neg)(_\d+)?")


def is_list(name: str) -> bool:
    """Whether a list in this field of JSON holds texts that belong to a query, or do not."""
    return bool(POSITIVE.fullmatch(plain_name(name)) or NEGATIVE.fullmatch(plain_name(name)))


def is_labelled(table: Table) -> bool:
    """Whether rows say how two texts go together; if not, each is two that do."""
    names = [plain_name(column) for column in table.columns] if table.headed else []
    if any(is_list(name) for name in names):
        return False
    if len(table.columns) == 2 and not any(name in LABEL_NAMES for name in names):
        return all(is_number(row.cells[1]) for row in table.rows)  # a text and its label: half a pair
    return True


@dataclass(frozen=True, slots=True)
class Together:
    """Indices of columns: the query, the texts that belong to it, and those that do not."""

    query: int
    positives: Sequence[int]
    negatives: Sequence[int]


def choose_together(table: Table, *, text: str | None, pair: str | None, negative: str | None) -> Together:
    """Find the columns of a file without labels: by name, or in this order where there is no header.

    Args:
        table: the rows.
        text: name of the query's column; None guesses.
        pair: name of the column of what belongs to it; None guesses.
        negative: name of the column of what does not; None takes those called so.

    Raises:
        DataError: no such column, only one column, or no guess is safe; lists the columns that there are.
    """
    names = [plain_name(column) for column in table.columns]
    if table.headed:
        positives = [i for i, name in enumerate(names) if POSITIVE.fullmatch(name)]
        pair = pair or (table.columns[positives[0]] if positives else None)
        negatives = [i for i, name in enumerate(names) if NEGATIVE.fullmatch(name)]
    else:
        text, pair = text or "1", pair or "2"
        negatives = list(range(2, len(table.columns)))
        positives = []
    if len(table.columns) < 2:
        raise DataError(f"{table.path}: only one column ({table.columns[0]}); a pair takes two texts a row")
    columns = choose_columns(table, text=text, pair=pair, paired=True, labelled=False)
    assert columns.pair is not None
    if columns.pair not in positives:
        positives = [columns.pair]
    if negative is not None:
        negatives = [table.column(negative)]
    return Together(columns.text, positives, [i for i in negatives if i not in (columns.text, *positives)])


def read_together(table: Table, columns: Together, rejects: Rejects) -> list[Example]:
    """An example for each query and text that belongs to it; its label is True.

    Args:
        table: the rows.
        columns: where its texts stand.
        rejects: takes rows without a query or without anything that belongs to it, and rows in which one text both
            belongs to the query and does not.
    """
    examples = []
    for row in table.rows:
        query = row.cells[columns.query].strip()
        positives = [text for i in columns.positives if (text := row.cells[i].strip())]
        negatives = tuple(dict.fromkeys(text for i in columns.negatives if (text := row.cells[i].strip())))
        if not query or not positives:
            rejects.add("empty_text", row.where, "the text is empty")
        elif both := next((text for text in positives if text in negatives), None):
            rejects.add("negative_is_positive", row.where, f"{both[:60]!r} is both the right text and a wrong one")
        else:
            fields = {"text": query} | ({"negatives": negatives} if negatives else {})
            examples += [Example(fields | {"pair": text}, True, row.where) for text in positives]
    return examples


def dialogue_rows(path: Path, tally: Tally, most: int, *, skip: bool) -> list[Example] | None:
    """Each turn of dialogues with those before it, as texts that go together; None for a file of another kind.

    Args:
        path: the file.
        tally: counts what is skipped.
        most: turns before the response.
        skip: count dialogues that cannot be used instead of stopping at the first.

    Raises:
        DataError: names file and line.
    """
    text = read_text(path, tally)
    if not is_dialogue(text):
        return None
    turns = read_turns(path, text, Rejects(tally, skip=skip), most)
    if not turns:
        raise DataError(f"{path}: no usable row is left; {tally.summary()}")
    return [
        Example({"text": turn.history, "pair": turn.response, "article": turn.dialogue}, True, turn.where)
        for turn in turns
    ]


def check_contrast(path: Path, examples: Sequence[Example]) -> None:
    """Refuse rows from which no wrong text can be had.

    Raises:
        DataError: all rows have one and the same text beside the query, and no other.
    """
    texts = {text for example in examples for text in (example.fields["pair"], *example.fields.get("negatives", ()))}
    if len(texts) == 1:
        raise DataError(
            f"{path}: all {len(examples)} rows have the same second text, so there is nothing to tell it from; "
            "give rows with other texts, or a column of negatives"
        )


def draw_negatives(examples: Sequence[Example], count: int) -> list[Example]:
    """Give rows without negatives some: texts of other rows, always the same ones.

    Args:
        examples: of `read_together`.
        count: how many for each, fewer where there are not so many other texts.
    """
    own: dict[str, set[str]] = {}
    for example in examples:
        own.setdefault(example.fields["text"], set()).add(example.fields["pair"])
    everything = list(dict.fromkeys(example.fields["pair"] for example in examples))
    result = []
    for number, example in enumerate(examples):
        fields: Mapping[str, object] = example.fields
        if "negatives" not in fields:
            mine = own[example.fields["text"]]
            order = counter_rng(len(examples), number).choice(
                len(everything), min(len(everything), count + len(mine)), replace=False
            )
            drawn = tuple(everything[i] for i in order if everything[i] not in mine)[:count]
            fields = {**fields, "negatives": drawn}
        result.append(Example(fields, example.label, example.where))
    return result
