"""PDF and Word: lines and paragraphs as they were meant, and files that hold no text counted or named."""

from __future__ import annotations

import random
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.formats import word
from bertsmith.corpus.readers import read

pypdf = pytest.importorskip("pypdf")
docx = pytest.importorskip("docx")

PAGES = [
    [
        "A book about the sea 1",
        "The tide rose before noon and covered the lower steps of the har-",
        "bour. Nobody had told the fishermen about the change, so three of",
        "the boats were still there.",
        "A clock needs a steady beat, and its pendulum gives one. When the",
    ],
    ["A book about the sea 2", "rod grows warm it grows longer.", "17"],
    [],
]


def _pdf(path: Path, pages: list[list[str]]) -> Path:
    """A PDF written by hand: each page one stream of lines in Helvetica."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for lines in pages:
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream = f"BT /F1 12 Tf 50 700 Td {shown} ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {len(objects)} 0 R >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    data = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    data += (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    ).encode()
    path.write_bytes(data)
    return path


def _read(path: Path, tally: Tally | None = None) -> list[Document]:
    return list(read([str(path)], tally or Tally()))


def test_lines_of_a_pdf_are_joined_across_pages(tmp_path: Path) -> None:
    tally = Tally()
    (document,) = _read(_pdf(tmp_path / "a.pdf", PAGES), tally)
    assert document.text.split("\n\n") == [
        "A book about the sea 1 The tide rose before noon and covered the lower steps of the harbour. Nobody had told "
        "the fishermen about the change, so three of the boats were still there.",
        "A clock needs a steady beat, and its pendulum gives one. When the rod grows warm it grows longer.",
    ]
    assert tally.counts == {"pdf_running_title": 2, "pdf_page_without_text": 1}
    assert tally.first["pdf_running_title"] == f"{tmp_path / 'a.pdf'}, page 2"


def test_encrypted_and_damaged_pdfs(tmp_path: Path) -> None:
    path = _pdf(tmp_path / "a.pdf", PAGES)
    writer = pypdf.PdfWriter(clone_from=str(path))
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(str(path))
    with pytest.raises(DataError, match="no text in 1 file; pdf_encrypted: 1"):
        _read(path)
    path.write_bytes(b"no pdf at all")
    with pytest.raises(DataError, match=r"a\.pdf: is no PDF, or is damaged"):
        _read(path)


def _docx(path: Path, *paragraphs: str) -> Any:
    document = docx.Document()
    document.core_properties.title = "The sea"
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    document.add_table(1, 1).cell(0, 0).text = "in a table"
    document.save(str(path))


def test_the_paragraphs_of_a_word_file(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    _docx(path, "The tide  rose.", "", "潮水上涨。\n又退了。")
    tally = Tally()
    (document,) = _read(path, tally)
    assert (document.text, document.meta) == ("The tide rose.\n\n潮水上涨。\n\n又退了。", {"title": "The sea"})
    assert tally.counts == {"word_table": 1}


def test_word_files_without_text_too_large_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.docx"
    _docx(path)
    with pytest.raises(DataError, match="no text in 1 file; (.*\n)?word_without_text: 1"):
        _read(path)
    monkeypatch.setattr(word, "_LARGEST", 100)
    with pytest.raises(DataError, match="no text in 1 file; word_too_large: 1"):
        _read(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"a\.docx: is no Word file, or is damaged"):
        _read(path)


@pytest.mark.parametrize("name", ["a.pdf", "a.docx"])
def test_without_the_libraries_the_extra_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).touch()
    monkeypatch.setattr("bertsmith.corpus.readers.present", lambda module: False)
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    with pytest.raises(ConfigError, match=rf"reading .*{name} needs the package .*bertsmith\[office\]"):
        read([str(tmp_path)], Tally())


def test_no_damage_of_a_word_file_is_more_than_an_error_in_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    document = docx.Document()
    document.add_paragraph("The tide rose before noon.")
    document.save(path)
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(3):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        with suppress(DataError):
            _read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    with pytest.raises(DataError, match=r"a\.docx: is no Word file, or is damaged"):
        _read(path)
