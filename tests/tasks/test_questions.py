"""Questions: windows, the best stretch, no answer, offsets into the text as it was given."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example, collate
from bertsmith.tasks.context import Window, best_stretches, cut_context, owners
from bertsmith.tasks.questions import IGNORED, Questions, QuestionsConfig
from bertsmith.tasks.squad import Gold
from bertsmith.tokenizer.load import Tokenizer

SETTLED = QuestionsConfig(no_answer=False, scorer="squad", max_answer=30, max_length=32, stride=8)
LONG = " ".join(["anna works in london .", "bert is not bad !", "she lives in paris ,"] * 20)


def example(context: str, answer: str | None = None, question: str = "where is anna ?", start: int = -1) -> Example:
    if answer is None:
        return Example({"question": question, "context": context, "id": "q"}, None, "f:1")
    golds = (Gold(answer, context.index(answer) if start < 0 else start),) if answer else ()
    return Example({"question": question, "context": context, "id": "q"}, golds, "f:1")


def windows(task: Questions, examples: Sequence[Example], tally: Tally | None = None) -> list[Window]:
    return [window for window in task.encode(examples, tally) if isinstance(window, Window)]


def oracle(cut: Sequence[Window], *, null: float = 0.0, sure: float = 9.0) -> list[dict[str, np.ndarray]]:
    """Logits that point at the targets of windows, with noise elsewhere."""
    rng = np.random.default_rng(0)
    outputs = []
    for window in cut:
        logits = rng.normal(size=(len(window), 2)).astype(np.float32) * 0.1
        logits[0] = null / 2
        if window.targets["end"] > 0:
            logits[window.targets["start"], 0] = logits[window.targets["end"], 1] = sure / 2
        outputs.append({"answer": logits})
    return outputs


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 60))
def test_windows_cover_everything_and_each_piece_has_the_best_one(length: int, room: int, stride: int) -> None:
    cuts = cut_context(length, room, stride)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == length
    assert all(stop - start <= room for start, stop in cuts)
    assert all(a < c <= b < d for (a, b), (c, d) in itertools.pairwise(cuts)) or room == 1
    for piece, owner in enumerate(owners(length, cuts).tolist()):

        def context(number: int, piece: int = piece) -> float:
            start, stop = cuts[number]
            return min(piece - start, stop - 1 - piece) + 0.01 * (stop - start)

        holding = [number for number, (start, stop) in enumerate(cuts) if start <= piece < stop]
        assert context(owner) == max(map(context, holding))
        assert owner == next(number for number in holding if context(number) == context(owner))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_best_stretches_are_found(size: int, longest: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(size + 3, 2))
    places = np.arange(size, dtype=np.int32)
    owned = rng.random(size) < 0.7
    window = Window(
        np.zeros(size + 3, np.int32),
        np.zeros(size + 3, np.int32),
        {},
        example=0,
        offset=2,
        starts=places * 10,
        ends=places * 10 + 9,
        owned=owned,
    )
    every = [
        (logits[2 + i, 0] + logits[2 + j, 1], 10 * i, 10 * j + 9)
        for i in range(size)
        for j in range(i, min(size, i + longest))
        if owned[i]
    ]
    expected = sorted(every, reverse=True)[:most]
    found = sorted(best_stretches(logits, window, longest, most), reverse=True)
    assert np.array(found).ravel() == pytest.approx(np.array(expected).ravel())


def test_what_a_window_looks_like(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    (window,) = windows(task, [example("anna lives in paris", "paris")])
    tokens = [toy_tokenizer.tokens[i] for i in window.input_ids]
    assert " ".join(tokens) == "[CLS] w ##h ##e ##r ##e is anna ? [SEP] anna lives in paris [SEP]"
    assert window.segment_ids.tolist() == [0] * 10 + [1] * 5
    assert (window.targets["start"], window.targets["end"]) == (13, 13)
    (nothing,) = windows(task, [example("anna lives in paris", "")])
    assert nothing.targets == {"start": 0, "end": 0}


def test_a_separator_that_is_written_in_the_text_stays_text(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    (window,) = windows(task, [example("[SEP] [CLS]", question="[SEP]")])
    specials = [toy_tokenizer.tokens[i] for i in window.input_ids if i in (toy_tokenizer.cls_id, toy_tokenizer.sep_id)]
    assert specials == ["[CLS]", "[SEP]", "[SEP]"]
    (answer,) = task.decode([{"answer": np.zeros((len(window), 2), np.float32)}], [window], [example("[SEP] [CLS]")])
    assert answer["answer"] in "[SEP] [CLS]"
    assert answer["answer"]


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_an_answer_deep_in_a_long_text_is_found_from_one_window(toy_tokenizer: Tokenizer, place: int) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    starts = [i for i in range(len(LONG)) if i == 0 or LONG[i - 1] == " "]
    begin = starts[5 * place]
    text = LONG[begin : LONG.index(" ", starts[5 * place + 1])]
    asked = example(LONG, text, start=begin)
    tally = Tally()
    cut = windows(task, [asked], tally)
    assert len(cut) > 10
    assert max(map(len, cut)) <= 32
    assert tally.counts == {"read_in_windows": 1}
    assert sum(int(window.owned.sum()) for window in cut) == 300
    (answer,) = task.decode(oracle(cut), cut, [asked])
    assert (answer["answer"], answer["start"], answer["end"]) == (text, begin, begin + len(text))


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("  Anna\tlives in   PARIS.", "PARIS"),
        ("Anna 😀😀 lives in 😀 Paris", "Paris"),
        ("我在北京工作。Anna不错", "北京"),
        ("我 in 北京, Anna works", "in 北京"),
        ("Zoe\u0301 lives in Pa\u0301ris, he said", "Pa\u0301ris"),
        ("\ud800 anna \udfff in paris", "paris"),
        ("\u200banna\u200b lives\x07 in (paris)!", "paris"),
        ("x" * 150 + " paris", "paris"),
        ("paris", "paris"),
        ("e\u0301", "e\u0301"),
        ("𠀀北京😀", "北京😀"),
    ],
)
def test_offsets_are_those_of_the_text_as_it_was_given(toy_tokenizer: Tokenizer, context: str, answer: str) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    asked = example(context, answer)
    cut = windows(task, [asked])
    (found,) = task.decode(oracle(cut), cut, [asked])
    assert found["answer"] == answer
    assert context[found["start"] : found["end"]] == answer
    assert all(context[e["start"] : e["end"]] == e["answer"] for e in found["n_best"])
    assert found["n_best"][0]["answer"] == answer
    assert len({e["answer"] for e in found["n_best"]}) == len(found["n_best"])
    assert sum(e["score"] for e in found["n_best"]) == pytest.approx(1)


@pytest.mark.parametrize("context", ["", "  \n", "\x00\u200b", "\ufffd"])
def test_where_there_is_nothing_there_is_no_answer(toy_tokenizer: Tokenizer, context: str) -> None:
    for config in (SETTLED, SETTLED.model_copy(update={"no_answer": True})):
        task = Questions(toy_tokenizer, config)
        cut = windows(task, [example(context)])
        (answer,) = task.decode([{"answer": np.ones((len(w), 2), np.float32)} for w in cut], cut, [example(context)])
        assert (answer["answer"], answer["start"], answer["end"], answer["score"]) == ("", None, None, 1.0)
        json.dumps(answer, allow_nan=False)


def test_an_empty_question_has_no_answer_and_is_counted(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    asked, tally = example("anna lives in paris", question=" "), Tally()
    cut = windows(task, [asked], tally)
    (answer,) = task.decode([{"answer": np.ones((len(w), 2), np.float32)} for w in cut], cut, [asked])
    assert (answer["answer"], tally.counts) == ("", {"empty_question": 1})


def test_a_long_question_leaves_room_for_the_text(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    tally = Tally()
    cut = windows(task, [example(LONG, "paris", question="where is " * 50)], tally)
    assert max(map(len, cut)) <= 32
    assert tally.counts == {"question_cut": 1, "read_in_windows": 1}
    assert tally.first["question_cut"] == "f:1, question q"
    assert sum(int(window.owned.sum()) for window in cut) == 300


def test_what_cannot_be_learnt_is_counted_and_left_out_of_the_loss(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    tally = Tally()
    examples = [
        example(LONG, LONG[:200]),  # longer than any window
        example("anna \u200b lives", "\u200b"),  # no piece
        example("anna lives in paris", "paris"),
    ]
    cut = windows(task, examples, tally)
    assert tally.counts["answer_longer_than_a_window"] == 1
    assert tally.counts["answer_longer_than_max_answer"] == 1
    assert tally.counts["answer_has_no_piece"] == 1
    assert [window.targets["start"] for window in cut] == [IGNORED] * (len(cut) - 1) + [13]
    batch = collate(cut)
    logits = torch.zeros(batch.num_tokens, 2)
    loss = task.loss({"answer": logits}, batch)
    assert int(loss.count) == 1
    assert float(loss.total) == pytest.approx(np.log(len(cut[-1])))


def test_the_loss_is_bert_s(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    cut = windows(task, [example("anna lives in paris", "in paris"), example("she is not in london , is she ?", "")])
    batch = collate(cut)
    logits = torch.randn(batch.num_tokens, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = task.loss({"answer": logits}, batch)
    expected, place = 0.0, 0
    for window in cut:
        own = logits.detach()[place : place + len(window)].log_softmax(0)
        expected -= float(own[window.targets["start"], 0] + own[window.targets["end"], 1]) / 2
        place += len(window)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    loss.total.backward()
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_of_several_answers_the_one_most_often_given_is_learnt(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED)
    golds = (Gold("in paris", 11), Gold("paris", 14), Gold("paris", 14), Gold("rome", None))
    (window,) = windows(task, [Example({"question": "q", "context": "anna lives in paris"}, golds)])
    assert window.targets["start"] == window.targets["end"]


def test_an_answer_is_withheld_above_the_threshold(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED.model_copy(update={"no_answer": True}))
    asked = example("anna lives in paris", "paris")
    cut = windows(task, [asked])
    for threshold, null, text in ((0, 5, "paris"), (0, 13, ""), (5, 13, "paris"), (-5, 5, "")):
        task.config = task.config.model_copy(update={"threshold": float(threshold)})
        (answer,) = task.decode(oracle(cut, null=null), cut, [asked])
        assert answer["answer"] == text
        assert answer["null_odds"] == pytest.approx(null - 9, abs=1e-4)
        assert answer["start"] == (14 if text else None)
        assert {entry["answer"] for entry in answer["n_best"][:2]} == {"", "paris"}
        assert answer["score"] == next(entry["score"] for entry in answer["n_best"] if entry["answer"] == text)


def test_the_threshold_that_dev_chooses_gives_the_best_f1(toy_tokenizer: Tokenizer) -> None:
    task = Questions(toy_tokenizer, SETTLED.model_copy(update={"no_answer": True}))
    rng = np.random.default_rng(3)
    asked = [example(f"anna lives in {place}", place * bool(rng.random() < 0.6)) for place in ("paris", "london") * 20]
    cut = windows(task, asked)
    nulls = [float(rng.normal(9 if a.label else 11, 2)) for a in asked]
    outputs = [oracle([w], null=null)[0] for w, null in zip(cut, nulls, strict=True)]
    for output in outputs:  # it finds a place also where there is no answer
        output["answer"][-2] = 4.5
    answers = task.decode(outputs, cut, asked)
    before = task.score(answers, asked)
    tuned = task.tune(answers, asked)
    after = task.score(tuned, asked)
    assert task.config.threshold != 0
    assert before["f1"] < after["f1"] == pytest.approx(after["best_f1"]) == pytest.approx(before["best_f1"])
    assert task.decode(outputs, cut, asked) == tuned
    shares = [len([a for a in asked if bool(a.label) is has]) for has in (True, False)]
    whole = shares[0] * after["has_answer_f1"] + shares[1] * after["no_answer_f1"]
    assert after["f1"] == pytest.approx(whole / len(asked))


def test_the_first_file_settles_what_is_open(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    def rows(name: str, *items: dict[str, Any]) -> Path:
        (tmp_path / name).write_text("\n".join(json.dumps(item) for item in items))
        return tmp_path / name

    english = {"question": "where?", "context": "anna lives in paris", "answers": ["paris"]}
    chinese = {"question": "哪里", "context": "我在北京", "answers": ["北京"]}
    open_ = {"question": "who?", "context": "anna lives in paris", "answers": []}
    said: list[str] = []
    task = Questions(toy_tokenizer, say=said.append)
    task.rows(rows("a.jsonl", english), Tally())
    assert (task.config.no_answer, task.config.scorer, task.config.max_answer) == (False, "squad", 30)
    assert "every question has an answer" in said[0]
    task.rows(rows("b.jsonl", english, open_), Tally())
    assert "1 questions have no answer; this model always gives one" in said[1]
    task = Questions(toy_tokenizer, say=said.append)
    task.rows(rows("c.jsonl", chinese, {**chinese, "answers": []}), Tally())
    assert (task.config.no_answer, task.config.scorer, task.config.max_answer) == (True, "cmrc", 100)
    with pytest.raises(DataError, match="none of its 1 questions has an answer"):
        Questions(toy_tokenizer).rows(rows("d.jsonl", open_), Tally())


def test_scores_are_those_of_the_scorer_that_was_settled(toy_tokenizer: Tokenizer) -> None:
    asked = [example("我在北京大学", "北京大学"), example("我在北京大学", "我")]
    answers = [{"answer": "北京"}, {"answer": "我"}]
    cmrc = Questions(toy_tokenizer, SETTLED.model_copy(update={"scorer": "cmrc"})).score(answers, asked)
    squad = Questions(toy_tokenizer, SETTLED).score(answers, asked)
    assert cmrc == pytest.approx({"f1": (2 / 3 + 1) / 2, "exact": 0.5})
    assert squad == {"f1": 0.5, "exact": 0.5}
