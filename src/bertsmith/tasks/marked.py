"""Texts with two marked stretches and how these are related: SemEval-2010 task 8, JSON objects, pairs of names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.annotations import HAN, Span
from bertsmith.tasks.base import Example
from bertsmith.tasks.rows import read_text
from bertsmith.tasks.values import Rejects, is_json, read_json

FIRST = ("first", "subject", "subj", "head", "h", "e1")
SECOND = ("second", "object", "obj", "tail", "t", "e2")
LABELS = ("relation", "label", "type")
_SENTENCE = re.compile(r'\d+\s+"(.*)"$|\d+\t(.*)$')
_TAG = re.compile(r"</?e[12]>")


def read_marked(path: Path, tally: Tally, *, labelled: bool, skip_bad_rows: bool = False) -> list[Example]:
    """Read a file of any of the forms.

    An example's fields are `text`, and `first` and `second`, each a `Span` of the text whose type may be empty; its
    label is the relation.

    Args:
        path: SemEval's text, or JSON: objects with `text` (or `token`, a list of words), two stretches and `relation`,
            or lists of two names, relation and text, as FinRE has them.
        tally: counts what is skipped or guessed.
        labelled: whether a relation is needed.
        skip_bad_rows: count rows that cannot be used instead of stopping at the first.

    Raises:
        DataError: names file and line.
    """
    rejects = Rejects(tally, skip=skip_bad_rows)
    text = read_text(path, tally)
    rows = _json(path, text, rejects) if is_json(path, text) else _semeval(path, text, rejects)
    examples = []
    for where, fields, label in rows:
        if not labelled:
            examples.append(Example(fields, where=where))
        elif isinstance(label, str) and label.strip():
            examples.append(Example(fields, label.strip(), where))
        else:
            rejects.add("no_label", where, "there is no relation; its field is called one of " + ", ".join(LABELS))
    if not examples:
        raise DataError(
            f"{path}: no usable row is left; {tally.summary() or 'none has <e1>…</e1> and <e2>…</e2> in it'}"
        )
    return examples


def parse_marks(text: str) -> Mapping[str, Any] | None:
    """`The <e1>cat</e1> sat on the <e2>mat</e2>` as fields of an example; None unless both are marked, once each."""
    if sorted(_TAG.findall(text)) != ["</e1>", "</e2>", "<e1>", "<e2>"]:
        return None
    places, plain, at = {}, "", 0
    for tag in _TAG.finditer(text):
        plain += text[at : tag.start()]
        places[tag[0]], at = len(plain), tag.end()
    plain += text[at:]
    spans = [Span(places[f"<e{n}>"], places[f"</e{n}>"], "") for n in (1, 2)]
    if any(span.start >= span.end for span in spans):
        return None
    return {"text": plain, "first": spans[0], "second": spans[1]}


def _semeval(path: Path, text: str, rejects: Rejects) -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not _TAG.search(line) or line.startswith("Comment:"):
            continue
        where, found = f"{path}:{number}", _SENTENCE.match(line.strip())
        fields = parse_marks((found[1] or found[2]) if found else line.strip())
        if fields is None:
            message = "mark two stretches, once each: The <e1>cat</e1> sat on the <e2>mat</e2>"
            rejects.add("not_marked", where, message)
            continue
        label = lines[number].strip() if number < len(lines) else ""
        yield where, fields, None if _TAG.search(label) else label


def _json(path: Path, text: str, rejects: Rejects) -> Iterator[tuple[str, Mapping[str, Any], str | None]]:
    for where, value in read_json(path, text, rejects):
        try:
            yield where, *_row(value, where, rejects.tally)
        except LookupError as error:
            rejects.add("entity_not_in_text", where, str(error.args[0]))
        except (TypeError, ValueError, OverflowError) as error:
            shape = '{"text": …, "first": [0, 4], "second": [9, 14], "relation": …}'
            rejects.add("bad_entities", where, f"a row looks like {shape} ({error})")


def _row(value: Any, where: str, tally: Tally) -> tuple[Mapping[str, Any], str | None]:
    if isinstance(value, list):
        first, second, label, text = value
        return {
            "text": text,
            "first": _named(text, first, where, tally),
            "second": _named(text, second, where, tally),
        }, label
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is no row")
    label = next((value[name] for name in LABELS if isinstance(value.get(name), str)), None)
    words: list[tuple[int, int]] | None = None
    text = value.get("text", value.get("sentence"))
    if not isinstance(text, str):
        text, words = _joined(value["token"] if "token" in value else value["tokens"])
    elif (marked := parse_marks(text)) is not None:
        return marked, label
    fields: dict[str, Any] = {"text": text}
    for role, names in (("first", FIRST), ("second", SECOND)):
        fields[role] = _span(value, names, text, words, where, tally)
    return fields, label


def _joined(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    text, offsets = "", []
    for word in words:
        text += " " if text and not (HAN.match(word) or HAN.match(text[-1])) else ""
        offsets.append((len(text), len(text) + len(word)))
        text += word
    return text, offsets


def _span(
    value: Mapping[str, Any],
    names: Sequence[str],
    text: str,
    words: Sequence[tuple[int, int]] | None,
    where: str,
    tally: Tally,
) -> Span:
    """One of the two: `[start, end]`, an object with `start` and `end`, `pos` or `name`; or TACRED's three fields."""
    for name in names:
        kind = str(value.get(f"{name}_type") or "")
        if f"{name}_start" in value and words is not None:
            first, last = int(value[f"{name}_start"]), int(value[f"{name}_end"])
            if not 0 <= first <= last < len(words):
                raise LookupError(
                    f"{name} goes from word {first} to {last}, and words are counted 0 to {len(words) - 1}"
                )
            return Span(words[first][0], words[last][1], kind)
        found = value.get(name)
        if isinstance(found, str):
            return _named(text, found, where, tally)
        if isinstance(found, Mapping):
            kind = str(found.get("type") or "")
            if "pos" not in found and "start" not in found:
                return _named(text, found["name"], where, tally, kind)
            found = found["pos"] if "pos" in found else [found["start"], found["end"]]
        if found is None:
            continue
        start, end = (int(place) for place in found[:2])
        if words is not None:
            start, end = words[start][0], words[end - 1][1]
        if not 0 <= start < end <= len(text):
            raise LookupError(f"the stretch {start} to {end} lies outside the text, which has {len(text)} characters")
        return Span(start, end, kind)
    raise TypeError(f"none of the fields {', '.join(names)} is there")


def _named(text: str, name: str, where: str, tally: Tally, kind: str = "") -> Span:
    start = text.find(name) if name else -1
    if start < 0:
        raise LookupError(f"{name!r} is not in the text")
    if text.find(name, start + 1) >= 0:
        tally.add("entity_stands_in_several_places", where)
    return Span(start, start + len(name), kind)
