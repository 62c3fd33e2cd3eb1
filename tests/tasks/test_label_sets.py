"""Texts with several labels, and labels that are paths."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example
from bertsmith.tasks.classification import Classification, ClassificationConfig
from bertsmith.tasks.label_sets import descend, likely, positive_of
from bertsmith.tokenizer.load import Tokenizer


def lines(path: Path, *labels: Any) -> Path:
    rows = [{"text": f"the film {n}", "label": label} for n, label in enumerate(labels)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def task(tokenizer: Tokenizer, **settings: Any) -> Classification:
    return Classification(tokenizer, ClassificationConfig(**settings), say=lambda text: None)


def test_lists_are_read_as_sets(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    several = task(toy_tokenizer)
    rows = several.rows(lines(tmp_path / "a.jsonl", ["b", "a"], [], ["c"], ["a", "a"]), Tally())
    assert (several.labels, several.config.multi_label, several.headline) == (("a", "b", "c"), True, "micro_f1")
    assert [row.label for row in rows] == [("a", "b"), (), ("c",), ("a",)]
    assert several.encode(rows)[0].targets["label"].tolist() == [1, 1, 0]
    dev = lines(tmp_path / "dev.jsonl", ["a"], ["z"])
    with pytest.raises(DataError, match=re.escape(f"{dev}:2: label 'z' is not one of a, b, c")):
        several.rows(dev, Tally())


def test_a_separator_cuts_cells(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\ngood,a; b\nbad,b\n")
    rows = task(toy_tokenizer, separator=";").rows(path, Tally())
    assert [row.label for row in rows] == [("a", "b"), ("b",)]
    path.write_text("text,label\ngood,a;;b\nbad,b\n")
    with pytest.raises(DataError, match=r"a\.csv:2: one of the labels is empty"):
        task(toy_tokenizer, separator=";").rows(path, Tally())
    with pytest.raises(DataError, match="one of the labels is empty"):
        task(toy_tokenizer).rows(lines(tmp_path / "a.jsonl", ["a", ""], ["b"]), Tally())


def test_a_list_is_refused_where_texts_have_one_label(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    single = task(toy_tokenizer)
    single.rows(lines(tmp_path / "a.jsonl", "a", "b"), Tally())
    assert single.config.multi_label is False
    with pytest.raises(DataError, match=r"b\.jsonl:2: a list of labels where a text has one"):
        single.rows(lines(tmp_path / "b.jsonl", "a", ["a", "b"]), Tally())


def test_thresholds_are_tuned_on_dev(toy_tokenizer: Tokenizer) -> None:
    several = task(toy_tokenizer, labels=("a", "b", "c"), multi_label=True)
    gold = [("a",), ("a", "b"), (), ("b",)]
    chances = [[0.4, 0.1, 0.2], [0.3, 0.9, 0.1], [0.2, 0.6, 0.3], [0.1, 0.8, 0.6]]
    outputs = [{"classify": np.log(np.array(row) / (1 - np.array(row)))} for row in chances]
    examples = [Example({"text": "x"}, label) for label in gold]
    answers = several.decode(outputs, [], examples)
    assert [answer["labels"] for answer in answers] == [[], ["b"], ["b"], ["b", "c"]]
    answers = several.tune(answers, examples)
    assert several.config.thresholds == pytest.approx((0.25, 0.7, 0.5))
    assert [answer["labels"] for answer in answers] == [["a"], ["a", "b"], [], ["b", "c"]]
    scores = several.score(answers, examples)
    expected = {"micro_f1": 8 / 9, "macro_f1": 2 / 3, "subset_accuracy": 0.75, "f1/a": 1, "f1/b": 1, "f1/c": 0}
    assert scores == pytest.approx(expected)


def test_paths_are_scored_level_by_level(toy_tokenizer: Tokenizer) -> None:
    single = task(toy_tokenizer, labels=("a/x", "a/y", "b"), levels="/")
    answers = single.decode([{"classify": np.log([0.3, 0.25, 0.45])}], [], [])
    assert (answers[0]["label"], answers[0]["score"]) == ("a/x", pytest.approx(0.3))
    assert [(node["label"], node["score"]) for node in answers[0]["levels"]] == [
        ("a", pytest.approx(0.55)), ("a/x", pytest.approx(0.3)),
    ]  # fmt: skip
    examples = [Example({"text": "x"}, label) for label in ("a/x", "a/y", "b")]
    scores = single.score([{"label": label} for label in ("a/x", "a/x", "a/y")], examples)
    assert scores["accuracy/level 1"] == pytest.approx(2 / 3)
    assert scores["accuracy/level 2"] == scores["accuracy"] == pytest.approx(1 / 3)


def test_a_path_implies_what_it_lies_in(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    several = task(toy_tokenizer, levels="/")
    rows = several.rows(lines(tmp_path / "a.jsonl", ["a/x"], ["a"], ["b"]), Tally())
    assert [row.label for row in rows] == [("a", "a/x"), ("a",), ("b",)]
    (answer,) = several.decode([{"classify": np.array([-3.0, 2.0, -1.0])}], [], [])
    assert answer["labels"] == ["a", "a/x"]


@given(
    st.dictionaries(st.sampled_from(["a", "a/b", "a/b/c", "a/d", "e", "e/f", "g/h/i"]), st.floats(0.01, 1), min_size=1)
)
def test_the_way_down_never_contradicts_itself(weights: dict[str, float]) -> None:
    chances = {label: weight / sum(weights.values()) for label, weight in weights.items()}
    way = descend(chances, "/")
    assert way[-1][0] in chances
    for (above, more), (below, less) in itertools.pairwise(way):
        assert below.startswith(above + "/")
        assert less <= more + 1e-9


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (("match", "no match"), "match"),
        (("entailment", "not_entailment"), "entailment"),
        (("Non-duplicate", "duplicate"), "duplicate"),
        (("不相似", "相似"), "相似"),
        (("否", "是"), "是"),
        (("no", "yes"), "yes"),
        (("0", "1"), "1"),
        (("related", "unrelated"), "related"),
        (("red", "green"), None),
        (("noble", "notable"), None),
        (("a", "b", "not a"), None),
    ],
)
def test_which_of_two_labels_says_yes(labels: tuple[str, ...], positive: str | None) -> None:
    assert positive_of(labels) == positive
    assert positive_of(labels[::-1]) == positive


def test_of_very_many_labels_the_likeliest_are_told() -> None:
    chances = np.random.default_rng(0).permutation(2000) / 2000
    labels = [f"l{place}" for place in range(2000)]
    found = likely(chances, labels)
    assert list(found.values()) == sorted(chances.tolist(), reverse=True)[:100]
    assert all(chances[int(label[1:])] == chance for label, chance in found.items())
    assert likely(chances[:1000], labels[:1000]) == dict(zip(labels[:1000], chances.tolist()[:1000], strict=True))
