"""Questions about texts: the JSON of SQuAD and CMRC, JSON lines, tables; and the files that their scripts score.

What stands for the question, its context and its answers is found by name, in any of the forms that are in use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Answer, Example
from bertsmith.tasks.rows import check_named, plain_name, read_table, read_text
from bertsmith.tasks.values import Rejects, is_json, read_json

NAMES = {
    "question": ("question", "query_text", "query"),
    "context": ("context", "context_text", "passage", "paragraph", "document", "text"),
    "answers": ("answers", "answer", "answer_text"),
    "start": ("answer_start", "start"),
    "id": ("id", "query_id", "qid"),
    "article": ("title", "article", "context_id"),
    "impossible": ("is_impossible", "no_answer"),
}
# Inside a JSON string every quotation mark has a backslash before it, so this finds keys only.
_KEY = re.compile(r'[{,\s]"(?:question|query_text)"\s*:')
_YES = ("true", "1", "yes")


@dataclass(frozen=True, slots=True)
class Gold:
    """A right answer.

    Attributes:
        text: the answer, without white space around it.
        start: where it starts in the context, in characters; None: it does not stand there.
    """

    text: str
    start: int | None

    @property
    def end(self) -> int | None:
        """Where it ends in the context, exclusive."""
        return None if self.start is None else self.start + len(self.text)


def read_questions(
    path: Path, tally: Tally, *, columns: Mapping[str, str | None], labelled: bool, skip_bad_rows: bool = False
) -> list[Example]:
    """Read questions with their contexts, in the order of the file.

    An example's fields are `question`, `context`, `id` and `article`, which tells what belongs together; its label is a
    tuple of `Gold`, empty where the question has no answer, None where nobody has said.

    Args:
        path: JSON as SQuAD or CMRC have it, JSON objects with a question each, CSV or TSV.
        tally: counts what is skipped or mended.
        columns: names that the user gave to `question`, `context` and `answers`.
        labelled: whether answers are needed.
        skip_bad_rows: count questions that cannot be used instead of stopping at the first.

    Raises:
        DataError: names file, line and question.
    """
    rejects = Rejects(tally, skip=skip_bad_rows)
    names = {role: (columns[role],) if columns.get(role) else known for role, known in NAMES.items()}
    text = read_text(path, tally)
    if is_json(path, text):
        found = _from_json(path, text, rejects)
    else:
        table = read_table(path, tally, skip_bad_rows=skip_bad_rows, named=[name for name in columns.values() if name])
        found = [(row.where, dict(zip(table.columns, row.cells, strict=True))) for row in table.rows]
        found = [(where, {_known(name, names): cell for name, cell in cells.items()}) for where, cells in found]
    needed = [name for role, name in columns.items() if labelled or role != "answers"]
    check_named(path, needed, [row for _, row in found])
    examples, ids = [], set()
    for number, (where, row) in enumerate(found, start=1):
        values = {role: next((row[name] for name in known if name in row), None) for role, known in names.items()}
        example = _example(values, str(number), where, rejects, labelled=labelled)
        if example is not None:
            examples.append(example)
            if example.fields["id"] in ids:
                tally.add("repeated_id", f"{where}, question {example.fields['id']}")
            ids.add(example.fields["id"])
    if not examples:
        raise DataError(f"{path}: no usable question is left; {tally.summary() or 'there is none in it'}")
    return examples


def prediction_files(answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, bytes]:
    """The files that the scripts of SQuAD and CMRC take, by name.

    Args:
        answers: of `Questions.decode`.
        examples: what they answer.

    Returns:
        `predictions.json`, `{id: answer}`; `nbest_predictions.json`; and, where an answer may be withheld,
        `null_odds.json`, `{id: odds}`.
    """
    ids = [example.fields["id"] for example in examples]
    files: dict[str, dict[str, Any]] = {
        "predictions.json": {id: answer["answer"] for id, answer in zip(ids, answers, strict=True)},
        "nbest_predictions.json": {
            id: [{"text": entry["answer"], "probability": entry["score"]} for entry in answer["n_best"]]
            for id, answer in zip(ids, answers, strict=True)
        },
    }
    if any("null_odds" in answer for answer in answers):
        files["null_odds.json"] = {id: answer["null_odds"] for id, answer in zip(ids, answers, strict=True)}
    # A lone surrogate, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    return {
        name: (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode(errors="backslashreplace")
        for name, content in files.items()
    }


def _known(column: str, names: Mapping[str, Sequence[Any]]) -> str:
    """A column's name as it is known, whatever its case."""
    known = {name for several in names.values() for name in several}
    return column if column in known or plain_name(column) not in known else plain_name(column)


