"""Rows with named fields: which of them holds the text, and a row's document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bertsmith.core.errors import DataError
from bertsmith.corpus import layout
from bertsmith.corpus.document import Document
from bertsmith.corpus.parts import Parts
from bertsmith.corpus.source import Source

TEXT_NAMES = ("text", "content", "body", "文本", "内容", "正文")
"""Columns taken as the text when none is named, the first that there is; capitals do not matter."""
TITLE_NAMES = ("title", "标题")


def choose_columns(columns: Sequence[str], source: Source) -> tuple[int, int | None]:
    """Where the column of the text stands, and that of the title if there is one.

    Args:
        columns: the names there are.
        source: knows the names that the user gave.

    Raises:
        DataError: there is no such column; lists those there are.
    """
    if source.columns:
        text, *title = (_position(columns, name, source) for name in source.columns[:2])
        return text, title[0] if title else None
    plain = [column.strip().lower() for column in columns]
    titles = [plain.index(name) for name in TITLE_NAMES if name in plain]
    for name in TEXT_NAMES:
        if name in plain:
            return plain.index(name), titles[0] if titles else None
    given = source.name if source.path or "://" in source.name else "INPUT"  # a member of an archive has no name there
    raise DataError(
        f"{source.name}: no column is called {', '.join(TEXT_NAMES[:3])}; the columns are {_listed(columns)}; "
        f"name the one that holds the text: '{given}#COLUMN', or with titles: '{given}#COLUMN,TITLE'"
    )


def _position(columns: Sequence[str], name: str, source: Source) -> int:
    if name in columns:
        return columns.index(name)
    raise DataError(f"{source.name}: there is no column '{name}'; the columns are {_listed(columns)}")


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(column[:40] for column in columns[:30])
    return f"{shown} and {len(columns) - 30} more" if len(columns) > 30 else shown


def cell_documents(text: str, id: str, source: Source, meta: Mapping[str, str]) -> Iterator[Document]:
    """The document that one field holds, in parts where it is long; its single newlines are judged.

    Args:
        text: what the field holds.
        id: the document's identifier.
        source: where the row comes from.
        meta: what else the row says.
    """
    parts = Parts(id, source.name, meta)
    yield from parts.add(layout.paragraphs(text))
    yield from parts.end()
