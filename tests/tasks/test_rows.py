"""Tables: every layout in which people keep labelled rows, and what is said about bad ones."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.rows import Table, read_table


def table(path: Path, text: str | bytes, *, skip: bool = False, tally: Tally | None = None) -> Table:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, tally or Tally(), skip_bad_rows=skip)


def cells(found: Table) -> list[list[str]]:
    return [list(row.cells) for row in found.rows]


def test_csv_cells_may_hold_lines_commas_and_quotes(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", 'text,label\n"two\nlines, ""quoted""",x\nplain,y\n')
    assert found.columns == ("text", "label")
    assert cells(found) == [['two\nlines, "quoted"', "x"], ["plain", "y"]]
    assert [row.where.rsplit(":", 1)[1] for row in found.rows] == ["2", "4"]


def test_semicolons_may_part_columns(tmp_path: Path) -> None:
    assert cells(table(tmp_path / "a.csv", "text;label\na, b;x\nc;y\n")) == [["a, b", "x"], ["c", "y"]]


def test_tsv_quotes_are_text_where_they_do_not_wrap_cells(tmp_path: Path) -> None:
    found = table(tmp_path / "a.tsv", 'Quality\t#1 String\t#2 String\n1\t" He said\tShe "said"\n0\tx\ty\n')
    assert cells(found)[0] == ["1", '" He said', 'She "said"']


def test_tsv_quotes_are_taken_off_where_a_spreadsheet_put_them(tmp_path: Path) -> None:
    found = table(tmp_path / "a.tsv", 'text\tlabel\n"one\ntwo\tthree"\tx\n"say ""hi"""\ty\n')
    assert cells(found) == [["one\ntwo\tthree", "x"], ['say "hi"', "y"]]


def test_unusual_line_separators_do_not_cut_rows(tmp_path: Path) -> None:
    assert cells(table(tmp_path / "a.tsv", "text\tlabel\na\u2028b\x85c\tx\nd\ty\n"))[0] == ["a\u2028b\x85c", "x"]


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_crlf_and_byte_order_mark(tmp_path: Path, mark: str) -> None:
    found = table(tmp_path / "a.tsv", f"{mark}text\tlabel\r\na\tx\r\nb\ty\r\n")
    assert found.columns == ("text", "label")
    assert cells(found) == [["a", "x"], ["b", "y"]]


def test_json_lines_arrays_and_objects_one_after_another(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": None, "extra": [1]}]
    for name, text in {
        "lines.jsonl": "\n".join(map(json.dumps, rows)),
        "array.json": json.dumps(rows, indent=1),
        "pretty.json": "\n".join(json.dumps(row, indent=2) for row in rows),
    }.items():
        found = table(tmp_path / name, text)
        assert (found.columns, cells(found)) == (("text", "label"), [["a", "1"], ["b", ""]]), name
    assert cells(table(tmp_path / "lists.json", '[["a", 1],\n["b", 0]]')) == [["a", "1"], ["b", "0"]]


def test_bad_json_names_the_line_and_can_be_skipped(tmp_path: Path) -> None:
    text = '{"text": "a", "label": 1}\n{"text": broken}\n{"text": "b", "label": 0}\n'
    with pytest.raises(DataError, match=r"a\.jsonl:2: this is not JSON"):
        table(tmp_path / "a.jsonl", text)
    tally = Tally()
    assert len(table(tmp_path / "a.jsonl", text, skip=True, tally=tally).rows) == 2
    assert tally.counts == {"invalid_json": 1}


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000])
def test_json_beyond_measure_is_a_bad_row(tmp_path: Path, value: str) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:2: this is not JSON"):
        table(tmp_path / "a.jsonl", f'{{"text": "a", "label": 1}}\n{{"text": "b", "label": {value}}}\n')


