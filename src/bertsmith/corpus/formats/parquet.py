"""Parquet: one document a row, its text in a column; read in batches by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.core.extras import require
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.fields import cell_documents, choose_columns
from bertsmith.corpus.source import Source

_COPY = 64 << 30
_ROWS, _BUFFER = 256, 1 << 20


def read_parquet(source: Source, tally: Tally) -> Iterator[Document]:
    """The column that the user named, else `text`, `content` or `body`; `id` and `title` as in other tables.

    Args:
        source: where the table comes from.
        tally: counts rows without text.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: no such column, one that holds no text, or a damaged file.
    """
    pyarrow = require("pyarrow", f"reading {source.name}")
    from pyarrow import parquet

    with source.sought(tally, _COPY) as file:
        try:
            # Without the buffer a whole column of a row group would be held.
            table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)
            names = table.schema_arrow.names
            text, title = choose_columns(names, source)
            kind = table.schema_arrow.field(text).type
            if not _is_text(kind, pyarrow.types):
                raise DataError(f"{source.name}: column '{names[text]}' holds {kind}, not text; name another one")
            roles = {"text": names[text], "title": None if title is None else names[title]}
            roles["id"] = "id" if "id" in names and "id" not in roles.values() else None
            batches = table.iter_batches(batch_size=_ROWS, columns=[name for name in roles.values() if name])
            rows = (row for batch in batches for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                cells = {role: row[name] for role, name in roles.items() if name and row[name] is not None}
                yield from _row(cells, f"{source.name}:{number}", source, tally)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{source.name}: is no Parquet file, or is damaged: {error}; copy it again") from error


def _row(cells: dict[str, Any], where: str, source: Source, tally: Tally) -> Iterator[Document]:
    if not cells.get("text", "").strip():
        tally.add("empty_text", where)
        return
    meta = {"title": str(cells["title"])} if "title" in cells else {}
    yield from cell_documents(cells["text"], str(cells.get("id", where)), source, meta)


def _is_text(kind: Any, types: Any) -> bool:
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
