"""CSV and TSV: the right column, quoted line breaks, and clear words about what does not fit."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.readers import read


def _read(path: Path, data: str, columns: str = "", tally: Tally | None = None) -> list[Document]:
    path.write_bytes(data.encode())
    return list(read([f"{path}{columns}"], tally or Tally()))


def test_text_title_and_id_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    data = 'Title,id,TEXT,stars\nTide,t-1,"It rose, then fell.\n\nTwice.",4\n,,"Said ""no"".",1\n'
    tide, said = _read(path, data)
    assert (tide.id, tide.text, tide.meta) == ("t-1", "It rose, then fell.\n\nTwice.", {"title": "Tide"})
    assert (said.id, said.text, said.source) == (f"{path}:5", 'Said "no".', str(path))


@pytest.mark.parametrize("columns", ["#review", "#review,headline"])
def test_columns_that_the_user_names(tmp_path: Path, columns: str) -> None:
    (document,) = _read(tmp_path / "a.csv", "headline;review;body\nFine;Good value.;x\n", columns)
    assert (document.text, document.meta) == ("Good value.", {"title": "Fine"} if "," in columns else {})


def test_a_named_column_reaches_every_table_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("review\none\n")
    (tmp_path / "b.jsonl").write_text('{"review": "two", "text": "x"}\n')
    assert [document.text for document in read([f"{tmp_path}#review"], Tally())] == ["one", "two"]


def test_a_file_whose_name_has_the_mark_in_it(tmp_path: Path) -> None:
    assert [document.text for document in _read(tmp_path / "c#.csv", "text\none\n")] == ["one"]


def test_a_table_without_such_a_column_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"a\.csv: no column is called text, content, body; the columns are a, b; .*a\.csv#COLUMN"
    ):
        _read(tmp_path / "a.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match=r"a\.csv: there is no column 'c'; the columns are a, b"):
        _read(tmp_path / "a.csv", "a,b\n1,2\n", "#c")


def test_tabs_and_the_two_meanings_of_quotation_marks(tmp_path: Path) -> None:
    text = 'id\ttext\n1\t"Stay," he said.\n2\t"Never\n'
    assert [document.text for document in _read(tmp_path / "a.tsv", text)] == ['"Stay," he said.', '"Never']
    wrapped = 'id\ttext\n1\t"Two\n\nlines ""here""."\n'
    assert [document.text for document in _read(tmp_path / "b.tsv", wrapped)] == ['Two\n\nlines "here".']


def test_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    tally = Tally()
    documents = _read(tmp_path / "a.csv", "\nn,text\n1,one\n\n2\n3, \n4,four,more\n", tally=tally)
    assert [document.text for document in documents] == ["one", "four"]
    assert tally.counts == {"row_of_another_width": 2, "empty_text": 2}
    assert tally.first["empty_text"] == f"{tmp_path / 'a.csv'}:5"


def test_a_quotation_mark_left_open_names_its_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:3: .*; is a quotation mark left open in the row\?"):
        _read(tmp_path / "a.csv", 'text,n\nfine,1\n"open,2\nthree,3\n')


def test_chinese_columns_a_mark_and_compression(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("标题,内容\r\n潮水,中午涨潮。\r\n".encode("utf-8-sig")))
    (document,) = read([str(path)], Tally())
    assert (document.text, document.meta) == ("中午涨潮。", {"title": "潮水"})


def test_a_cell_longer_than_a_chunk(tmp_path: Path) -> None:
    (document,) = _read(tmp_path / "a.csv", f"text\n{'word ' * 150_000}\n")
    assert len(document.text) == 749_999


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.corpus.formats.delimited._LONGEST", 1 << 20)
    with pytest.raises(DataError, match=r"a\.csv:2: a line of more than 1 MB; is this a table\?"):
        _read(tmp_path / "a.csv", "text\n" + "x" * (3 << 20))


def test_an_empty_table_is_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text in 1 file; empty_file: 1"):
        _read(tmp_path / "a.csv", "\n")