def _from_json(path: Path, text: str, rejects: Rejects) -> list[tuple[str, dict[str, Any]]]:
    """Questions as flat objects, and where each stands."""
    found = []
    for where, value in read_json(path, text, rejects):
        if isinstance(value, dict):
            found += list(_questions(value, where, {}, rejects))
        else:
            rejects.add("not_an_object", where, 'a row must be a JSON object such as {"question": …, "context": …}')
    keys = list(_KEY.finditer(text))
    if len(keys) != len(found):
        return found
    line, at, placed = 1, 0, []
    for key, (_, row) in zip(keys, found, strict=True):
        line, at = line + text.count("\n", at, key.end()), key.end()
        placed.append((f"{path}:{line}", row))
    return placed


def _questions(
    value: Mapping[str, Any], where: str, above: Mapping[str, Any], rejects: Rejects
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The questions below an object of `data`, `paragraphs` or `qas`; or the one that the object is itself."""
    inner = next((name for name in ("data", "paragraphs", "qas") if name in value), None)
    if inner is None or (inner == "data" and any(name in value for name in NAMES["question"])):
        yield where, {**above, **value}
        return
    own = {name: item for name, item in value.items() if name in (*NAMES["context"], *NAMES["article"])}
    items = value[inner]
    for item in items if isinstance(items, list) else [items]:
        if isinstance(item, Mapping):
            yield from _questions(item, where, {**above, **own}, rejects)
        else:
            rejects.add("not_an_object", where, f"'{inner}' must be a list of JSON objects")


def _example(values: Mapping[str, Any], number: str, where: str, rejects: Rejects, *, labelled: bool) -> Example | None:
    id = str(values["id"]) if values["id"] not in (None, "") else number
    for role in ("question", "context"):
        if not isinstance(values[role], str):
            known = ", ".join(NAMES[role])
            rejects.add(f"no_{role}", where, f"question {id} has no {role}; its field is called one of {known}")
            return None
        if labelled and not values[role].strip():
            rejects.add(f"empty_{role}", where, f"question {id}: the {role} is empty")
            return None
    context = values["context"]
    article = str(values["article"] or context)
    fields = {"question": values["question"], "context": context, "id": id, "article": article}
    if values["answers"] is None and values["impossible"] is None:
        if labelled:
            rejects.add("no_answers", where, f"question {id} says nothing about its answer; [] means that it has none")
            return None
        return Example(fields, None, where)
    impossible = str(values["impossible"]).lower() in _YES
    try:
        texts = [] if impossible else [pair for pair in _answers(values["answers"], values["start"]) if pair[0].strip()]
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        shape = '[{"text": "Rome", "answer_start": 17}]'
        rejects.add("bad_answers", where, f"question {id}: its answers do not look like {shape} ({error})")
        return None
    place = f"{where}, question {id}"
    golds = [_place(context, text, start, place, rejects.tally) for text, start in texts]
    if golds and all(gold.start is None for gold in golds):
        if not labelled:
            return Example(fields, tuple(golds), where)
        shown = golds[0].text if len(golds[0].text) <= 60 else golds[0].text[:59] + "…"
        rejects.add("answer_not_in_context", where, f"question {id}: the answer {shown!r} is not in the context")
        return None
    if absent := sum(gold.start is None for gold in golds):
        rejects.tally.add("one_of_the_answers_not_in_context", place, absent)
    return Example(fields, tuple(golds), where)


def _answers(value: Any, start: Any) -> list[tuple[str, int | None]]:
    """Texts and starts from a text, a list of texts or of `{"text", "answer_start"}`, or one such object of lists."""
    if value is None:
        return []
    if isinstance(value, str):
        return [(value, _number(start))]
    if isinstance(value, Mapping):
        texts, starts = value["text"], value.get("answer_start")
        if isinstance(texts, str):
            return [(texts, _number(starts))]
        starts = [None] * len(texts) if starts is None else starts
        return [(_text(text), _number(one)) for text, one in zip(texts, starts, strict=True)]
    return [
        (_text(item["text"]), _number(item.get("answer_start")))
        if isinstance(item, Mapping)
        else (_text(item), _number(start))
        for item in value
    ]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: Any) -> int | None:
    return None if value is None or value == "" else int(value)


def _place(context: str, text: str, start: int | None, where: str, tally: Tally) -> Gold:
    """Where an answer stands: at `start`, or else at the place nearest to it that holds the same text."""
    bare = text.strip()
    if start is not None and start >= 0 and context.startswith(text, start):
        return Gold(bare, start + text.index(bare))
    places = [found.start() for found in re.finditer(f"(?={re.escape(bare)})", context)]
    if not places:
        return Gold(bare, None)
    if start is not None:
        tally.add("answer_start_mended", where)
        return Gold(bare, min(places, key=lambda place: abs(place - start)))
    if len(places) > 1:
        tally.add("answer_stands_in_several_places", where)
    return Gold(bare, places[0])
