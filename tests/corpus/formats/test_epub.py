"""EPUB: chapters in the order of the spine, and chapters that cannot be read counted."""

from __future__ import annotations

import random
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.formats import epub
from bertsmith.corpus.readers import read

CONTAINER = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
BOOK = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>The Sea</dc:title></metadata>
<manifest><item id="two" href="two.xhtml"/><item id="one" href="text/one%20a.xhtml"/><item id="gone" href="gone.xhtml"/>
<item id="cover" href="cover.xhtml"/><item id="locked" href="locked.xhtml"/></manifest>
<spine><itemref idref="cover"/><itemref idref="one"/><itemref idref="two"/><itemref idref="gone"/>
<itemref idref="locked"/></spine></package>"""
ONE = """<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title>
<style>p {}</style></head><body><h1>One</h1><p>The <em>tide</em> rose
before&nbsp;noon.<br/>It stayed.</p><table><tr><td>1</td></tr></table><script>x()</script>
<div>A <ruby>潮<rp>(</rp><rt>cháo</rt><rp>)</rp></ruby> word.</div></body></html>"""
LOCK = """<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<EncryptedData><CipherData><CipherReference URI="OEBPS/locked.xhtml"/></CipherData></EncryptedData></encryption>"""
FILES = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": CONTAINER,
    "META-INF/encryption.xml": LOCK,
    "OEBPS/book.opf": BOOK,
    "OEBPS/text/one a.xhtml": ONE,
    "OEBPS/two.xhtml": "<html><body><p>Two.</p><p>潮水涨了，\n  淹没了台阶。</p></body></html>",
    "OEBPS/cover.xhtml": "<html><body><img src='x'/></body></html>",
    "OEBPS/locked.xhtml": "x",
}


def _read(path: Path, files: dict[str, str], tally: Tally) -> list[Document]:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return list(read([str(path)], tally))


def test_chapters_in_reading_order(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    tally = Tally()
    one, two = _read(path, FILES, tally)
    assert one.text.split("\n\n") == ["One", "The tide rose before noon.", "It stayed.", "A 潮 word."]
    assert (one.id, one.source, one.meta) == (f"{path}/OEBPS/text/one a.xhtml", str(path), {"title": "The Sea"})
    assert two.text == "Two.\n\n潮水涨了，淹没了台阶。"
    assert tally.counts == {
        "epub_chapter_without_text": 1,
        "epub_chapter_absent": 1,
        "epub_chapter_encrypted": 1,
    }


def test_no_damage_is_more_than_an_error_in_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    whole, chance, read_all = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        with suppress(DataError):
            list(read([str(path)], Tally()))
            read_all += 1
    assert 0 < read_all < 400


def test_a_chapter_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epub, "_LARGEST", 1000)
    tally = Tally()
    assert [
        document.text for document in _read(tmp_path / "a.epub", {**FILES, "OEBPS/text/one a.xhtml": "x" * 1001}, tally)
    ] == ["Two.\n\n潮水涨了，淹没了台阶。"]
    assert tally.counts["html_too_large"] == 1
    monkeypatch.setattr(epub, "_LARGEST", 100)
    with pytest.raises(DataError, match=r"a\.epub: is no EPUB, or is damaged: .*larger than"):
        _read(tmp_path / "a.epub", FILES, tally)


@pytest.mark.parametrize("missing", ["META-INF/container.xml", "OEBPS/book.opf", ""])
def test_what_is_no_epub(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "a.epub"
    with pytest.raises(DataError, match=r"a\.epub: is no EPUB, or is damaged"):
        if missing:
            _read(path, {name: text for name, text in FILES.items() if name != missing}, Tally())
        path.write_bytes(b"PK")
        list(read([str(path)], Tally()))
