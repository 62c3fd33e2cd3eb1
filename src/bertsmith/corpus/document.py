"""A Document, the unit of raw text, and the Tally of what was noticed on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    """Counts of everything skipped or repaired, by reason, each with the place where it was first seen."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Count `reason` (a snake_case name) `count` more times; `where` is kept if it is the first."""
        self.counts[reason] = self.counts.get(reason, 0) + count
        self.first.setdefault(reason, where)

    def summary(self) -> str:
        """One line a reason, the most frequent first; empty when nothing was noticed."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join(f"{reason}: {count:,} (first: {self.first[reason]})" for reason, count in ordered)
