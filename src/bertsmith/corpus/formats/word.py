"""Word (.docx): its paragraphs, by python-docx."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.core.extras import require
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.parts import in_parts
from bertsmith.corpus.source import Source

_COPY, _LARGEST = 1 << 30, 256 << 20
"""Bytes; the library holds the whole file, pictures too, unpacked."""


def read_word(source: Source, tally: Tally) -> Iterator[Document]:
    """One document a file; tables of contents and tables are left out.

    Args:
        source: where the file comes from.
        tally: counts tables that are left out, files without text and files that unpack to more than 256 MB.

    Raises:
        ConfigError: python-docx is not installed.
        DataError: it is no Word file, or is damaged.
    """
    docx = require("docx", f"reading {source.name}")
    with source.sought(tally, _COPY) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(info.file_size for info in archive.infolist()) > _LARGEST:
                    tally.add("word_too_large", source.name)
                    return
            file.seek(0)
            document = docx.Document(file)
            title = str(document.core_properties.title or "").strip()
            paragraphs = list(_prose(document, source.name, tally))
        except Exception as error:  # the library believes what a file says of itself, and fails in as many ways
            raise DataError(f"{source.name}: is no Word file, or is damaged: {error}; copy it again") from error
        empty = True
        for found in in_parts(paragraphs, source.name, source.name, {"title": title} if title else {}):
            empty = False
            yield found
        if empty:
            tally.add("word_without_text", source.name)


def _prose(document: Any, name: str, tally: Tally) -> Iterator[str]:
    for block in document.iter_inner_content():
        if hasattr(block, "rows"):
            tally.add("word_table", name)
        elif not str(block.style.name if block.style is not None else "").lower().startswith("toc "):
            # A break within a paragraph is typed on purpose, unlike the end of a line.
            yield from (" ".join(line.split()) for line in block.text.split("\n"))
