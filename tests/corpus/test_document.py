"""The tally keeps counts and the first place of each reason."""

from __future__ import annotations

from bertsmith.corpus.document import Tally


def test_summary_names_the_first_place_and_puts_the_most_frequent_first() -> None:
    tally = Tally()
    tally.add("empty_file", "a.txt")
    tally.add("invalid_utf8", "b.txt:3", 1200)
    tally.add("invalid_utf8", "b.txt:9")
    assert tally.summary() == "invalid_utf8: 1,201 (first: b.txt:3)\nempty_file: 1 (first: a.txt)"
    assert tally.counts == {"empty_file": 1, "invalid_utf8": 1201}


def test_what_is_wrong_with_bytes_is_counted_by_file() -> None:
    tally = Tally()
    for where in ("a.txt:3", "b.txt:1", "b.txt:7"):
        tally.add("invalid_utf8", where)
    assert tally.files == {"invalid_utf8": {"a.txt": 1, "b.txt": 2}}
    assert tally.summary() == "invalid_utf8: 3 (first: a.txt:3; by file b.txt: 2, a.txt: 1)"


def test_nothing_noticed_is_an_empty_summary() -> None:
    assert Tally().summary() == ""
