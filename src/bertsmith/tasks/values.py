"""The JSON values of a file, and what becomes of a row that cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.origins import kind
from bertsmith.tokenizer.load import well_formed

_BRACKET = re.compile(r"\s*(?P<bracket>(?P<object>\{\s*\"|\[\s*\{\s*\")|[\[{])")


class Rejects:
    """What to do with a bad row: an error, or one more in the tally where the user asked for bad rows to be skipped."""

    def __init__(self, tally: Tally, *, skip: bool) -> None:
        """Skipped rows go into `tally`."""
        self.tally, self.skip = tally, skip

    def add(self, reason: str, where: str, message: str) -> None:
        """Count the row at `where`, or raise.

        Raises:
            DataError: bad rows are not to be skipped.
        """
        if not self.skip:
            raise DataError(f"{where}: {message}; fix the row or pass --skip-bad-rows")
        self.tally.add(reason, where)


def is_json(path: Path, text: str) -> bool:
    """Whether a file holds JSON values, going by its name and its beginning; `[` may also begin words and tags, say.

    Args:
        path: names the file.
        text: its content.
    """
    if kind(path) in (".csv", ".tsv") or (begins := _BRACKET.match(text)) is None:
        return False
    if kind(path) in (".json", ".jsonl", ".ndjson") or begins["object"]:
        return True
    try:
        _, end = json.JSONDecoder().raw_decode(text, begins.start("bracket"))
    except (ValueError, RecursionError):
        return False
    return not text[end:].partition("\n")[0].strip(" \t,")


def read_json(path: Path, text: str, rejects: Rejects) -> Iterator[tuple[str, Any]]:
    """Every JSON value of a file with where it starts: one array, one value a line, or values one after another.

    A value is at `file:line`; a further one that starts in the same line is at `file:line:column`.

    Raises:
        DataError: what stands there is not JSON (names file and line).
    """
    decoder = json.JSONDecoder()
    skip_space = re.compile(r"[\s,]*").match if text.lstrip().startswith("[") else re.compile(r"\s*").match
    position, line, counted, line_start, taken = 0, 1, 0, 0, 0
    array, surrogates = text.lstrip().startswith("["), "\\ud" in text or "\\uD" in text
    if array:
        position = text.index("[") + 1
    while True:
        position = skip_space(text, position).end()  # type: ignore[union-attr]
        if newlines := text.count("\n", counted, position):
            line, line_start = line + newlines, text.rindex("\n", counted, position) + 1
        counted = position
        if position >= len(text) or (array and text[position] == "]"):
            return
        where = f"{path}:{line}:{position - line_start + 1}" if line == taken else f"{path}:{line}"
        taken = line
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            rejects.add("invalid_json", where, f"this is not JSON ({reason})")
            following = text.find("\n", position)
            position = following + 1 if following >= 0 else len(text)
            continue
        yield where, _mended(value, where, rejects.tally) if surrogates else value


def _mended(value: Any, where: str, tally: Tally) -> Any:
    """A value without lone surrogates."""
    written = json.dumps(value, ensure_ascii=False)
    if (mended := well_formed(written)) == written:
        return value
    tally.add("lone_surrogate", where)
    return json.loads(mended)
