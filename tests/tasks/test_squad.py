"""Questions as files have them."""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example
from bertsmith.tasks.squad import Gold, prediction_files, read_questions

ANNA = "Anna lives in Paris. 😀 Bert lives in Rome, not in Paris."
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Anna",
            "paragraphs": [
                {
                    "context": ANNA,
                    "qas": [
                        {"id": "a", "question": 'Where is "Anna"?', "answers": [{"text": "Paris", "answer_start": 14}]},
                        {"id": "b", "question": "Where is Clara?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        },
        {
            "title": "Bert",
            "paragraphs": [
                {
                    "context": 'Bert said: "question": {"question": 1}.',
                    "qas": [{"id": "c", "question": "Who?", "answers": [{"text": "Bert", "answer_start": 0}] * 3}],
                }
            ],
        },
    ],
}


def read(path: Path, *, labelled: bool = True, skip: bool = False, **columns: str) -> tuple[list[Example], Tally]:
    tally = Tally()
    return read_questions(path, tally, columns=columns, labelled=labelled, skip_bad_rows=skip), tally


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
    return path


@pytest.mark.parametrize("indent", [None, 2])
def test_squad_json_knows_the_line_of_each_question(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "dev.json"
    path.write_text(text := json.dumps(SQUAD, indent=indent, ensure_ascii=False), "utf-8")
    examples, tally = read(path)
    assert tally.counts == {}
    assert [example.fields["id"] for example in examples] == ["a", "b", "c"]
    assert [example.fields["article"] for example in examples] == ["Anna", "Anna", "Bert"]
    assert [example.label for example in examples] == [(Gold("Paris", 14),), (), (Gold("Bert", 0),) * 3]
    for example in examples:
        line = text.split("\n")[int(example.where.rpartition(":")[2]) - 1]
        assert json.dumps(example.fields["question"]) in line


def test_every_shape_of_a_row_means_the_same(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": "q", "context": ANNA, "answers": {"text": ["Rome"], "answer_start": [37]}},
        {"question": "q", "context": ANNA, "answers": [{"text": "Rome", "answer_start": 37}]},
        {"question": "q", "context": ANNA, "answers": ["Rome"]},
        {"question": "q", "context": ANNA, "answer": "Rome", "answer_start": 37},
        {"query": "q", "passage": ANNA, "answer": "Rome"},
        {"question": "q", "context": ANNA, "answers": {"text": "Rome", "answer_start": "37"}},
    ]
    lines = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    examples, tally = read(lines)
    assert [example.label for example in examples] == [(Gold("Rome", 37),)] * 6
    assert [example.fields["id"] for example in examples] == list("123456")
    assert [example.where for example in examples] == [f"{lines}:{n}" for n in range(1, 7)]
    assert tally.counts == {}
    assert [e.label for e in read(write(tmp_path / "a.json", rows))[0]] == [(Gold("Rome", 37),)] * 6
    table = write(
        tmp_path / "a.csv", f'ID,Question,Context,Answer,answer_start\nx,q,"{ANNA}",Rome,37\ny,q,"{ANNA}",Rome,\n'
    )
    examples, _ = read(table)
    assert [(example.fields["id"], example.label) for example in examples] == [
        ("x", (Gold("Rome", 37),)),
        ("y", (Gold("Rome", 37),)),
    ]


def test_cmrcs_own_form(tmp_path: Path) -> None:
    text = "我在北京工作。"
    row = {
        "context_id": "T1",
        "context_text": text,
        "qas": [{"query_text": "在哪？", "query_id": "T1_Q0", "answers": ["北京"]}],
    }
    examples, _ = read(write(tmp_path / "dev.json", [row]))
    assert examples[0].fields == {"question": "在哪？", "context": text, "id": "T1_Q0", "article": "T1"}
    assert examples[0].label == (Gold("北京", 2),)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"ask": "q", "where": ANNA, "say": "Rome", "question": "no"}))
    examples, _ = read(path, question="ask", context="where", answers="say")
    assert (examples[0].fields["question"], examples[0].label) == ("q", (Gold("Rome", 37),))


def test_answers_find_their_place(tmp_path: Path) -> None:
    def label(answer: Any) -> tuple[Any, dict[str, int]]:
        row = {"question": "q", "context": ANNA, "answers": [answer]}
        examples, tally = read(write(tmp_path / "a.jsonl", json.dumps(row)))
        return examples[0].label, tally.counts

    utf16 = len(ANNA[: ANNA.index("Rome")].encode("utf-16-le")) // 2  # as JavaScript counts
    assert label({"text": "Rome", "answer_start": utf16}) == ((Gold("Rome", 37),), {"answer_start_mended": 1})
    second = ANNA.rindex("Paris")
    assert label({"text": "Paris", "answer_start": second + 2}) == (
        (Gold("Paris", second),),
        {"answer_start_mended": 1},
    )
    assert label({"text": "Paris", "answer_start": -7}) == ((Gold("Paris", 14),), {"answer_start_mended": 1})
    assert label({"text": " Rome,", "answer_start": 36}) == ((Gold("Rome,", 37),), {})
    assert label("Paris") == ((Gold("Paris", 14),), {"answer_stands_in_several_places": 1})
    assert label({"text": "😀", "answer_start": 21}) == ((Gold("😀", 21),), {})


