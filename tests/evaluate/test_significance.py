"""Two bundles on the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.core.errors import ConfigError
from bertsmith.evaluate.significance import SUMS, compare, measure_of
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.annotations import Span
from bertsmith.tasks.base import Answer, Example
from bertsmith.tasks.choice import Choice
from bertsmith.tasks.classification import Classification, ClassificationConfig
from bertsmith.tasks.matching import Matching, MatchingConfig
from bertsmith.tasks.questions import Questions, QuestionsConfig
from bertsmith.tasks.relations import Relations, RelationsConfig
from bertsmith.tasks.squad import Gold
from bertsmith.tasks.tagging import Tagging, TaggingConfig
from bertsmith.tokenizer.load import Tokenizer

N = 30
ROWS = "text,label\n" + "".join(f"{'good' if i % 3 else 'bad'} film {i},{'xy'[i % 2]}\n" for i in range(40))


def made(
    name: str, metric: str, tokenizer: Tokenizer, rng: Any
) -> tuple[Any, list[Answer], list[Answer], list[Example]]:
    """A task, answers of two systems that guess, and the rows."""
    if name in ("classify", "match", "relate"):
        labels, several = ("x", "y", "z"), metric == "micro_f1"
        if name == "relate":
            task: Any = Relations(tokenizer, RelationsConfig(labels=labels, marks=tuple("!.,?")))
        elif name == "match":
            task = Matching(tokenizer, MatchingConfig(labels=labels, regression=False))
        else:
            task = Classification(tokenizer, ClassificationConfig(labels=labels, regression=False, multi_label=several))
        draw = (
            (lambda: tuple(label for label in labels if rng.random() < 0.5)) if several else lambda: rng.choice(labels)
        )
        key = "labels" if several else "label"
        sides = [[{key: draw(), "probabilities": dict.fromkeys(labels, 0.3)} for _ in range(N)] for _ in range(2)]
        return task, *sides, [Example({"text": str(i)}, draw(), str(i)) for i in range(N)]
    if name == "choose":
        sides = [[{"choice": int(rng.integers(3)), "scores": [0.3] * 3} for _ in range(N)] for _ in range(2)]
        return Choice(tokenizer), *sides, [Example({}, int(rng.integers(3))) for _ in range(N)]
    if name == "tag":
        words = [(2 * i, 2 * i + 1) for i in range(5)]

        def spans() -> list[Span]:
            return [Span(a, b, str(rng.choice(["P", "L"]))) for a, b in words if rng.random() < 0.5]

        def answer() -> Answer:
            found = spans()
            tags = ["O"] * 5
            for span in found:
                tags[span.start // 2] = f"B-{span.type}"
            entities = [{"start": s.start, "end": s.end, "type": s.type} for s in found]
            return {"entities": entities, "tags": tags, "words": words}

        task = Tagging(tokenizer, TaggingConfig(labels=("O", "B-P", "I-P", "B-L", "I-L")))
        sides = [[answer() for _ in range(N)] for _ in range(2)]
        return task, *sides, [Example({"text": "a b c d e"}, tuple(spans())) for _ in range(N)]
    texts = ["in paris", "paris", "in the old town", "london"]
    task = Questions(tokenizer, QuestionsConfig(scorer="squad", no_answer=False))
    sides = [[{"answer": str(rng.choice(texts))} for _ in range(N)] for _ in range(2)]
    return task, *sides, [Example({}, (Gold(str(rng.choice(texts)), 0),)) for _ in range(N)]


@pytest.mark.parametrize(("name", "metric"), SUMS)
def test_sums_over_rows_give_what_the_task_scores(name: str, metric: str, toy_tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    task, answers, others, examples = made(name, metric, toy_tokenizer, rng)
    measure = measure_of(task, metric, answers, others, examples)
    for _ in range(20):
        rows, swapped = rng.integers(0, N, N), rng.random(N) < 0.5
        sides = [[(b if swapped[i] else a)[i] for i in rows] for a, b in ((answers, others), (others, answers))]
        expected = [task.score(side, [examples[i] for i in rows])[metric] for side in sides]
        assert measure(rows, swapped) == pytest.approx(expected)


def test_another_score_is_the_tasks_own_and_answers_of_another_kind_are_refused(toy_tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(1)
    task, answers, others, examples = made("classify", "accuracy", toy_tokenizer, rng)
    measure = measure_of(task, "macro_f1", answers, others, examples)
    swapped = rng.random(N) < 0.5
    side = [(others if swap else answers)[i] for i, swap in enumerate(swapped)]
    assert measure(np.arange(N), swapped)[0] == task.score(side, examples)["macro_f1"]
    with pytest.raises(ConfigError, match="answers of different kinds"):
        measure_of(task, "macro_f1", answers, [{"similarity": 0.1}] * N, examples)
    with pytest.raises(ConfigError, match="answers of different kinds"):
        measure_of(task, "macro_f1", answers, [other | {"probabilities": {"x": 1}} for other in others], examples)


def bundle(path: Path, tokenizer: Tokenizer, shape: ModelConfig, labels: str = "xy", seed: int = 0) -> Path:
    config = {"labels": list(labels), "regression": False, "pair": False, "max_length": 32}
    meta = {"task": "classify", "labels": list(labels), "task_config": config}
    model = Model(shape.model_copy(update={"initializer_range": 0.5}), Heads(classify=len(labels)), seed=seed)
    save_model(path, model, tokenizer.files(), meta)
    return path


def test_the_command_says_which_is_better_and_how_sure(
    in_process: Callable[..., tuple[int, str, str]], toy_tokenizer: Tokenizer, toy_shape: ModelConfig, tmp_path: Path
) -> None:
    data = tmp_path / "rows.csv"
    data.write_text(ROWS, encoding="utf-8")
    one, other = (bundle(tmp_path / str(seed), toy_tokenizer, toy_shape, seed=seed) for seed in (1, 2))
    words = ("evaluate", one, "--data", data, "--against", other, "--resamples", 300, "--seed", 4, "--device", "cpu")
    code, shown, _ = in_process(*words)
    assert code == 0
    assert "a difference of" in shown
    found = json.loads(in_process(*words, "--json", "--metric", "macro_f1")[1])
    against = found["against"]
    assert (against["metric"], against["rows"], against["resamples"], against["seed"]) == ("macro_f1", 40, 300, 4)
    assert against["scores"][0] == pytest.approx(found["scores"]["macro_f1"])
    theirs = json.loads(in_process("evaluate", other, "--data", data, "--json", "--device", "cpu")[1])
    assert against["scores"][1] == pytest.approx(theirs["scores"]["macro_f1"])
    assert against["difference"] == pytest.approx(against["scores"][0] - against["scores"][1])
    assert 0 < against["p"] <= 1
    assert against["low"] <= against["difference"] <= against["high"]
    code, _, said = in_process(*words, "--metric", "f2")
    assert code == 2
    assert "--metric f2 is not one of accuracy, macro_f1" in said


def test_bundles_that_cannot_be_compared_are_refused(
    in_process: Callable[..., tuple[int, str, str]], toy_tokenizer: Tokenizer, toy_shape: ModelConfig, tmp_path: Path
) -> None:
    data = tmp_path / "rows.csv"
    data.write_text(ROWS + "more,z\n", encoding="utf-8")
    three = bundle(tmp_path / "three", toy_tokenizer, toy_shape, labels="xyz")
    two = bundle(tmp_path / "two", toy_tokenizer, toy_shape)
    opened = [Predictor.open(path, device="cpu") for path in (three, two)]
    with pytest.raises(ConfigError, match="41 and 40 rows of it, not the same ones"):
        compare(*opened, data, skip_bad_rows=True)
    save_model(tmp_path / "words", Model(toy_shape, Heads(mlm=True)), toy_tokenizer.files(), {"task": "pretraining"})
    code, _, said = in_process("evaluate", tmp_path / "words", "--data", data, "--against", two, "--device", "cpu")
    assert code == 2
    assert "--against compares two bundles for one task" in said
    with pytest.raises(ConfigError, match="for classify and .* for pretraining"):
        compare(opened[1], Predictor.open(tmp_path / "words", device="cpu"), data)
