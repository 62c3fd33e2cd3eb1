"""How often the entries of a list of words occur in a text, in time that does not grow with the list."""

from __future__ import annotations

import re
from pathlib import Path

from bertsmith.core.errors import DataError
from bertsmith.corpus.sentences import CJK

_WIDE = re.compile(f"[{CJK}]")
_WORD = re.compile(rf"[^\W_{CJK}]+")


class WordList:
    """Entries of a file, one a line; blank lines and lines that begin with `#` are none.

    An entry with Han characters, kana or hangul is found wherever it stands; any other one as whole words, whatever
    their case.

    Args:
        path: the file, UTF-8.

    Raises:
        DataError: it cannot be read, or has no entry.
    """

    def __init__(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise DataError(f"{path}: cannot read this word list ({error.strerror}); check the path") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: this word list is not UTF-8; save it as UTF-8") from error
        self._wide: dict[int, set[str]] = {}
        self._words: dict[int, set[tuple[str, ...]]] = {}
        for line in lines:
            entry = line.strip().lower()
            if not entry or entry.startswith("#"):
                continue
            if _WIDE.search(entry):
                self._wide.setdefault(len(entry), set()).add(entry)
            elif words := tuple(_WORD.findall(entry)):
                self._words.setdefault(len(words), set()).add(words)
        if not self._wide and not self._words:
            raise DataError(f"{path}: this word list has no entry; write one a line")

    def hits(self, text: str) -> int:
        """How often entries occur in a `text`."""
        text = text.lower()
        count = 0
        if self._words:
            words = _WORD.findall(text)
            for length, entries in self._words.items():
                shifted = [words[place:] for place in range(length)]
                count += sum(map(entries.__contains__, zip(*shifted, strict=False)))
        if self._wide and _WIDE.search(text):
            for length, wide in self._wide.items():
                count += sum(text[place : place + length] in wide for place in range(len(text) - length + 1))
        return count
