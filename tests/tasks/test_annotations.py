"""Marked spans: the layouts in which they come, tags and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.annotations import Annotated, Span, read_annotated, spans_to_tags, tags_to_spans
from bertsmith.tasks.values import Rejects


def read(text: str, *, skip: bool = False, tally: Tally | None = None) -> list[Annotated]:
    return read_annotated(Path("f.txt"), text, Rejects(tally or Tally(), skip=skip))


def surfaces(row: Annotated) -> list[tuple[str, str]]:
    return [(row.text[span.start : span.end], span.type) for span in row.spans]


def test_words_may_begin_with_a_bracket() -> None:
    for text in ("[ O\n1 O\n] O\nMara B-PER\n", "{ O\n} O\nMara B-PER\n", "[1] O\nMara B-PER\n"):
        (row,) = read(text)
        assert surfaces(row) == [("Mara", "PER")]


def test_spans_by_type_as_lists() -> None:
    (row,) = read('{"text": "Ivo flew to Oslo.", "entities": {"PER": [[0, 3]], "LOC": [[12, 16]]}}')
    assert surfaces(row) == [("Ivo", "PER"), ("Oslo", "LOC")]
    for wrong in ('{"PER": ["Ivo"]}', '{"PER": 3}', '[[0, Infinity, "PER"]]'):
        with pytest.raises(DataError, match=r"f\.txt:1: entities does not hold spans"):
            read(f'{{"text": "Ivo flew.", "entities": {wrong}}}')


def test_conll_of_two_and_four_columns() -> None:
    four = "-DOCSTART- -X- -X- O\n\nAnna NNP I-NP B-PER\nBerg NNP I-NP I-PER\nruns VB I-VP O\n\nParis NNP I-NP B-LOC\n"
    two = "Anna\tB-PER\nBerg\tI-PER\nruns\tO\n\nParis\tB-LOC"
    for text, first in ((four, 3), (two, 1)):
        one, other = read(text)
        assert one.text == "Anna Berg runs"
        assert surfaces(one) == [("Anna Berg", "PER")]
        assert one.words == ((0, 4), (5, 9), (10, 14))
        assert one.where == f"f.txt:{first}"
        assert surfaces(other) == [("Paris", "LOC")]


def test_iob1_is_converted_and_counted() -> None:
    tally = Tally()
    (row,) = read("Anna I-PER\nBert B-PER\nin O\nParis I-LOC\nRome I-ORG\n", tally=tally)
    assert surfaces(row) == [("Anna", "PER"), ("Bert", "PER"), ("Paris", "LOC"), ("Rome", "ORG")]
    assert tally.counts == {"inside_tag_read_as_beginning": 3}


def test_bioes_is_read_too() -> None:
    (row,) = read("Anna B-PER\nMaria I-PER\nBerg E-PER\nRome S-LOC\nOslo S-LOC\n")
    assert surfaces(row) == [("Anna Maria Berg", "PER"), ("Rome", "LOC"), ("Oslo", "LOC")]


def test_chinese_characters_are_joined_without_spaces() -> None:
    (row,) = read("我 O\n在 O\n北 B-LOC\n京 I-LOC\nIBM B-ORG\n用 O\nPC O\nnow O\n")
    assert row.text == "我在北京IBM用PC now"
    assert surfaces(row) == [("北京", "LOC"), ("IBM", "ORG")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Anna NNP B-PER\nBerg I-PER\n", r"f\.txt:2: 2 columns where 3 columns are expected"),
        ("Anna\nBerg\n", r"f\.txt:1: 1 columns where a word and a tag are expected"),
        ("Anna NNP\n", r"f\.txt:1: 'NNP' is not a tag such as O, B-LOC or I-LOC"),
        ("-DOCSTART- O\n\n", "there is no tagged sentence"),
        ('{"text": "ab", "spans": [[0, 5, "X"]]}', r"f\.txt:1: the span 0 to 5 lies outside the text"),
        ('{"text": "ab", "spans": [[1, 1, "X"]]}', r"f\.txt:1: the span 1 to 1 lies outside the text, or is empty"),
        ('{"text": "ab", "spans": [["0", "b", "X"]]}', r"f\.txt:1: spans does not hold spans"),
        ('{"text": "ab", "spans": [[0, 1, 7]]}', r"f\.txt:1: spans does not hold spans"),
        ('\n{"txt": "ab"}', r"f\.txt:2: there is no field 'text' \(found: txt\)"),
        ('{"text": "ab", "tags": []}', r"f\.txt:1: there is none of the fields spans, entities, label, labels"),
    ],
)
def test_bad_input_names_file_and_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(text)


def test_bad_lines_can_be_skipped_and_are_counted() -> None:
    tally = Tally()
    (row,) = read("Anna NNP B-PER\nBerg I-PER\nOslo NNP B-LOC\n", skip=True, tally=tally)
    assert row.text == "Anna Oslo"
    assert tally.counts == {"wrong_columns": 1}


@pytest.mark.parametrize(
    "spans",
    [
        '"spans": [[0, 4, "PER"], [8, 13, "LOC"]]',
        '"label": [[8, 14, "LOC"], [0, 4, "PER"]]',
        '"entities": [{"start": 0, "end": 4, "type": "PER"}, {"start": 8, "end": 13, "label": "LOC"}]',
        '"label": {"PER": {"Anna": [[0, 3]]}, "LOC": {"Paris": [[8, 12]]}}',
    ],
)
def test_json_spans_in_every_spelling(spans: str) -> None:
    (row,) = read(f'{{"text": "Anna in Paris ", {spans}}}')
    assert surfaces(row) == [("Anna", "PER"), ("Paris", "LOC")]
    assert row.words is None


def test_objects_may_be_pretty_printed_one_after_another() -> None:
    one = '{\n  "text": "Anna",\n  "label": {"PER": {"Anna": [[0, 3]]}}\n}\n'
    assert [row.where for row in read(one * 3)] == ["f.txt:1", "f.txt:5", "f.txt:9"]


def test_spans_that_words_cannot_show_are_counted() -> None:
    words = [(0, 4), (5, 7), (8, 13)]
    assert spans_to_tags([Span(0, 2, "X")], words) == (["B-X", "O", "O"], 1, 0)
    assert spans_to_tags([Span(0, 4, "X"), Span(0, 13, "Y")], words) == (["B-Y", "I-Y", "I-Y"], 0, 1)
    assert spans_to_tags([Span(4, 5, "X")], words) == (["O", "O", "O"], 1, 0)


@given(st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), max_size=12))
def test_tags_and_spans_convert_both_ways(tags: list[str]) -> None:
    words = [(3 * i, 3 * i + 2) for i in range(len(tags))]
    spans, repaired = tags_to_spans(tags, words)
    again, inexact, overlapping = spans_to_tags(spans, words)
    assert (inexact, overlapping) == (0, 0)
    assert tags_to_spans(again, words) == (spans, 0)
    assert (again == tags) == (repaired == 0)
