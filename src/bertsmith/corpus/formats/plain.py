"""Plain text, and the WikiExtractor output that looks like it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from bertsmith.corpus import layout
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.formats.jsonl import read_rows
from bertsmith.corpus.lines import Line, read_lines
from bertsmith.corpus.parts import Parts
from bertsmith.corpus.source import Source

_SNIFF_CHARACTERS = 1 << 16
_OPEN = re.compile(r"<doc (.*)>\s*")
_ATTRIBUTE = re.compile(r"(\w+)=\"(.*?)\"(?=\s+\w+=\"|\s*$)")


def read_plain(source: Source, tally: Tally) -> Iterator[Document]:
    """Text whose layout is judged from its beginning; without a suffix it may also be JSON lines.

    Args:
        source: where the text comes from.
        tally: counts what is skipped or mended.
    """
    lines = read_lines(source, tally)
    head: list[Line] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line.text)
        if len(head) >= layout.SAMPLE or size >= _SNIFF_CHARACTERS:
            break
    first = next((line.text for line in head if line.text.strip()), None)
    if first is None and not size:
        tally.add("empty_file", source.name)
        return
    stream = chain(head, lines)
    opening = (first or "").lstrip()
    if source.kind == "" and opening.startswith("{"):
        yield from read_rows(source, stream, tally)
    elif opening.startswith("<doc "):
        yield from _read_wiki(source.name, stream, tally)
    else:
        yield from _read_text(source.name, stream, layout.detect([line.text for line in head]))


def _read_text(name: str, lines: Iterable[Line], shape: layout.Layout) -> Iterator[Document]:
    """Blank lines separate documents."""
    meta = {"layout": "sentences"} if shape == "sentences" else {}
    parts: Parts | None = None
    last, whole = "", True
    for line in lines:
        if whole and not line.text.strip():
            if parts:
                yield from parts.end()
            parts = None
            whole = line.whole
            continue
        if parts is None:
            parts = Parts(f"{name}:{line.number}", name, meta)
        elif whole:
            yield from parts.add(layout.joint(last, line.text, shape))
        yield from parts.add(line.text)
        last, whole = line.text, line.whole
    if parts:
        yield from parts.end()


def _read_wiki(name: str, lines: Iterable[Line], tally: Tally) -> Iterator[Document]:
    """`<doc id="1" url="..." title="...">` blocks, a paragraph a line; the first repeats the title and is left out."""
    parts: Parts | None = None
    last, title, whole = "", "", True
    for line in lines:
        text = line.text
        if whole and text.startswith("<doc ") and (match := _OPEN.fullmatch(text)):
            if parts:
                tally.add("doc_without_end", parts.id)
                yield from parts.end()
            meta = dict(_ATTRIBUTE.findall(match.group(1)))
            parts = Parts(meta.pop("id", f"{name}:{line.number}"), name, meta)
            last, title = "", meta.get("title", "").strip()
        elif whole and text.strip() == "</doc>":
            if parts:
                yield from parts.end()
            parts = None
        elif parts is None:
            if text.strip():
                tally.add("text_outside_doc", f"{name}:{line.number}")
        elif not whole or text.strip():
            if title and line.whole and not last and text.strip() == title:
                title = ""
            else:
                if whole and last:
                    yield from parts.add(layout.joint(last, text, "paragraphs"))
                yield from parts.add(text)
                last = text
        whole = line.whole
    if parts:
        tally.add("doc_without_end", parts.id)
        yield from parts.end()
