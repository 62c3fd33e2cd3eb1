"""A long document in consecutive parts, so that memory stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from bertsmith.corpus.document import Document

PART = 1_000_000
"""Characters; a longer document is yielded in consecutive parts."""


class Parts:
    """Gathers the text of one document and gives it back in parts of at most PART characters."""

    def __init__(self, id: str, source: str, meta: Mapping[str, str]) -> None:
        self.id, self._source, self._meta = id, source, meta
        self._pieces: deque[str] = deque()
        self._size = self._count = 0

    def add(self, text: str) -> Iterator[Document]:
        """Append `text`; yields the parts that are full."""
        self._pieces.append(text)
        self._size += len(text)
        if self._size > PART:
            whole = "".join(self._pieces)
            begin = 0
            while len(whole) - begin > PART:
                cut = _boundary(whole, begin + PART)
                yield from self._document(whole[begin:cut])
                begin = cut
            self._pieces = deque([whole[begin:]])
            self._size = len(whole) - begin

    def end(self) -> Iterator[Document]:
        """The last part, if there is any text in it."""
        yield from self._document("".join(self._pieces))

    def _document(self, text: str) -> Iterator[Document]:
        if text := text.strip():
            self._count += 1
            yield Document(text, self.id if self._count == 1 else f"{self.id}#{self._count}", self._source, self._meta)


def in_parts(paragraphs: Iterable[str], id: str, source: str, meta: Mapping[str, str]) -> Iterator[Document]:
    """One document made of paragraphs, in parts where it is long.

    Args:
        paragraphs: without blank lines in them; those without any text are left out.
        id: the document's identifier.
        source: the file.
        meta: what is known about it.
    """
    parts = Parts(id, source, meta)
    begun = False
    for paragraph in paragraphs:
        if text := paragraph.strip():
            if begun:
                yield from parts.add("\n\n")
            yield from parts.add(text)
            begun = True
    yield from parts.end()


def _boundary(text: str, limit: int) -> int:
    """The best place to cut at or before `limit`: a paragraph's end, a sentence's end, whitespace, anywhere."""
    low = limit - PART // 10
    for marks in (("\n\n",), ("\n",), (". ", "! ", "? ", "。", "！", "？"), (" ",)):
        cut = max(text.rfind(mark, low, limit) + len(mark) for mark in marks)
        if cut > low:
            return cut
    return limit
