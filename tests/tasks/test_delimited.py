"""What parts columns, whether there is a header, and quotation marks that nobody closes: recognised, or told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.choices import read_choices
from bertsmith.tasks.classification import Classification, ClassificationConfig
from bertsmith.tasks.columns import choose_columns
from bertsmith.tasks.parallel import read_parallel
from bertsmith.tasks.rows import Table, read_table
from bertsmith.tasks.squad import read_questions
from bertsmith.tokenizer.load import Tokenizer


def table(
    path: Path, text: str, *, skip: bool = False, tally: Tally | None = None, named: tuple[str, ...] = ()
) -> Table:
    path.write_text(text, encoding="utf-8")
    return read_table(path, tally or Tally(), skip_bad_rows=skip, named=named)


def cells(found: Table) -> list[list[str]]:
    return [list(row.cells) for row in found.rows]


@pytest.mark.parametrize(
    ("name", "text", "parted"),
    [
        ("a.csv", "text;label\na, b, and c;x\nd;y\n", "semicolons"),
        ("a.csv", "text|label\na, b, and c|x\nd; e|y\n", "bars"),
        ("a.txt", "text|label\na, b, and c|x\nd; e|y\n", "bars"),
        ("a.csv", "text\tlabel\na, b\tx\nd\ty\n", "tabs"),
        ("a.tsv", "text|label\na|x\nd|y\n", "bars"),
        ("a.tsv", "text,label\na,x\nd,y\n", None),
        ("a.csv", 'text,label\n"a; b | c",x\nd; e,y\n', None),
        ("a.tsv", "text\tlabel\na; b\tx\nd; e\ty\n", None),
    ],
)
def test_what_parts_columns_is_worked_out_and_said(tmp_path: Path, name: str, text: str, parted: str | None) -> None:
    tally = Tally()
    found = table(tmp_path / name, text, tally=tally)
    assert found.columns == ("text", "label")
    assert [row[1] for row in cells(found)] == ["x", "y"]
    assert found.told == (f"columns are parted by {parted}" if parted else "")
    assert not tally.counts


def test_a_single_column_of_sentences_is_not_cut_at_its_commas(tmp_path: Path) -> None:
    found = table(tmp_path / "a.tsv", "text\nOne, two.\nThree.\nFour, five, six.\n")
    assert cells(found) == [["One, two."], ["Three."], ["Four, five, six."]]


def test_a_file_without_a_header_is_said_and_its_columns_go_by_number(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    tally, said = Tally(), list[str]()
    path = tmp_path / "a.csv"
    path.write_text("good film,pos,1\nbad film,neg,2\nboring film,neg,3\ngreat film,pos,4\n")
    config = ClassificationConfig(text_column="1", label_column="2")
    found = Classification(toy_tokenizer, config, say=said.append).rows(path, tally)
    assert [(example.fields["text"], example.label) for example in found][:2] == [
        ("good film", "pos"),
        ("bad film", "neg"),
    ]
    assert said == [f"{path}: there is no header row, so columns are called by their numbers, from 1"]
    assert not tally.counts
    with pytest.raises(DataError, match="columns are counted from 1; the first is '1', or 1"):
        Classification(toy_tokenizer, ClassificationConfig(text_column="0", label_column="2")).rows(path, Tally())


def test_numbers_reach_the_columns_of_a_file_with_a_header_too(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "text,label\na,x\nb,y\n", named=("1", "2"))
    assert found.headed
    assert [found.column("1"), found.column("label")] == [0, 1]


def test_a_number_that_the_user_gave_is_no_header_because_a_cell_holds_it(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "1,good film\n0,bad film\n1,great film\n", named=("1", "2"))
    assert not found.headed
    assert len(found.rows) == 3


def test_a_header_of_counted_columns_is_a_header(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "0,1\ngood film,pos\nbad film,neg\n")
    assert (found.columns, len(found.rows)) == (("0", "1"), 2)
    assert found.column("0") == 0
    found = table(tmp_path / "b.csv", ",0,1\n0,good film,pos\n1,bad film,neg\n")
    assert (found.columns, len(found.rows)) == (("", "0", "1"), 2)


def test_a_header_may_leave_out_the_name_of_an_index(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", ",remark,verdict\n0,fine weather,good\n1,rain,bad\n")
    assert (found.columns, len(found.rows)) == (("", "remark", "verdict"), 2)


def test_a_mistyped_column_gets_a_suggestion(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "Review,Label\na,x\nb,y\n")
    with pytest.raises(DataError, match=r"no column 'labl'; did you mean 'Label'\? the columns are Review, Label"):
        choose_columns(found, label="labl")
    with pytest.raises(DataError, match="no column 'zzz'; the columns are"):
        choose_columns(found, label="zzz")


def test_one_column_where_two_are_needed_names_the_separators(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "text^label\na^x\nb^y\n")
    with pytest.raises(DataError, match=r"only one column was found \(text\^label\).*parted by , ; \| or a tab"):
        choose_columns(found)


@pytest.mark.parametrize(
    ("text", "row", "opened", "rest"),
    [
        ('text,label\na,x\n"b,y\nc,x\nd,y\n', 3, 3, ["a", "c", "d"]),
        ('text,label\na,x\n"b,y', 3, 3, ["a"]),
        ('text,label\na,x\n"b\nb",y\n"c,x\n"d",y\n', 5, 5, ["a", "b\nb", "d"]),
        ('text,note,label\na,n,x\nb,"n\nn",y\nc,"n,x\nd,"n",y\n', 5, 5, ["a", "b", "d"]),
    ],
)
def test_a_quotation_mark_left_open_is_told_with_its_line(
    tmp_path: Path, text: str, row: int, opened: int, rest: list[str]
) -> None:
    with pytest.raises(
        DataError, match=rf'a\.csv:{row}: the quotation mark \("\) that opens a cell in line {opened} is'
    ):
        table(tmp_path / "a.csv", text)
    tally = Tally()
    kept = [row[0] for row in cells(table(tmp_path / "a.csv", text, skip=True, tally=tally))]
    assert kept == rest
    assert tally.counts == {"quotation_mark_left_open": 1}


def test_a_row_of_several_lines_that_does_not_fit_says_where_its_cell_began(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:3: 1 columns where 2 .*opens a cell in line 3 is closed in line 5"):
        table(tmp_path / "a.csv", 'text,label\na,x\n"b,y\nc,x\nd"\ne,y\n')


def test_quotation_marks_that_belong_to_the_text_stay(tmp_path: Path) -> None:
    found = table(
        tmp_path / "a.csv", 'text,label\nHe said "no",x\n"She" said no,y\nthe end: 5" wide,x\n"no" she said,y\n'
    )
    assert [row[0] for row in cells(found)] == ['He said "no"', "She said no", 'the end: 5" wide', "no she said"]


def test_blank_lines_and_empty_rows_are_counted_but_not_inside_cells(tmp_path: Path) -> None:
    for name, text, expected in (
        ("a.csv", 'text,label\n\n"a\n\nb",x\n \n,\nc,y\n\n', {"blank_line": 3, "empty_row": 1}),
        ("a.tsv", "text\tlabel\n\na\tx\n\t\nc\ty\n", {"blank_line": 2}),
        ("a.jsonl", '{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}\n', {"blank_line": 1}),
        ("a.txt", "a film@x\n\nb film@y\nc film@x\nd film@y\n", {"blank_line": 1}),
    ):
        tally = Tally()
        assert len(table(tmp_path / name, text, tally=tally).rows) in (2, 4)
        assert tally.counts == expected, name


def test_a_cell_may_be_longer_than_the_csv_module_expects(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", f'text,label\n"{"long " * 40_000}",x\nb,y\n')
    assert len(cells(found)[0][0]) == 200_000


def test_every_reader_suggests_the_column_that_is_meant(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("query,passage,reply\nwho?,it is anna,anna\n", encoding="utf-8")
    objects = tmp_path / "a.jsonl"
    objects.write_text('{"source": "a", "target": "b"}\n', encoding="utf-8")
    several: dict[str, str | None] = {"question": "query", "context": "passage", "answers": "repyl"}
    with pytest.raises(DataError, match="no column 'repyl'; did you mean 'reply'"):
        read_questions(table, Tally(), columns=several, labelled=True)
    with pytest.raises(DataError, match="no column 'qury'; did you mean 'query'"):
        read_choices(table, Tally(), named={"question": "qury"}, choices=("passage", "reply"), labelled=False)
    asked: dict[str, Any] = {"target": "targt", "parallel": None, "max_turns": 1, "labelled": True}
    with pytest.raises(DataError, match="no column 'targt'; did you mean 'target'"):
        read_parallel(objects, Tally(), source=None, **asked)
