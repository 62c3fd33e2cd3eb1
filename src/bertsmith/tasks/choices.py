"""Texts with several choices from files: SWAG, C3, RACE, CommonsenseQA, JSON and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example
from bertsmith.tasks.rows import check_named, plain_name, read_table, read_text
from bertsmith.tasks.values import Rejects, is_json, read_json

NAMES = {
    "context": ("context", "sent1", "article", "passage", "document", "text", "premise", "ctx", "startphrase"),
    "question": ("question", "sent2", "query", "goal"),
    "label": ("label", "answer", "answerkey", "gold", "correct", "target"),
}
LISTS = ("choices", "choice", "options", "endings", "answers", "candidates")
# ending0, choice 1, option_2, opt1, sol1, answer3, A to F
CHOICE = re.compile(r"(?:ending|choice|option|opt|sol|answer|candidate)[_ ]?(\d+)|([a-f])")
LETTERS = "ABCDEFGHIJ"


def read_choices(
    path: Path,
    tally: Tally,
    *,
    named: Mapping[str, str | None],
    choices: Sequence[str] = (),
    first: int | None = None,
    labelled: bool,
    skip_bad_rows: bool = False,
) -> tuple[list[Example], int]:
    """Read texts, each with two choices or more.

    An example's fields are `text` (empty where there is none), `question` where there is one, and `choices`; its label
    is the number of the right one, from 0, None where nobody has said. A label may be a number, a letter or the text of
    the choice.

    Args:
        path: a table or JSON. C3's and RACE's files, with several questions a text, are known by their shape.
        tally: counts what is skipped.
        named: columns that the user gave to `context`, `question` and `label`.
        choices: columns of the choices; empty: those called so.
        first: number of the first choice where labels are numbers; None: 1 where no label is 0 and one is the number
            of choices.
        labelled: whether the right choice must be known.
        skip_bad_rows: count rows that cannot be used instead of stopping at the first.

    Returns:
        The examples, and the number of the first choice.

    Raises:
        DataError: names file, line and what to do.
    """
    rejects = Rejects(tally, skip=skip_bad_rows)
    text = read_text(path, tally)
    names = {role: (named[role],) if named.get(role) else known for role, known in NAMES.items()}
    if is_json(path, text):
        rows = [row for where, value in read_json(path, text, rejects) for row in _flat(value, where, rejects)]
    else:
        table = read_table(path, tally, skip_bad_rows=skip_bad_rows, named=[*filter(None, named.values()), *choices])
        if not table.headed:
            raise DataError(f"{path}: no header; name the columns, such as context,question,choice1,choice2,label")
        rows = [(row.where, dict(zip(table.columns, row.cells, strict=True))) for row in table.rows]
    needed = [name for role, name in named.items() if labelled or role != "label"]
    check_named(path, [*needed, *choices], [row for _, row in rows])
    found = []
    for where, row in rows:
        fields = {plain_name(name): value for name, value in row.items()} | row
        values = {role: next((fields[name] for name in known if name in fields), None) for role, known in names.items()}
        options = _options(fields, choices)
        if isinstance(values["question"], dict):  # CommonsenseQA: {"question": {"stem": …, "choices": […]}}
            options = options or _options(values["question"], ())
            values["question"] = values["question"].get("stem")
        context, question = (_text(values[role]) for role in ("context", "question"))
        if len(options) < 2 or not all(option.strip() for option in options):
            rejects.add(
                "too_few_choices", where, f"two choices or more are needed, none empty; here are {len(options)}"
            )
        elif not context and not question:
            rejects.add("empty_text", where, "there is neither a text nor a question")
        else:
            extra = {"question": question} if question else {}
            article = {"article": fields["article_id"]} if "article_id" in fields else {}
            found.append((where, {"text": context, **extra, "choices": options, **article}, values["label"]))
    numbers = [int(str(label)) for *_, label in found if _is_number(label)]
    longest = max((len(fields["choices"]) for _, fields, _ in found), default=0)
    if first is None:
        first = int(bool(numbers) and min(numbers) > 0 and max(numbers) == longest)
    examples = []
    for where, fields, label in found:
        place = None if label is None or label == "" else _place(label, fields["choices"], first)
        if place is None and labelled:
            listed = " | ".join(fields["choices"])[:80]
            told = (
                "the right choice is not said" if label in (None, "") else f"{label!r} is none of the choices {listed}"
            )
            rejects.add("no_label" if label in (None, "") else "unknown_label", where, told)
        else:
            examples.append(Example(fields, place, where))
    if not examples:
        raise DataError(f"{path}: no usable row is left; {tally.summary() or 'there is none in it'}")
    return examples, first


def _flat(value: Any, where: str, rejects: Rejects) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each question of a JSON value as one row."""
    if isinstance(value, list) and len(value) >= 2 and isinstance(value[1], list):
        # C3: [[sentence, …], [{"question", "choice": […], "answer"}, …], id]
        for question in value[1]:
            yield where, {"article_id": str(value[2]) if len(value) > 2 else where, "context": value[0], **question}
    elif isinstance(value, dict) and isinstance(value.get("questions"), list):
        # RACE: {"article", "questions": […], "options": [[…], …], "answers": […]}
        several = zip(value["questions"], value.get("options", []), value.get("answers", []), strict=False)
        for question, options, answer in several:
            known = {"article_id": str(value.get("id", where)), "context": value.get("article", "")}
            yield where, {**known, "question": question, "options": options, "label": answer}
    elif isinstance(value, dict):
        yield where, value
    else:
        rejects.add("not_an_object", where, 'a row must be a JSON object such as {"text": …, "choices": […]}')


def _options(fields: Mapping[str, Any], choices: Sequence[str]) -> tuple[str, ...]:
    if choices:
        return tuple(str(fields[name]) for name in choices if fields.get(name) not in (None, ""))
    for name in LISTS:
        value = fields.get(name)
        if isinstance(value, dict) and isinstance(value.get("text"), list):
            value = value["text"]  # ARC: {"choices": {"text": […], "label": […]}}
        if isinstance(value, list):
            texts = (one.get("text") if isinstance(one, dict) else one for one in value)
            return tuple("" if one is None else str(one) for one in texts)
    placed = [(match, value) for name, value in fields.items() if (match := CHOICE.fullmatch(plain_name(name)))]
    numbered = {int(match[1]): value for match, value in placed if match[1]}
    lettered = {match[2]: value for match, value in placed if match[2]}
    columns: Mapping[Any, Any] = numbered or lettered
    return tuple(str(columns[key]) for key in sorted(columns) if columns[key] not in (None, ""))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(one for one in value if isinstance(one, str)).strip()
    return value.strip() if isinstance(value, str) else ""


def _is_number(label: Any) -> bool:
    return str(label).strip().isdecimal() and not isinstance(label, bool)


def _place(label: Any, options: Sequence[str], first: int) -> int | None:
    written = str(label).strip()
    if written in options and not _is_number(label):
        return options.index(written)
    if _is_number(label) and first <= int(written) < first + len(options):
        return int(written) - first
    if len(written) == 1 and written.upper() in LETTERS[: len(options)]:
        return LETTERS.index(written.upper())
    return options.index(written) if written in options else None
