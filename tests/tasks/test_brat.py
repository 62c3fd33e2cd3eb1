"""BRAT's folders, doccano's lines, and offsets that are wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.annotations import Annotated
from bertsmith.tasks.brat import read_documents
from bertsmith.tasks.tagging import Tagging, TaggingConfig
from bertsmith.tasks.values import Rejects
from bertsmith.tokenizer.load import Tokenizer

TEXT = "Anna works for Acme.\r\n她住在北京 😀, and Bert too."


def folder(path: Path, ann: str, text: str = TEXT) -> Path:
    path.mkdir()
    (path / "one.txt").write_bytes(text.encode())
    (path / "one.ann").write_text(ann, encoding="utf-8")
    return path


def read(path: Path, *, skip: bool = False) -> tuple[list[Annotated], Tally]:
    tally = Tally()
    return read_documents(path, Rejects(tally, skip=skip)), tally


def test_a_byte_order_mark_hides_no_entity(tmp_path: Path) -> None:
    (document,), tally = read(folder(tmp_path / "brat", "\ufeffT1\tPER 0 4\tAnna\r\nT2\tORG 15 19\tAcme\r\n"))
    assert [document.text[span.start : span.end] for span in document.spans] == ["Anna", "Acme"]
    assert not tally.counts


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_ends_end_a_line(tmp_path: Path, sign: str) -> None:
    ann = f"T1\tPER 0 9\tAnna{sign}Lind\nT2\tLOC 15 19\tOslo\n#1\tAnnotatorNotes T1\tseen{sign}Remark\n"
    (document,), tally = read(folder(tmp_path / "brat", ann, f"Anna{sign}Lind left Oslo."))
    assert [(document.text[span.start : span.end], span.type) for span in document.spans] == [
        (f"Anna{sign}Lind", "PER"), ("Oslo", "LOC"),
    ]  # fmt: skip
    assert tally.counts == {"neither_entity_nor_relation": 1}


def test_a_folder_has_entities_and_relations_with_offsets_that_count_every_character(tmp_path: Path) -> None:
    ann = (
        "T1\tPER 0 4\tAnna\nT2\tORG 15 19\tAcme\nT3\tLOC 25 27\t北京\nR1\tWorks-For Arg1:T1 Arg2:T2\t\n"
        "E1\tMove:T1\nA1\tNegated T1\n#1\tAnnotatorNotes T1\tcheck\n"
    )
    (document,), tally = read(folder(tmp_path / "brat", ann))
    assert [(document.text[span.start : span.end], span.type) for span in document.spans] == [
        ("Anna", "PER"), ("Acme", "ORG"), ("北京", "LOC"),
    ]  # fmt: skip
    assert document.relations == ((document.spans[0], document.spans[1], "Works-For"),)
    assert tally.counts == {"neither_entity_nor_relation": 3}
    (alone,), _ = read(tmp_path / "brat" / "one.ann")
    assert alone == document


def test_offsets_in_utf16_units_are_mended_where_the_text_proves_it(tmp_path: Path) -> None:
    (document,), tally = read(folder(tmp_path / "brat", "T1\tPER 36 40\tBert\n"))
    assert document.text[document.spans[0].start : document.spans[0].end] == "Bert"
    assert tally.counts == {"offsets_in_utf16_units": 1}


BAD = {
    "past the end": (
        "T1\tPER 30 99\tBert",
        "one.ann:1: the span 30 to 99 lies outside the text, or is empty; it has 44",
    ),
    "another text": ("T1\tPER 0 4\tBert", "one.ann:1: the span 0 to 4 is 'Anna' in the text, not 'Bert'"),
    "inside a pair": ("T1\tX 0 29\t?", "counted in UTF-16 units, 29 lies inside the surrogate pair of '😀'"),
    "no entity": ("T1 PER 0 4 Anna", "one.ann:1: an entity looks like"),
    "in pieces": ("T1\tPER 0 4;15 19\tAnna Acme", "one.ann:1: T1 is in several pieces"),
    "no such end": ("T1\tPER 0 4\tAnna\nR1\tX Arg1:T1 Arg2:T9", "one.ann:2: there is no entity T9"),
    "twice": ("T1\tPER 0 4\tAnna\nT1\tORG 15 19\tAcme", "one.ann:2: there is an entity T1 above"),
    "no relation": ("R1 X", "one.ann:1: a relation looks like"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_named_and_can_be_skipped(tmp_path: Path, name: str) -> None:
    ann, message = BAD[name]
    path = folder(tmp_path / "brat", ann + "\nT7\tPER 0 4\tAnna\n")
    with pytest.raises(DataError, match=re.escape(message)):
        read(path)
    (document,), tally = read(path, skip=True)
    assert len(document.spans) == 1
    assert sum(tally.counts.values()) == 1


def test_folders_that_lack_something_are_refused(tmp_path: Path) -> None:
    path = folder(tmp_path / "brat", "T1\tPER 0 4\tAnna\n")
    (path / "two.txt").write_text("alone")
    assert read(path)[1].counts == {"text_without_annotations": 1}
    (path / "one.txt").unlink()
    with pytest.raises(DataError, match=r"one\.txt: no such file; BRAT keeps a \.txt and an \.ann"):
        read(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no \.ann file in this folder"):
        read(tmp_path / "empty")


def test_doccano_lines_of_either_kind(tmp_path: Path) -> None:
    old = {"id": 1, "text": "Anna 在北京", "label": [[0, 4, "PER"], [6, 8, "LOC"]]}
    new = {
        "id": 2,
        "text": "Anna works for Acme",
        "entities": [
            {"id": 7, "label": "ORG", "start_offset": 15, "end_offset": 19},
            {"id": 8, "label": "PER", "start_offset": 0, "end_offset": 4},
        ],
        "relations": [{"id": 1, "from_id": 8, "to_id": 7, "type": "works"}],
        "Comments": [],
    }
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in (old, new)), encoding="utf-8")
    (first, second), tally = read(path)
    assert [span.type for span in first.spans] == ["PER", "LOC"]
    assert first.relations is None
    assert second.relations == ((second.spans[0], second.spans[1], "works"),)
    assert not tally.counts


def test_cluener_surfaces_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"text": "彭小军在台湾", "label": {"name": {"彭小军": [[0, 2]]}, "address": {"台北": [[4, 5]]}}}')
    with pytest.raises(DataError, match=r"a\.json:1: the span 4 to 6 is '台湾' in the text, not '台北'"):
        read(path)


def test_overlapping_spans_are_for_the_head_of_pairs(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = tmp_path / "a.jsonl"
    rows = [[[0, 4, "PER"]], [[0, 19, "ORG"], [0, 4, "PER"], [8, 13, "LOC"]]]
    path.write_text("\n".join(json.dumps({"text": "Anna in London Club", "spans": spans}) for spans in rows))
    for head in ("token", "crf"):
        task = Tagging(toy_tokenizer, TaggingConfig.model_validate({"head": head}))
        message = "a.jsonl:2: the spans 0 to 4 (PER) and 0 to 19 (ORG) overlap, and this head gives each word one tag"
        with pytest.raises(DataError, match=re.escape(message)):
            task.rows(path, Tally())
    task = Tagging(toy_tokenizer, TaggingConfig(skip_bad_rows=True))
    tally = Tally()
    assert (len(task.rows(path, tally)), tally.counts) == (1, {"overlapping_spans": 1})
    nested = Tagging(toy_tokenizer, TaggingConfig(head="span"))
    assert len(nested.rows(path, Tally())[1].label) == 3
    assert nested.labels == ("LOC", "ORG", "PER")
