"""JSON lines: one object a line, its text in a field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.fields import cell_documents
from bertsmith.corpus.lines import Line, read_lines
from bertsmith.corpus.source import Source

_JSON_LIMIT = 1 << 29
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)


def read_jsonl(source: Source, tally: Tally) -> Iterator[Document]:
    """One document a line; see `read_rows`.

    Args:
        source: where the text comes from.
        tally: counts what is skipped or mended.
    """
    lines = read_lines(source, tally)
    first = next(lines, None)
    if first is None:
        if source.part is None:
            tally.add("empty_file", source.name)
    else:
        yield from read_rows(source, chain([first], lines), tally)


def read_rows(source: Source, lines: Iterable[Line], tally: Tally) -> Iterator[Document]:
    """One JSON object a line, its text in `text` or in the field that the user named.

    Args:
        source: where the lines come from.
        lines: all of them.
        tally: counts rows without text, and mended characters.

    Raises:
        DataError: a line is no JSON object with that field; names file and line.
    """
    pieces: list[str] = []
    size = 0
    for line in lines:
        pieces.append(line.text)
        size += len(line.text)
        where = f"{source.name}:{line.number}"
        if size > _JSON_LIMIT:
            raise DataError(f"{where}: a line of more than {_JSON_LIMIT >> 20} MB; JSON lines hold one object a line")
        if not line.whole:
            continue
        row, size = "".join(pieces), 0
        pieces.clear()
        if row.strip():
            yield from _read_row(row, where, source, tally)


def _read_row(row: str, where: str, source: Source, tally: Tally) -> Iterator[Document]:
    field = source.columns[0] if source.columns else "text"
    try:
        value: Any = json.loads(row)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{where}: not valid JSON: {reason}; mend or delete the line") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON {type(value).__name__}; each line must be an object with a field '{field}'")
    if field not in value:
        fields = ", ".join(sorted(value)) or "none"
        raise DataError(
            f"{where}: no field '{field}'; the fields there are: {fields}; rename the one that holds the text, "
            f"or name it: '{source.name}#FIELD'"
        )
    if value[field] is None:
        value[field] = ""
    if not isinstance(value[field], str):
        raise DataError(f"{where}: '{field}' is {json.dumps(value[field])[:40]}, not a string; mend or delete the line")
    if "\\ud" in row or "\\uD" in row:
        value = {key: _mend(item, where, tally) for key, item in value.items()}
    text = value.pop(field)
    if not text.strip():
        tally.add("empty_text", where)
        return
    meta = {key: str(item) for key, item in value.items() if key != "id" and isinstance(item, str | int | float)}
    if len(source.columns) > 1 and source.columns[1] in meta:
        meta["title"] = meta.pop(source.columns[1])
    text = _BREAK.sub("\n", text) if "<" in text else text
    yield from cell_documents(text, str(where if value.get("id") is None else value["id"]), source, meta)


def _mend(item: Any, where: str, tally: Tally) -> Any:
    if isinstance(item, str):
        joined = item.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if joined != item:
            tally.add("lone_surrogate", where)
        return joined
    return item
