"""What the documents of a token store are called, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

NAMES, SOURCES = "documents.names", "documents.sources"


@dataclass
class SourceCounts:
    """How much of a store comes from one file.

    Attributes:
        name: the file as it was named, or `pydoc:`.
        documents: stored ones.
        sentences: of them.
        tokens: of them.
        characters: of the sentences.
    """

    name: str
    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    characters: int = 0


@dataclass(frozen=True)
class Name:
    """What a stored document is called.

    Attributes:
        id: the document's own identifier, or its place in the source.
        source: the file that it comes from.
    """

    id: str
    source: str


_line = json.JSONEncoder(separators=(",", ":")).encode


class Names:
    """Gathers names while a store is written; holds one entry a source."""

    def __init__(self) -> None:
        self._counts: dict[str, SourceCounts] = {}
        self._numbers: dict[str, int] = {}

    def add(self, id: str, source: str, sentences: int, tokens: int, characters: int) -> bytes:
        """Count a document.

        Args:
            id: of the one that is stored next.
            source: where it comes from.
            sentences: stored of it.
            tokens: of them.
            characters: of them.

        Returns:
            Its line of `documents.names`: the number of its source, and its id; without the source's name at its
            beginning when it begins so, else as a third element.
        """
        number = self._numbers.setdefault(source, len(self._numbers))
        counts = self._counts.setdefault(source, SourceCounts(source))
        counts.documents += 1
        counts.sentences += sentences
        counts.tokens += tokens
        counts.characters += characters
        line = [number, id.removeprefix(source)] if id.startswith(source) else [number, "", id]
        return _line(line).encode() + b"\n"

    def sources(self) -> bytes:
        """The content of `documents.sources`, in the order in which the sources were met."""
        return b"".join(json.dumps(asdict(counts)).encode() + b"\n" for counts in self._counts.values())


def read_sources(store: Path) -> list[SourceCounts]:
    """How much of a store comes from which source, in the order of reading; empty where that was not noted.

    Args:
        store: its folder.
    """
    if not (store / SOURCES).exists():
        return []
    with open(store / SOURCES, encoding="utf-8") as lines:
        return [SourceCounts(**json.loads(line)) for line in lines]


def read_names(store: Path) -> Iterator[Name]:
    """The name of each document, in the store's order; nothing where names were not noted.

    Args:
        store: its folder.
    """
    if not (store / NAMES).exists():
        return
    sources = [counts.name for counts in read_sources(store)]
    with open(store / NAMES, encoding="utf-8") as lines:
        for line in lines:
            number, rest, *own = json.loads(line)
            yield Name(own[0] if own else sources[number] + rest, sources[number])
