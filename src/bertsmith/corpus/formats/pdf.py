"""PDF: the text that its pages hold, by pypdf; scanned pages hold none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.core.extras import require
from bertsmith.corpus import layout
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.parts import in_parts
from bertsmith.corpus.source import Source

_COPY = 4 << 30
_DIGITS = re.compile(r"[\divxlcIVXLC]+")
_STOP = re.compile(r"[.!?:…。！？：][\"'”’»)\]」』）]*$")
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u00ad\u2010]$")


def read_pdf(source: Source, tally: Tally) -> Iterator[Document]:
    """One document a file. Lines and the words divided at their ends are joined again; page numbers are left out.

    Args:
        source: where the file comes from.
        tally: counts encrypted files, pages that cannot be read or hold no text, and running titles that are left out.

    Raises:
        ConfigError: pypdf is not installed.
        DataError: it is no PDF, or is damaged.
    """
    pypdf = require("pypdf", f"reading {source.name}")
    with source.sought(tally, _COPY) as file:
        try:
            reader = pypdf.PdfReader(file)
            if reader.is_encrypted and not _opened(reader, pypdf.errors):
                tally.add("pdf_encrypted", source.name)
                return
            title = str((reader.metadata or {}).get("/Title") or "").strip()
            pages = len(reader.pages)
        except (pypdf.errors.PyPdfError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{source.name}: is no PDF, or is damaged: {error}; copy it again") from error
        lines = _lines(reader, pages, source.name, tally)
        yield from in_parts(_paragraphs(lines), source.name, source.name, {"title": title} if title else {})


def _opened(reader: Any, errors: Any) -> bool:
    try:
        return bool(reader.decrypt(""))
    except (errors.PyPdfError, NotImplementedError):
        return False


def _lines(reader: Any, pages: int, name: str, tally: Tally) -> Iterator[list[str]]:
    """The lines of each page, without page numbers and without the running titles that the page before had, too."""
    edges: set[str] = set()
    for number in range(pages):
        where = f"{name}, page {number + 1}"
        try:
            text = reader.pages[number].extract_text()
        except Exception:  # a damaged page makes the library fail in any way; the others can be read
            tally.add("pdf_page_unreadable", where)
            continue
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if not lines:
            tally.add("pdf_page_without_text", where)
            continue
        before, edges = edges, {_DIGITS.sub("", line) for line in (lines[0], lines[-1])}
        for i in (-1, 0):
            if lines and _DIGITS.sub("", lines[i]) in before | {""}:
                tally.add("pdf_running_title", where)
                del lines[i]
        if lines:
            yield lines


def _paragraphs(pages: Iterator[list[str]]) -> Iterator[str]:
    """A line that ends a sentence well before the margin ends a paragraph; pages alone do not."""
    text = ""
    for lines in pages:
        width = sorted(map(len, lines))[len(lines) * 9 // 10]
        for line in lines:
            if not text:
                text = line
            elif _HYPHEN.search(text) and line[:1].islower():
                text = text[:-1] + line
            else:
                text += layout.joint(text[-2:], line, "wrapped").replace("\n", " ") + line
            if (_STOP.search(line) and len(line) < 0.85 * width) or len(text) > 20_000:
                yield text
                text = ""
    if text:
        yield text
