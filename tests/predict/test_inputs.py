"""What to predict on, as it arrives."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.predict.inputs import from_file, from_stream
from bertsmith.tasks.base import Example
from bertsmith.tasks.classification import ClassificationConfig


class Arriving(io.RawIOBase):
    """A stream whose bytes come in pieces, and that knows how many were taken."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts, self.taken = iter(parts), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = next(self.parts, b"")
        self.taken += bool(part)
        buffer[: len(part)] = part
        return len(part)


def test_lines_are_handed_on_before_the_stream_ends() -> None:
    raw = Arriving([b"one\ntw", b"o\nthr", b"ee"])
    chunks = from_stream(io.BufferedReader(raw), Tally(), paired=False)
    assert (next(chunks), raw.taken) == (["one"], 1)
    assert (next(chunks), raw.taken) == (["two"], 2)
    assert list(chunks) == [["three"]]


def test_empty_lines_are_counted_and_pairs_are_parted_by_a_tab() -> None:
    tally = Tally()
    stream = io.BufferedReader(io.BytesIO("\ufeffa\tb\r\n\n上\t海\n".encode()))  # type: ignore[arg-type]
    assert [item for chunk in from_stream(stream, tally, paired=True) for item in chunk] == [("a", "b"), ("上", "海")]
    assert (tally.counts, tally.first) == ({"empty_line": 1}, {"empty_line": "standard input:2"})


@pytest.mark.parametrize(("line", "tabs"), [(b"a b\n", 0), (b"a\tb\tc\n", 2)])
def test_a_line_that_is_no_pair_is_named(line: bytes, tabs: int) -> None:
    stream = io.BufferedReader(io.BytesIO(b"x\ty\n" + line))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"standard input:2: .* there are {tabs} tabs"):
        list(from_stream(stream, Tally(), paired=True))


def test_the_lines_before_one_that_cannot_be_used_come_first() -> None:
    raw = Arriving([b"a\tb\nc\td\n", b"e\tf\n\nbad\ng\th\n"])
    chunks = from_stream(io.BufferedReader(raw), Tally(), paired=True)
    assert (next(chunks), next(chunks)) == ([("a", "b"), ("c", "d")], [("e", "f")])
    with pytest.raises(DataError, match="standard input:5"):
        next(chunks)


def flat(chunks: Iterator[list[object]]) -> list[object]:
    return [item for chunk in chunks for item in chunk]


def test_files_of_lines_and_of_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\n\ntwo, too"))
    (tmp_path / "a.csv").write_text('id,text\n1,one\n2,"two, too"\n')
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two, too"}\n')
    for name in ("a.txt.gz", "a.csv", "a.jsonl"):
        assert flat(from_file(tmp_path / name, Tally(), paired=False)) == ["one", "two, too"]  # type: ignore[arg-type]


def test_the_columns_that_the_task_knows_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,own,other\na,b,c\nd,e,f\n")
    config = ClassificationConfig(text_column="own", pair_column="other")
    assert flat(from_file(tmp_path / "a.csv", Tally(), paired=True, config=config)) == [("b", "c"), ("e", "f")]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no such file"):
        list(from_file(tmp_path / "none.txt", Tally(), paired=False))


def test_bytes_that_are_no_text_are_counted_with_their_line() -> None:
    tally = Tally()
    stream = io.BufferedReader(io.BytesIO(b"good\n\xff\xfe bad\nlast \xff"))
    lines = [item for chunk in from_stream(stream, tally, paired=False) for item in chunk]
    assert len(lines) == 3
    assert tally.counts["invalid_utf8"] == 2
    assert tally.first["invalid_utf8"] == "standard input:2"


def test_a_line_may_hold_a_text_and_its_choices() -> None:
    stream = io.BufferedReader(Arriving([b"where?\tparis\tlondon\n", "谁？\t他\t她\t我".encode()]))
    found = [item for chunk in from_stream(stream, Tally(), paired=False, several=True) for item in chunk]
    assert found == [("where?", "paris", "london"), ("谁？", "他", "她", "我")]


def test_a_file_of_lines_may_hold_texts_and_their_choices(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("where?\tparis\tlondon\nwho?\the\tshe\tit\n")

    def read(path: Path, tally: Tally) -> list[Example]:
        raise AssertionError("lines have no columns")

    found = flat(from_file(tmp_path / "a.txt", Tally(), paired=False, several=True, read=read))  # type: ignore[arg-type]
    assert found == [("where?", "paris", "london"), ("who?", "he", "she", "it")]
