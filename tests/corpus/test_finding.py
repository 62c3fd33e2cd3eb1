"""Finding files: links, folders that may not be entered, and files that change under the reader's eyes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.source import standard_input


def test_loops_of_links_are_counted_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    tally = Tally()
    assert [document.text for document in read([str(tmp_path)], tally)] == ["text"]
    assert tally.counts == {"link_without_file": 1, "linked_folder_not_followed": 1}
    with pytest.raises(DataError, match=r"loop\.txt: is a link that leads nowhere, or in a circle"):
        read([str(tmp_path / "loop.txt")], Tally())


def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    tally = Tally()
    assert len(list(read([str(tmp_path)], tally))) == 1
    assert tally.first == {"folder_not_readable": str(tmp_path / "locked")}
    with pytest.raises(DataError, match=r"locked: no text file in this folder \(.*folder_not_readable: 1"):
        read([str(tmp_path / "locked")], Tally())


def test_a_path_below_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(DataError, match=r"a\.txt: may not look at .*a\.txt; check the permissions of its folder"):
        read([str(tmp_path / "a.txt")], Tally())


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"a\.txt: cannot be read: Permission denied; check its permissions"):
        list(read([str(tmp_path)], Tally()))


def test_a_file_that_vanishes_between_listing_and_reading(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("text")
    documents = read([str(tmp_path)], Tally())
    (tmp_path / "b.txt").unlink()
    assert next(documents).text == "text"
    with pytest.raises(DataError, match=r"b\.txt: is no longer there"):
        next(documents)


def test_a_file_that_grows_is_read_to_the_end_that_it_had(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old words here.\n\n" * 40_000)
    tally = Tally()
    documents: Iterator[Any] = read([str(path)], tally)
    next(documents)
    with path.open("a") as file:
        file.write("new words here.\n\n" * 10)
    assert sum(1 for _ in documents) == 39_999
    assert tally.counts == {"file_changed_while_read": 1}


@pytest.mark.parametrize("name", ["-", "-#body"])
def test_standard_input_can_be_read_again(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data = b'{"body": "text"}' if "#" in name else "潮水。\n\n明天见。\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    standard_input.cache_clear()
    for _ in range(2):
        documents = list(read([name], Tally()))
        assert [document.text for document in documents] == (["text"] if "#" in name else ["潮水。", "明天见。"])
    assert documents[0].id == "standard input:1"
    standard_input.cache_clear()


def test_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    standard_input.cache_clear()
    with pytest.raises(DataError, match="standard input is a terminal; pipe text into it"):
        read(["-"], Tally())


def test_many_tiny_files(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.txt").write_text(f"file {number}")
    assert sum(1 for _ in read([str(tmp_path)], Tally())) == 3000
