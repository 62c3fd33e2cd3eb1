"""Parquet: the right column, rows without text counted, and clear words about what does not fit."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.readers import read

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def _write(path: Path, columns: dict[str, list[Any]], **options: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def _read(name: Path | str, tally: Tally | None = None) -> list[Document]:
    return list(read([str(name)], tally or Tally()))


def test_text_title_and_id(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.parquet",
        {"id": [7, None, 9], "n": [1, 2, 3], "Title": ["T", None, "x"], "text": ["one", "二", None]},
    )
    tally = Tally()
    one, two = _read(path, tally)
    assert (one.id, one.text, one.meta) == ("7", "one", {"title": "T"})
    assert (two.id, two.text, two.meta) == (f"{path}:2", "二", {})
    assert tally.first == {"empty_text": f"{path}:3"}


def test_many_row_groups_and_a_named_column(tmp_path: Path) -> None:
    rows = [f"row {n}" for n in range(2000)]
    values = {"review": pyarrow.array(rows).dictionary_encode(), "text": [0] * 2000}
    path = _write(tmp_path / "a.parquet", values, row_group_size=300)
    assert [document.text for document in _read(f"{path}#review")] == rows


def test_columns_that_are_not_there_or_hold_no_text(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", {"a": [1], "b": ["x"]})
    with pytest.raises(DataError, match=r"a\.parquet: no column is called text, content, body; the columns are a, b"):
        _read(path)
    with pytest.raises(DataError, match=r"a\.parquet: there is no column 'c'; the columns are a, b"):
        _read(f"{path}#c")
    with pytest.raises(DataError, match=r"a\.parquet: column 'a' holds int64, not text"):
        _read(f"{path}#a")


def test_in_an_archive_and_compressed(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", {"text": ["one"]})
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.write(path, "x/a.parquet")
    (tmp_path / "c.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [document.id for document in _read(tmp_path)] == [
        f"{tmp_path}/{name}:1" for name in ("a.parquet", "b.zip/x/a.parquet", "c.parquet.gz")
    ]


def test_damage_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", {"text": ["one" * 1000]})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet: is no Parquet file, or is damaged"):
        _read(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.parquet", {"text": ["one"]})
    monkeypatch.setattr("bertsmith.corpus.readers.present", lambda module: False)
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    with pytest.raises(ConfigError, match=r"reading .*a\.parquet needs the package pyarrow.*bertsmith\[parquet\]"):
        read([str(path)], Tally())