def test_lone_surrogates_in_json_are_replaced_and_counted(tmp_path: Path) -> None:
    tally = Tally()
    text = '{"text": "a \\ud83d\\ude00", "label": "y\\udc00"}\n{"text": "b", "label": "n"}\n'
    assert cells(table(tmp_path / "a.jsonl", text, tally=tally)) == [["a 😀", "y\ufffd"], ["b", "n"]]
    assert tally.counts == {"lone_surrogate": 1}


def test_a_text_may_begin_with_a_bracket(tmp_path: Path) -> None:
    found = table(tmp_path / "a.txt", "[SEP] is a token\tgood\n[1] cites it\tbad\nnothing of it\tbad\n")
    assert cells(found)[0] == ["[SEP] is a token", "good"]


def test_two_columns_of_one_name_are_refused_when_that_name_is_meant(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "text,label,label\na,x,y\nb,z,w\n")
    assert found.column("2") == 1
    with pytest.raises(DataError, match=r"columns 2 and 3 are both called 'label'"):
        found.column("label")


def test_json_values_of_one_line_are_told_apart_by_column(tmp_path: Path) -> None:
    found = table(tmp_path / "a.json", '[["甲", 1], ["b", 0],\n ["c", 1], ["d", 0]]')
    assert [row.where.removeprefix(str(tmp_path)) for row in found.rows] == [
        "/a.json:1", "/a.json:1:12", "/a.json:2", "/a.json:2:12",
    ]  # fmt: skip


def test_sentence_at_label(tmp_path: Path) -> None:
    lines = [f"Write to sales@firm{n}.com@{'good' if n % 2 else 'bad'}" for n in range(30)]
    found = table(tmp_path / "a.txt", "\n".join(lines))
    assert found.columns == ("sentence", "label")
    assert cells(found)[1] == ["Write to sales@firm1.com", "good"]
    assert found.rows[1].where.endswith("a.txt:2")


def test_columns_without_a_header_are_numbered(tmp_path: Path) -> None:
    found = table(tmp_path / "a.tsv", "fine weather\tgood\nrain\tbad\nsun\tgood\n")
    assert (found.columns, len(found.rows)) == (("1", "2"), 3)


def test_a_header_of_unknown_words_is_still_a_header(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "Remark,Verdict\nfine weather,good\nrain,bad\n")
    assert (found.columns, len(found.rows)) == (("Remark", "Verdict"), 2)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_are_read_as_they_come(tmp_path: Path, suffix: str) -> None:
    found = table(tmp_path / f"a.csv{suffix}", COMPRESSORS[suffix](b"text,label\na,x\nb,y\n"))
    assert cells(found) == [["a", "x"], ["b", "y"]]


def test_rows_with_missing_columns(tmp_path: Path) -> None:
    text = "text,label,source\na,x,s\nb,y\nc,x,s\nd,x,s,t\n"
    with pytest.raises(
        DataError, match=r"a\.csv:3: 2 columns where 3 are expected \(text, label, source\).*--skip-bad-rows"
    ):
        table(tmp_path / "a.csv", text)
    tally = Tally()
    assert len(table(tmp_path / "a.csv", text, skip=True, tally=tally).rows) == 2
    assert tally.counts == {"too_few_columns": 1, "too_many_columns": 1}
    assert tally.first["too_few_columns"].endswith("a.csv:3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"  \n\n", "the file is empty"),
        ("a.csv", b"PK\x03\x04\0\0text", "binary"),
        ("a.csv.xz", lzma.compress(b"text,label\na,x\n" * 50)[:-20], "cut off"),
        ("a.csv.gz", b"text,label\n", "damaged"),
    ],
)
def test_unusable_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        table(tmp_path / name, content)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv", Tally())
    with pytest.raises(DataError, match="a folder stands there"):
        read_table(tmp_path, Tally())


def test_invalid_utf8_is_counted_with_its_line(tmp_path: Path) -> None:
    tally = Tally()
    table(tmp_path / "a.csv", b"text,label\ngood film,x\nb\xff,y\n", tally=tally)
    assert tally.counts == {"invalid_utf8": 1}
    assert tally.first["invalid_utf8"].endswith("a.csv:3")
