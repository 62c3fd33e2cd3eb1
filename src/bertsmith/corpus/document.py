"""A Document, the unit of raw text, and the Tally of what was noticed on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

_BY_FILE = ("invalid_", "read_as_", "nul_bytes")
_MOST_FILES, _SHOWN_FILES = 1000, 10
_LINE = re.compile(r":\d+$")


@dataclass(frozen=True, slots=True)
class Document:
    """One piece of raw text, with where it came from.

    Attributes:
        text: paragraphs separated by a blank line; with `meta["layout"] == "sentences"`, one sentence a line.
        id: the source's own identifier where there is one, else `path:line`; the later parts of a long document end in
            `#2`, `#3`, ...
        source: the file, or `pydoc:`.
        meta: what the source says about it, such as `title` and `url`.
    """

    text: str
    id: str
    source: str
    meta: Mapping[str, str] = field(default_factory=dict)


class Tally:
    """Counts of everything skipped or repaired, by reason, each with the place where it was first seen.

    Attributes:
        counts: how often, by reason.
        first: where for the first time, by reason.
        files: how often in which file, for what is wrong with bytes; of the first thousand files.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}
        self.files: dict[str, dict[str, int]] = {}

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Count `reason` (a snake_case name) `count` more times; `where` is kept if it is the first."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first.setdefault(reason, where)
        if reason.startswith(_BY_FILE):
            files = self.files.setdefault(reason, {})
            file = _LINE.sub("", where)
            if file in files or len(files) < _MOST_FILES:
                files[file] = files.get(file, 0) + count

    @property
    def total(self) -> int:
        """How much was counted, of everything."""
        return sum(self.counts.values())

    def merge(self, other: Tally) -> None:
        """Count what was noticed elsewhere, later than everything here: `other`."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            self.first.setdefault(reason, other.first[reason])
        for reason, files in other.files.items():
            mine = self.files.setdefault(reason, {})
            for file, count in files.items():
                if file in mine or len(mine) < _MOST_FILES:
                    mine[file] = mine.get(file, 0) + count

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {"counts": self.counts, "first": self.first, "files": self.files}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` wrote.

        Args:
            values: as read.
        """
        tally = cls()
        tally.counts, tally.first, tally.files = values["counts"], values["first"], values["files"]
        return tally

    def summary(self) -> str:
        """One line a reason, the most frequent first; empty when nothing was noticed."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join(
            f"{reason}: {count:,} (first: {self.first[reason]}{self._by_file(reason)})" for reason, count in ordered
        )

    def _by_file(self, reason: str) -> str:
        files = sorted(self.files.get(reason, {}).items(), key=lambda item: (-item[1], item[0]))
        if len(files) < 2:
            return ""
        shown = ", ".join(f"{file}: {count:,}" for file, count in files[:_SHOWN_FILES])
        return f"; by file {shown}" + (", …" if len(files) > _SHOWN_FILES else "")
