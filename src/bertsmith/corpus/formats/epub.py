"""EPUB: a book's chapters in reading order.

An EPUB is a ZIP archive of web pages without boilerplate, so the standard library is enough; the one library that is
kept for it, EbookLib, is under the AGPL.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.formats.archive import DAMAGE, Meter
from bertsmith.corpus.formats.html import decode, in_one_line
from bertsmith.corpus.parts import in_parts
from bertsmith.corpus.source import Source

_COPY, _LARGEST = 4 << 30, 16 << 20
_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_LEFT_OUT = frozenset(("head", "script", "style", "table", "pre", "nav", "svg", "math", "rt", "rp"))
_INLINE = {
    *("a", "abbr", "b", "bdi", "bdo", "cite", "code", "del", "dfn", "em", "font", "i", "img", "ins", "kbd", "mark"),
    *("q", "rb", "ruby", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
    *("rt", "rp"),
}


def read_epub(source: Source, tally: Tally) -> Iterator[Document]:
    """One document a chapter (a file of the book's spine), each block of text a paragraph; `title` is the book's.

    Args:
        source: where the book comes from.
        tally: counts chapters that are encrypted, absent, without text or larger than 16 MB.

    Raises:
        DataError: it is no EPUB, or is damaged.
    """
    with source.sought(tally, _COPY) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(info.compress_size for info in archive.infolist())
                yield from _chapters(source, archive, Meter(source.name, size), tally)
        except (*DAMAGE, ElementTree.ParseError, KeyError, OSError) as error:
            raise DataError(f"{source.name}: is no EPUB, or is damaged: {error}; copy it again") from error


def _chapters(source: Source, archive: zipfile.ZipFile, meter: Meter, tally: Tally) -> Iterator[Document]:
    names = set(archive.namelist())
    encrypted = _paths(archive, _ENCRYPTION, "CipherReference", "URI") if _ENCRYPTION in names else []
    (package, *_) = _paths(archive, _CONTAINER, "rootfile", "full-path") or [""]
    book = _xml(archive, package)
    items = {item.get("id"): item.get("href", "") for item in book.iter() if _name(item) == "item"}
    title = next((item.text or "" for item in book.iter() if _name(item) == "title"), "").strip()
    for reference in book.iter():
        if _name(reference) != "itemref":
            continue
        href = unquote(items.get(reference.get("idref"), ""))
        path = posixpath.normpath(posixpath.join(posixpath.dirname(package), href))
        where = f"{source.name}/{path}"
        if path not in names:
            tally.add("epub_chapter_absent", where)
        elif path in encrypted or archive.getinfo(path).flag_bits & 1:
            tally.add("epub_chapter_encrypted", where)
        else:
            with archive.open(path) as file:
                data = file.read(_LARGEST + 1)
            meter.add(len(data))
            if len(data) > _LARGEST:
                tally.add("html_too_large", where)
                continue
            chapter = _Blocks()
            chapter.feed(decode(data, where, tally))
            chapter.close()
            empty = True
            for document in in_parts(chapter.paragraphs(), where, source.name, {"title": title} if title else {}):
                empty = False
                yield document
            if empty:
                tally.add("epub_chapter_without_text", where)


def _paths(archive: zipfile.ZipFile, name: str, tag: str, attribute: str) -> list[str]:
    return [unquote(found.get(attribute, "")) for found in _xml(archive, name).iter() if _name(found) == tag]


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    with archive.open(name) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise zipfile.BadZipFile(f"{name} is larger than {_LARGEST >> 20} MB")
    return ElementTree.fromstring(data)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


class _Blocks(HTMLParser):
    """Gathers the text between block elements; every element that is not known to be inline is one."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[str] = []
        self._piece: list[str] = []
        self._left_out: list[str] = []

    def paragraphs(self) -> list[str]:
        self._end()
        return self._found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _LEFT_OUT:
            self._left_out.append(tag)
        if tag not in _INLINE:
            self._end()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _INLINE:
            self._end()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._left_out:
            del self._left_out[self._left_out.index(tag) :]
        if tag not in _INLINE:
            self._end()

    def handle_data(self, data: str) -> None:
        if not self._left_out:
            self._piece.append(data)

    def _end(self) -> None:
        if text := " ".join(in_one_line("".join(self._piece)).split()):
            self._found.append(text)
        self._piece = []
