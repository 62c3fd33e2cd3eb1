"""Markdown: its prose. Code, tables, HTML and front matter are left out, links and emphasis keep their words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from bertsmith.core.extras import require
from bertsmith.corpus import layout
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.lines import Line, read_lines
from bertsmith.corpus.parts import in_parts
from bertsmith.corpus.source import Source

_SECTION, _LONGEST = 1 << 18, 1 << 20
_FRONT_MATTER = 200
_LONGEST_LINE = 1 << 16
"""Characters; no one writes such a paragraph, and brackets in it would be matched for minutes."""

_TITLE = re.compile(r"title\s*:\s*(.*?)\s*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]:?")
_LEFT_OUT = {"fence": "markdown_code", "code_block": "markdown_code", "html_block": "markdown_html"}


def read_markdown(source: Source, tally: Tally) -> Iterator[Document]:
    """One document a file; each paragraph, heading and list item is a paragraph.

    The file is parsed in sections of about 256 K characters, cut before a heading, so memory is bounded.

    Args:
        source: where the text comes from.
        tally: counts code, tables and HTML blocks that are left out, and lines too long to be Markdown, taken as text.
    """
    # It comes with rich, but is asked for by name, so that its absence would be said.
    parser = (
        require("markdown_it", f"reading {source.name}").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    )
    lines = read_lines(source, tally)
    title, begun = _front_matter(lines)
    first = next(begun, None)
    if first is None:
        tally.add("empty_file", source.name)
        return
    references: dict[str, Any] = {}
    paragraphs = chain.from_iterable(
        _prose(parser.parse(_FOOTNOTE.sub("", text), references), source.name, number, tally)
        if max(map(len, text.split("\n"))) <= _LONGEST_LINE
        else _unparsed(text, source.name, number, tally)
        for number, text in _sections(chain([first], begun))
    )
    yield from in_parts(paragraphs, source.name, source.name, {"title": title} if title else {})


def _front_matter(lines: Iterator[Line]) -> tuple[str, Iterator[Line]]:
    """The title in the front matter, if there is any, and the lines after it."""
    head: list[Line] = []
    title = ""
    for line in lines:
        head.append(line)
        text = line.text.rstrip()
        if len(head) == 1 and text != "---":
            break
        if len(head) > 1 and text in ("---", "..."):
            return title, lines
        if not title and (match := _TITLE.fullmatch(text)):
            title = match[1].strip("\"'")
        if len(head) > _FRONT_MATTER:
            break
    return "", chain(head, lines)


def _sections(lines: Iterator[Line]) -> Iterator[tuple[int, str]]:
    """Pieces of the file with the number of their first line; a block of code that is cut is opened again."""
    pieces: list[str] = []
    size, begin = 0, 1
    fence = ""
    whole = True
    for line in lines:
        if whole:
            heading = line.text.startswith("#") and not fence
            blank = not line.text.strip() and not fence
            if size > _LONGEST or (size > _SECTION and (heading or (blank and size > 2 * _SECTION))):
                yield begin, "".join(pieces)
                pieces, size = [], 0
        elif size > _LONGEST:
            yield begin, "".join(pieces)
            pieces, size = [], 0
        if not pieces:
            begin = line.number
            if fence:
                pieces.append(fence + "\n")
        pieces.append(line.text + "\n" * line.whole)
        size += len(line.text)
        if whole and (match := _FENCE.fullmatch(line.text)):
            if not fence:
                fence = match[1]
            elif match[1].startswith(fence) and not match[2].strip():
                fence = ""
        whole = line.whole
    if pieces:
        yield begin, "".join(pieces)


def _unparsed(text: str, name: str, begin: int, tally: Tally) -> Iterator[str]:
    tally.add("markdown_line_too_long", f"{name}:{begin}")
    yield text


def _prose(tokens: Sequence[Any], name: str, begin: int, tally: Tally) -> Iterator[str]:
    in_table = False
    for token in tokens:
        if reason := _LEFT_OUT.get(token.type):
            tally.add(reason, f"{name}:{begin + token.map[0]}")
        elif token.type == "table_open":
            in_table = True
            tally.add("markdown_table", f"{name}:{begin + token.map[0]}")
        elif token.type == "table_close":
            in_table = False
        elif token.type == "inline" and not in_table:
            yield _words(token.children)


def _words(tokens: Sequence[Any]) -> str:
    """The words of a paragraph: of pictures and tags nothing stays."""
    pieces: list[str] = []
    for i, token in enumerate(tokens):
        if token.type == "softbreak":
            after = next((other.content for other in tokens[i + 1 :] if other.content), "")
            pieces.append(layout.joint("".join(pieces[-2:]), after, "wrapped").replace("\n", " "))
        elif token.type == "hardbreak":
            pieces.append(" ")
        elif token.type in ("text", "code_inline"):
            pieces.append(token.content)
    return "".join(pieces)
