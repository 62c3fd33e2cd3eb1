"""HTML: the main text of a page by trafilatura, without navigation, comments, tables and code."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from bertsmith.core.extras import require
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.encodings import UTF8, guess
from bertsmith.corpus.parts import in_parts
from bertsmith.corpus.source import Source

_LARGEST = 4 << 20
"""Bytes; a page is read whole, for its main text is known only when all of it is, and takes about 5 s for each MB."""

_DECLARED = re.compile(rb"charset\s*=\s*[\"']?([\w.:-]+)|<\?xml[^>]*encoding=[\"']([\w.:-]+)", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
# A newline in a page is a space, and between Chinese characters nothing; trafilatura would begin a paragraph there.
_WIDE_BREAK = re.compile("(?<=[\u2e80-\u9fff\uff00-\uffef])[ \t]*[\r\n]\\s*(?=[\u2e80-\u9fff\uff00-\uffef])")
_BREAK = re.compile(r"(?<![ \t])[ \t]*[\r\n]\s*")
# Bullets, and the sign of a link to the heading that it stands behind.
_MARKS = re.compile(r"^[ \t]*(?:- )+|(?<![ \t])[ \t]*[¶§]$", re.MULTILINE)


def read_html(source: Source, tally: Tally) -> Iterator[Document]:
    """One document a page, each block of text a paragraph; `title` and `url` as the page states them.

    Args:
        source: where the page comes from.
        tally: counts pages without a main text, too large ones, and encodings that are not UTF-8.

    Raises:
        ConfigError: trafilatura is not installed.
    """
    trafilatura = require("trafilatura", f"reading {source.name}")
    data = source.whole(tally, _LARGEST)
    if data is None:
        tally.add("html_too_large", source.name)
        return
    if not data.strip():
        tally.add("empty_file", source.name)
        return
    page = trafilatura.bare_extraction(
        # lxml refuses text that says in which bytes it once was.
        in_one_line(_XML_DECLARATION.sub("", decode(data, source.name, tally), count=1)),
        include_comments=False,
        include_tables=False,
        prune_xpath=["//pre"],
        with_metadata=True,
    )
    if page is None or not (page.text or "").strip():
        tally.add("html_without_text", source.name)
        return
    meta = {name: _MARKS.sub("", str(value)) for name in ("title", "url") if (value := getattr(page, name))}
    yield from in_parts(_MARKS.sub("", page.text).split("\n"), source.name, source.name, meta)


def in_one_line(page: str) -> str:
    """HTML, or text from it, in which a line break is what it is in a page: a space, nothing between wide characters.

    Args:
        page: any part of one.
    """
    return _BREAK.sub(" ", _WIDE_BREAK.sub("", page))


def decode(data: bytes, name: str, tally: Tally) -> str:
    """The text of a page: in the encoding that its bytes show, else in the one that it states.

    Bytes come first, for pages that state the wrong encoding are many. What fits neither is read as UTF-8.

    Args:
        data: the whole page.
        name: what the page is called.
        tally: counts pages that are not UTF-8, and invalid bytes.
    """
    found = guess(data)
    if found is None:
        declared = _DECLARED.search(data[:4096])
        try:
            label = (declared[1] or declared[2]).decode() if declared else "utf-8"
            text = data.decode(codecs.lookup(label).name)
        except (LookupError, UnicodeDecodeError):
            found = UTF8
        else:
            tally.add(f"read_as_{codecs.lookup(label).name.replace('-', '')}", f"{name}, as it states")
            return text
    if found is not UTF8:
        tally.add(f"read_as_{found.label}", f"{name}, confidence {found.confidence:.1%}")
    try:
        return data.decode(found.codec)
    except UnicodeDecodeError:
        tally.add(f"invalid_{found.label}", name)
        return data.decode(found.codec, errors="replace")
