"""A bundle against labelled data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.evaluate.score import describe, evaluate
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.annotations import Span
from bertsmith.tasks.base import Example
from bertsmith.tasks.classification import Classification, ClassificationConfig
from bertsmith.tasks.tagging import Tagging, TaggingConfig
from bertsmith.tokenizer.load import Tokenizer

ROWS = "text,label,other\n" + "".join(
    f"{w} film,{label},{label}\n" for w, label in zip("abcdefgh", "xyzxyzxx", strict=True)
)


@pytest.fixture
def predictor(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Predictor:
    """Three classes, fresh weights."""
    config = {"labels": ["x", "y", "z"], "regression": False, "pair": False, "max_length": 32}
    meta = {"task": "classify", "labels": ["x", "y", "z"], "task_config": config}
    model = Model(toy_shape.model_copy(update={"initializer_range": 0.5}), Heads(classify=3))
    save_model(tmp_path / "bundle", model, toy_tokenizer.files(), meta)
    return Predictor.open(tmp_path / "bundle", device="cpu", precision="fp32")


def rows(tmp_path: Path, text: str = ROWS) -> Path:
    (tmp_path / "dev.csv").write_text(text)
    return tmp_path / "dev.csv"


def test_scores_are_those_of_the_answers(predictor: Predictor, tmp_path: Path) -> None:
    found = evaluate(predictor, rows(tmp_path))
    gold = list("xyzxyzxx")
    guesses = [answer["label"] for answer in predictor([f"{w} film" for w in "abcdefgh"])]
    assert found.scores["accuracy"] == pytest.approx(accuracy_score(gold, guesses))
    assert found.scores["mcc"] == pytest.approx(matthews_corrcoef(gold, guesses))
    assert found.scores["macro_f1"] == pytest.approx(f1_score(gold, guesses, average="macro", zero_division=0))
    assert [list(row) for row in found.confusion] == confusion_matrix(gold, guesses, labels=list("xyz")).tolist()
    assert {name: scores.support for name, scores in found.classes.items()} == {"x": 4, "y": 2, "z": 2}
    assert (found.examples, found.headline, found.task) == (8, "accuracy", "classify")
    picture = found.picture()
    assert picture is not None
    assert picture.startswith("<svg")
    assert json.loads(json.dumps(found.as_dict()))["classes"]["x"]["support"] == 4


def test_columns_can_be_named_and_bad_rows_skipped(predictor: Predictor, tmp_path: Path) -> None:
    path = rows(tmp_path, ROWS + "i film,w,y\n")
    with pytest.raises(DataError, match=r"dev\.csv:10: label 'w' is not one of x, y, z"):
        evaluate(predictor, path)
    assert evaluate(predictor, path, sets=["task.label_column=other"]).examples == 9
    found = evaluate(predictor, path, sets=["task.label_column=label"], skip_bad_rows=True)
    assert (found.examples, found.notices) == (8, {"unknown_label": 1})
    with pytest.raises(ConfigError, match="label_column"):
        evaluate(predictor, path, sets=["task.label_colum=other"])


def test_two_classes_have_the_f1_that_glue_reports(toy_tokenizer: Tokenizer) -> None:
    task = Classification(toy_tokenizer, ClassificationConfig(labels=("0", "1"), regression=False))
    gold, guesses = list("1101001"), list("1001101")
    scores = task.score([{"label": g} for g in guesses], [Example({}, g) for g in gold])
    assert scores["f1"] == pytest.approx(f1_score(gold, guesses, pos_label="1"))


def test_numbers_have_correlations_and_undefined_ones_are_null(toy_tokenizer: Tokenizer) -> None:
    task: Any = Classification(toy_tokenizer, ClassificationConfig(regression=True))
    examples = [Example({}, value) for value in (1.0, 2.0, 4.0)]
    found = describe(task, [{"value": value} for value in (3.0, 5.0, 9.0)], examples, Tally())
    assert found.scores["pearson"] == pytest.approx(1)
    assert found.scores["spearman"] == pytest.approx(1)
    assert found.scores["mse"] == pytest.approx((4 + 9 + 25) / 3)
    assert found.picture() is None
    constant = describe(task, [{"value": 2.0}] * 3, examples, Tally())
    assert math.isnan(constant.scores["pearson"])
    assert constant.as_dict()["scores"]["pearson"] is None


def test_of_very_many_classes_those_most_often_confused_are_shown(toy_tokenizer: Tokenizer) -> None:
    labels = tuple(f"class {number}" for number in range(60_000))
    task: Any = Classification(toy_tokenizer, ClassificationConfig(labels=labels, regression=False))
    gold = [*labels, *["class 7"] * 3]
    guesses = [*labels, "class 9", "class 9", "class 3"]
    examples, answers = [Example({}, one) for one in gold], [{"label": one} for one in guesses]
    found = describe(task, answers, examples, Tally())
    assert list(found.labels) == ["class 3", "class 7", "class 9"]
    assert found.confusion == [[1, 0, 0], [1, 1, 2], [0, 0, 1]]
    assert found.scores["accuracy"] == pytest.approx(60_000 / 60_003)
    picture = found.picture()
    assert picture is not None
    assert "the 3 of 60,000 classes most often confused" in picture
    assert len(picture) < 10_000


def test_entities_are_scored_by_type(toy_tokenizer: Tokenizer) -> None:
    task: Any = Tagging(toy_tokenizer, TaggingConfig(labels=("O", "B-LOC", "I-LOC", "B-PER", "I-PER")))
    words = ((0, 4), (5, 7), (8, 13))
    examples = [Example({"text": "anna in paris", "words": words}, (Span(0, 4, "PER"), Span(8, 13, "LOC")))]
    entities = [{"start": 0, "end": 7, "type": "PER"}, {"start": 8, "end": 13, "type": "LOC"}]
    answers = [{"entities": entities, "words": words, "tags": ["B-PER", "I-PER", "B-LOC"]}]
    found = describe(task, answers, examples, Tally())
    assert found.scores["f1"] == found.scores["f1_conlleval"] == found.scores["precision"] == 0.5
    assert (found.classes["LOC"].f1, found.classes["PER"].f1) == (1.0, 0.0)
    assert found.scores["f1/LOC"] == 1.0


def test_a_span_inside_a_word_can_not_be_scored_as_right(toy_tokenizer: Tokenizer) -> None:
    task: Any = Tagging(toy_tokenizer, TaggingConfig(labels=("O", "B-LOC", "I-LOC")))
    examples = [Example({"text": "paris"}, (Span(0, 3, "LOC"),))]
    answers = [{"entities": [{"start": 0, "end": 5, "type": "LOC"}], "words": [(0, 5)], "tags": ["B-LOC"]}]
    assert describe(task, answers, examples, Tally()).scores["f1"] == 0.0
