"""Two marked stretches of a text, and their relation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.annotations import Span
from bertsmith.tasks.base import Example
from bertsmith.tasks.marked import parse_marks, read_marked
from bertsmith.tasks.relations import Relations, RelationsConfig
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer

CONFIG = RelationsConfig(labels=("in", "no"), max_length=24)
SEMEVAL = """1\t"The <e1>cat</e1> sat on the <e2>mat</e2>."
Entity-Destination(e1,e2)
Comment: the <e1>cat<e2> of another sentence

2\t"A <e2>mat</e2>, a <e1>cat</e1>, "quoted"."\r
Other\r
Comment:\r
"""


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else "\n".join(map(json.dumps, content)), "utf-8")
    return path


def surfaces(example: Example) -> tuple[str, str]:
    first, second = (example.fields[name] for name in ("first", "second"))
    return example.fields["text"][first.start : first.end], example.fields["text"][second.start : second.end]


def test_semevals_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", SEMEVAL)
    one, two = read_marked(path, Tally(), labelled=True)
    assert (one.fields["text"], surfaces(one), one.label) == (
        "The cat sat on the mat.", ("cat", "mat"), "Entity-Destination(e1,e2)",
    )  # fmt: skip
    assert (two.fields["text"], surfaces(two), two.label) == ('A mat, a cat, "quoted".', ("cat", "mat"), "Other")
    assert [example.where for example in (one, two)] == [f"{path}:1", f"{path}:5"]


def test_labels_do_not_matter_where_none_is_wanted(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    """As in the test files of SemEval, with a number before each line and no relation behind it."""
    task = Relations(toy_tokenizer, RelationsConfig(labels=("in", "no")))
    one, two = "The <e1>cat</e1> sat on the <e2>mat</e2>.", "<e1>a</e1> <e2>b</e2>"
    unseen = {"text": "Anna lives in Paris", "first": [0, 4], "second": [14, 19], "relation": "unseen"}
    for content in (SEMEVAL, f"{one}\n{two}", f'1\t"{one}"\n\n2\t"{two}"\n', [unseen, unseen]):
        name = "a.txt" if isinstance(content, str) else "a.jsonl"
        examples = task.unlabelled(write(tmp_path / name, content), Tally())
        assert [example.label for example in examples] == [None, None]
        assert len(task.encode(examples)) == 2


def test_every_json_form_means_the_same(tmp_path: Path) -> None:
    text, words = "Anna lives in Paris", ["Anna", "lives", "in", "Paris"]
    rows: list[Any] = [
        {"text": text, "first": [0, 4], "second": [14, 19], "relation": "in"},
        {
            "text": text,
            "subject": {"start": 0, "end": 4, "type": "PER"},
            "object": {"start": 14, "end": 19},
            "label": "in",
        },
        {"text": text, "h": {"pos": [0, 4], "name": "Anna"}, "t": {"pos": [14, 19]}, "relation": "in"},
        {"token": words, "h": {"pos": [0, 1]}, "t": {"pos": [3, 4]}, "relation": "in"},
        {
            "token": words,
            "subj_start": 0,
            "subj_end": 0,
            "obj_start": 3,
            "obj_end": 3,
            "subj_type": "PER",
            "relation": "in",
        },
        {"sentence": text, "head": "Anna", "tail": {"name": "Paris"}, "relation": "in"},
        {"text": "<e1>Anna</e1> lives in <e2>Paris</e2>", "relation": "in"},
        ["Anna", "Paris", "in", text],
    ]
    for row in rows:
        (example,) = read_marked(
            write(tmp_path / "a.jsonl", [row] if isinstance(row, dict) else json.dumps([row])), Tally(), labelled=True
        )
        assert (example.fields["text"], surfaces(example), example.label) == (text, ("Anna", "Paris"), "in"), row
    typed = read_marked(write(tmp_path / "a.jsonl", [rows[1], rows[4]]), Tally(), labelled=True)
    assert [example.fields["first"].type for example in typed] == ["PER", "PER"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "a b", "first": [0, 1], "second": [2, 9], "relation": "in"},
            "the stretch 2 to 9 lies outside the text",
        ),
        (
            {"text": "a b", "first": [1, 1], "second": [2, 3], "relation": "in"},
            "the stretch 1 to 1 lies outside the text",
        ),
        ({"text": "a b", "head": "a", "tail": "c", "relation": "in"}, "'c' is not in the text"),
        ({"text": "a b", "first": [0, 1], "relation": "in"}, "none of the fields second, object"),
        ({"text": "a b", "first": [0, 1], "second": [2, 3]}, "there is no relation; its field is called one of"),
        ({"text": "a b", "first": [0, 1], "second": [2, 3], "relation": "of"}, "label 'of' is not one of in, no"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, toy_tokenizer: Tokenizer, row: Any, message: str) -> None:
    good = {"text": "a b", "first": [0, 1], "second": [2, 3], "relation": "in"}
    path = write(tmp_path / "a.jsonl", [good, row])
    with pytest.raises(DataError, match=re.escape(f"{path}:2: ") + ".*" + re.escape(message)):
        Relations(toy_tokenizer, CONFIG).rows(path, Tally())
    tally = Tally()
    task = Relations(toy_tokenizer, CONFIG.model_copy(update={"skip_bad_rows": True}))
    assert len(task.rows(path, tally)) == 1
    assert sum(tally.counts.values()) == 1


def test_a_sentence_that_is_marked_wrongly_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", SEMEVAL + '\n3\t"A <e1>cat</e1>."\nOther\n')
    with pytest.raises(DataError, match=f"{re.escape(str(path))}:9: mark two stretches, once each"):
        read_marked(path, Tally(), labelled=True)


@pytest.mark.parametrize(
    "text",
    ["a b", "<e1>a</e1> b", "<e1>a</e1> <e2></e2>b", "</e1>a<e1> <e2>b</e2>", "<e1>a</e1> <e1>b</e1> <e2>c</e2>"],
)
def test_what_is_not_marked(text: str) -> None:
    assert parse_marks(text) is None


def pieces(task: Relations, *examples: Example, tally: Tally | None = None) -> list[str]:
    return [" ".join(task.tokenizer.tokens[i] for i in e.input_ids) for e in task.encode(examples, tally)]


def test_marks_stand_around_the_stretches(toy_tokenizer: Tokenizer) -> None:
    task = Relations(toy_tokenizer, CONFIG)
    plain = Example({"text": "<e2>anna</e2> lives in <e1>paris</e1>"})
    typed = Example({"text": "anna lives in paris", "first": Span(0, 4, "a"), "second": Span(14, 19, "")})
    nested = Example({"text": "anna lives", "first": Span(0, 10, ""), "second": Span(0, 4, "")})
    beside = Example({"text": "我在", "first": Span(0, 1, ""), "second": Span(1, 2, "")})
    assert pieces(task, plain, typed, nested, beside) == [
        "[CLS] # anna # lives in @ paris @ [SEP]",
        "[CLS] @ * a * anna @ lives in # paris # [SEP]",
        "[CLS] @ # anna # lives @ [SEP]",
        "[CLS] @ 我 @ # 在 # [SEP]",
    ]


def test_of_a_long_text_the_stretches_stay(toy_tokenizer: Tokenizer) -> None:
    task, tally = Relations(toy_tokenizer, CONFIG), Tally()
    for before, after in ((0, 100), (50, 50), (100, 0), (1, 100)):
        text = "the " * before + "<e1>anna</e1> lives in <e2>paris</e2>" + " it" * after
        (shown,) = pieces(task, Example({"text": text}), tally=tally)
        assert "@ anna @ lives in # paris #" in shown
        assert len(shown.split()) == 24
    assert tally.counts == {"cut_to_max_length": 4}
    (shown,) = pieces(task, Example({"text": "<e1>anna</e1>" + " the" * 50 + "<e2>paris</e2>"}))
    assert shown.startswith("[CLS] @ anna @ the")


def test_a_text_without_marks_is_refused(toy_tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="input 1: mark the two stretches that are asked about"):
        Relations(toy_tokenizer, CONFIG).encode([Example({"text": "anna"}, where="input 1")])


def test_marks_must_be_pieces(toy_tokenizer: Tokenizer) -> None:
    assert Relations(toy_tokenizer).config.marks == ("@", "#", "*", "^")
    few = Tokenizer.from_tokens([*SPECIAL_TOKENS, *"abc@-:/"], lowercase=True)
    assert Relations(few).config.marks == ("@", "/", ":", "-")
    for marks in (("@", "~", "*", "€"), ("@", "#")):
        with pytest.raises(ConfigError, match=f"four marks are needed .* not {re.escape(' '.join(marks))}"):
            Relations(toy_tokenizer, RelationsConfig(marks=marks))
    with pytest.raises(ConfigError, match="not none"):
        Relations(Tokenizer.from_tokens([*SPECIAL_TOKENS, *"abc"], lowercase=True))


def test_the_first_file_settles_relations_and_what_means_none(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    said: list[str] = []
    task = Relations(toy_tokenizer, say=said.append)
    examples = task.rows(write(tmp_path / "a.txt", SEMEVAL), Tally())
    assert (task.labels, task.config.none) == (("Entity-Destination(e1,e2)", "Other"), "Other")
    assert "'Other' means that there is no relation" in said[0]
    scores = task.score([{"label": "Entity-Destination(e1,e2)"}] * 2, examples)
    expected = {"macro_f1": 2 / 3, "micro_f1": 2 / 3, "accuracy": 0.5, "f1/Entity-Destination": 2 / 3}
    assert scores == pytest.approx(expected)
    one = write(tmp_path / "b.jsonl", [{"text": "<e1>a</e1> <e2>b</e2>", "label": "x"}])
    with pytest.raises(DataError, match="all 1 rows have the relation 'x'"):
        Relations(toy_tokenizer).rows(one, Tally())


REAL = {
    "semeval2010-task8": (["TRAIN_FILE.TXT.xz", "TEST_FILE_FULL.TXT.xz"], [8000, 2717], 19, "Other", {}),
    "fincuge/finre": (
        ["train.json.xz", "eval.json.xz"], [13486, 1489], 44, "unknown", {"entity_stands_in_several_places": 4134},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_published_files_are_read_whole(data_dir: Path, toy_tokenizer: Tokenizer, name: str) -> None:
    files, counts, labels, none, noticed = REAL[name]
    task, tally = Relations(toy_tokenizer, say=lambda text: None), Tally()
    read = [task.rows(data_dir / "tasks" / name / file, tally) for file in files]
    assert [len(examples) for examples in read] == counts
    assert (len(task.labels), task.config.none, tally.counts) == (labels, none, noticed)
    assert all(all(surfaces(example)) for examples in read for example in examples)


def test_the_heads_read_the_opening_marks(toy_tokenizer: Tokenizer) -> None:
    fields = {"text": "paris: anna lives in Acme", "first": Span(7, 11, "person"), "second": Span(21, 25, "")}
    swapped = {**fields, "first": fields["second"], "second": fields["first"]}
    nested = {"text": "anna in paris", "first": Span(0, 13, ""), "second": Span(8, 13, "")}
    long = {
        "text": "the " * 60 + "anna lives in paris" + " the" * 60,
        "first": Span(240, 244, ""),
        "second": Span(254, 259, ""),
    }
    task = Relations(toy_tokenizer, CONFIG.model_copy(update={"max_length": 24}))
    for one in (fields, swapped, nested, long):
        (encoding,) = task.encode([Example(one)])
        assert [toy_tokenizer.tokens[encoding.input_ids[place]] for place in encoding.reads] == ["@", "#"]
    assert task.encode([Example(fields)])[0].reads != task.encode([Example(swapped)])[0].reads
    cls = Relations(toy_tokenizer, CONFIG.model_copy(update={"read": "cls"}))
    assert cls.encode([Example(fields)])[0].reads == ()


def test_whole_texts_become_pairs_of_stretches_that_could_be_related(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    text = "anna works for acme in paris . " + "the " * 40 + "bert"
    spans = {"T1": ("PER", "anna"), "T2": ("ORG", "acme"), "T3": ("LOC", "paris"), "T4": ("PER", "bert")}
    ann = [
        f"{key}\t{kind} {text.find(word)} {text.find(word) + len(word)}\t{word}" for key, (kind, word) in spans.items()
    ]
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.ann").write_text("\n".join([*ann, "R1\tworks Arg1:T1 Arg2:T2", "R2\tfar Arg1:T4 Arg2:T2"]))
    task = Relations(toy_tokenizer, say=lambda line: None)
    rows = task.rows(tmp_path, Tally())
    told = {
        tuple(text[row.fields[role].start : row.fields[role].end] for role in ("first", "second")): row.label
        for row in rows
    }
    assert told == {("anna", "acme"): "works", ("bert", "acme"): "far"}
    assert task.config.types == (("PER", "ORG"),)
    wider = Relations(
        toy_tokenizer, RelationsConfig(reach=500, types=(("PER", "ORG"), ("ORG", "LOC"))), say=lambda line: None
    )
    assert {row.label for row in wider.rows(tmp_path, Tally())} == {"works", "far", "no_relation"}
    assert wider.config.none == "no_relation"