def test_an_answer_that_is_not_in_the_context(tmp_path: Path) -> None:
    rows = [
        {"id": "x", "question": "q", "context": ANNA, "answers": ["Rome"]},
        {"id": "y", "question": "q", "context": ANNA, "answers": ["Oslo"]},
        {"id": "z", "question": "q", "context": ANNA, "answers": ["Oslo", "Rome"]},
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    message = f"{path}:2: question y: the answer 'Oslo' is not in the context; fix the row or pass --skip-bad-rows"
    with pytest.raises(DataError, match=re.escape(message)):
        read(path)
    examples, tally = read(path, skip=True)
    assert [example.fields["id"] for example in examples] == ["x", "z"]
    assert examples[1].label == (Gold("Oslo", None), Gold("Rome", 37))  # it still counts as right, for its text
    assert tally.counts == {"answer_not_in_context": 1, "one_of_the_answers_not_in_context": 1}
    assert tally.first["answer_not_in_context"] == f"{path}:2"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "  ", "context": ANNA, "answers": ["Rome"]}, "question 2: the question is empty"),
        ({"question": "q", "context": "", "answers": ["Rome"]}, "question 2: the context is empty"),
        ({"context": ANNA, "answers": ["Rome"]}, "question 2 has no question; its field is called one of question"),
        ({"question": "q", "answers": ["Rome"]}, "question 2 has no context"),
        ({"question": 5, "context": ANNA, "answers": ["Rome"]}, "question 2 has no question"),
        ({"question": "q", "context": ANNA}, "says nothing about its answer"),
        ({"question": "q", "context": ANNA, "answers": [5]}, "its answers do not look like"),
        ({"question": "q", "context": ANNA, "answers": [{"answer_start": 5}]}, "its answers do not look like"),
        ({"question": "q", "context": ANNA, "answers": {"text": ["a", "b"], "answer_start": [1]}}, "do not look like"),
        ({"question": "q", "context": ANNA, "answer": "Rome", "answer_start": "x"}, "do not look like"),
        ({"data": [5]}, "'data' must be a list of JSON objects"),
        ([1, 2], "a row must be a JSON object"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: Any, message: str) -> None:
    good = {"question": "q", "context": ANNA, "answers": ["Rome"]}
    path = write(tmp_path / "a.jsonl", json.dumps(good) + "\n" + json.dumps(row))
    with pytest.raises(DataError, match=re.escape(message)):
        read(path)
    examples, tally = read(path, skip=True)
    assert len(examples) == 1
    assert sum(tally.counts.values()) == 1


def test_a_file_without_any_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable question is left"):
        read(write(tmp_path / "a.json", {"data": []}))


def test_what_is_impossible_has_no_answer(tmp_path: Path) -> None:
    row = {"question": "q", "context": ANNA, "is_impossible": True, "answers": [{"text": "Rome", "answer_start": 37}]}
    assert read(write(tmp_path / "a.jsonl", json.dumps(row)))[0][0].label == ()


def test_questions_that_nobody_has_answered_can_be_asked(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"question": "q", "context": "c"}\n{"question": "", "context": "", "answers": []}\n'
    )
    examples, _ = read(path, labelled=False)
    assert [example.label for example in examples] == [None, ()]


def test_an_id_that_comes_twice_is_counted(tmp_path: Path) -> None:
    row = json.dumps({"id": 7, "question": "q", "context": ANNA, "answers": ["Rome"]})
    assert read(write(tmp_path / "a.jsonl", f"{row}\n{row}\n"))[1].counts == {"repeated_id": 1}


def test_prediction_files_are_json_whatever_the_text(tmp_path: Path) -> None:
    text = "北京 \ud800"
    entry = {"answer": text, "start": 0, "end": 4, "score": 0.75}
    answers = [
        {**entry, "n_best": [entry, {"answer": "", "start": None, "end": None, "score": 0.25}], "null_odds": -1.5}
    ]
    files = prediction_files(answers, [Example({"id": "x"})])
    assert {name: json.loads(content.decode()) for name, content in files.items()} == {
        "predictions.json": {"x": text},
        "nbest_predictions.json": {"x": [{"text": text, "probability": 0.75}, {"text": "", "probability": 0.25}]},
        "null_odds.json": {"x": -1.5},
    }
    assert "北京" in files["predictions.json"].decode()


REAL = {
    "squad/dev-v1.1.json.xz": (10570, 0, {}),
    "squad/dev-v2.0.json.xz": (11873, 5945, {}),
    "cmrc2018/dev.json.xz": (3219, 0, {"answer_start_mended": 7, "one_of_the_answers_not_in_context": 193}),
    "cmrc2018/trial.json.xz": (1000, 0, {"empty_question": 2, "answer_start_mended": 5}),
}


@pytest.mark.parametrize("name", REAL)
def test_published_files_are_read_whole(data_dir: Path, name: str) -> None:
    path = data_dir / "tasks" / name
    examples, tally = read(path, skip=True)
    assert (len(examples), sum(not example.label for example in examples), tally.counts) == REAL[name]
    with lzma.open(path) as file:
        text = file.read().decode()
    for example in examples[:: len(examples) // 50]:
        context = example.fields["context"]
        assert all(gold.start is None or context[gold.start : gold.end] == gold.text for gold in example.label)
        line = text.split("\n")[int(example.where.rpartition(":")[2]) - 1]
        assert json.dumps(example.fields["question"], ensure_ascii=False) in line
