"""Two bundles on the same labelled rows: which is better, and whether that is more than chance."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import ConfigError
from bertsmith.evaluate.score import Evaluation, describe, labelled_rows
from bertsmith.metrics.significance import Measure, Rows, Significance, Swapped, of_sums, paired
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.annotations import Span
from bertsmith.tasks.base import Answer, Example, Task

LONG = 20.0
"""Seconds of resampling from which on it is said how long it takes."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A bundle beside another.

    Attributes:
        evaluation: of the one bundle.
        metric: the score that is compared.
        found: its two values, and how sure their difference is.
    """

    evaluation: Evaluation
    metric: str
    found: Significance

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: those of the evaluation, and the comparison under `against`."""
        return self.evaluation.as_dict() | {"against": {"metric": self.metric, **asdict(self.found)}}

    def text(self) -> str:
        """For people."""
        found, (one, other) = self.found, self.found.scores
        return (
            f"{self.metric}: {one:.4f} against {other:.4f}, a difference of {found.difference:+.4f}; "
            f"p = {found.p:.4f}, {found.level:.0%} interval {found.low:+.4f} to {found.high:+.4f} "
            f"({found.rows:,} rows, {found.resamples:,} resamples, seed {found.seed})"
        )


def compare(
    predictor: Predictor,
    other: Predictor,
    data: Path,
    *,
    metric: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    sets: Sequence[str] = (),
    skip_bad_rows: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Score two bundles on a labelled file, and test whether they differ.

    Args:
        predictor: the one bundle.
        other: another bundle for the same task.
        data: the file.
        metric: one of the task's scores; None: the one that counts.
        resamples: 1 or more.
        seed: of the resamples.
        sets: changes to both tasks' configs.
        skip_bad_rows: count bad rows instead of stopping at the first.
        say: takes a line for the user where it takes long.

    Raises:
        ConfigError: the bundles do not answer the same question, or there is no such score.
        DataError: names file and line.
    """
    if predictor.task_name != other.task_name:
        raise ConfigError(
            f"{predictor.bundle.path} is for {predictor.task_name} and {other.bundle.path} for {other.task_name}; "
            "compare bundles of one task"
        )
    examples = labelled_rows(predictor, data, sets=sets, skip_bad_rows=skip_bad_rows)
    if other.task is not None:
        other.task.say = lambda text: None  # what it has to say about the file has been said
    theirs = labelled_rows(other, data, sets=sets, skip_bad_rows=skip_bad_rows)
    assert predictor.task is not None
    if [one.where for one in examples] != [one.where for one in theirs]:
        raise ConfigError(
            f"{data}: the two bundles read {len(examples)} and {len(theirs)} rows of it, not the same ones; they were "
            "trained on other labels or other settings"
        )
    answers, others = predictor.examples(examples), other.examples(theirs)
    evaluation = describe(predictor.task, answers, examples, predictor.tally)
    chosen = metric or evaluation.headline
    if chosen not in evaluation.scores:
        raise ConfigError(f"--metric {chosen} is not one of {', '.join(evaluation.scores)}")
    measure = measure_of(predictor.task, chosen, answers, others, examples)
    began = time.perf_counter()
    measure(np.arange(len(examples)), np.zeros(len(examples), np.bool_))
    if (seconds := 2 * resamples * (time.perf_counter() - began)) > LONG:
        say(f"{resamples:,} resamples of {chosen} take about {seconds:.0f} s; --resamples 200 takes a fifth of 1000")
    return Comparison(evaluation, chosen, paired(measure, len(examples), resamples=resamples, seed=seed))


def measure_of(
    task: Task, metric: str, answers: Sequence[Answer], others: Sequence[Answer], examples: Sequence[Example]
) -> Measure:
    """The score of both bundles on any rows: from sums where it is a function of sums, else by the task's own scorer.

    Args:
        task: scores.
        metric: which of its scores.
        answers: of the one bundle to `examples`.
        others: of the other.
        examples: labelled.

    Raises:
        ConfigError: the answers are of different kinds.
    """
    if (how := SUMS.get((task.name, metric))) is not None:
        figures, score = how
        return of_sums(figures(task, answers, examples), figures(task, others, examples), score)
    if answers[0].keys() != others[0].keys() or set(task.labels) != _labels(others, task):
        raise ConfigError("the two bundles give answers of different kinds or labels; compare bundles of one kind")

    def measure(rows: Rows, swapped: Swapped) -> tuple[float, float]:
        asked = [examples[i] for i in rows]
        sides = [[(second if swapped[i] else first)[i] for i in rows] for first, second in _both(answers, others)]
        one, other = (task.score(side, asked)[metric] for side in sides)
        return one, other

    return measure


def _both(answers: Sequence[Answer], others: Sequence[Answer]) -> list[tuple[Sequence[Answer], Sequence[Answer]]]:
    return [(answers, others), (others, answers)]


def _labels(answers: Sequence[Answer], task: Task) -> set[str]:
    return set(answers[0]["probabilities"]) if "probabilities" in answers[0] else set(task.labels)


def _hits(task: Task, answers: Sequence[Answer], examples: Sequence[Example]) -> NDArray[np.float64]:
    name = "choice" if task.name == "choose" else "label"
    hits = [[answer.get(name) == example.label, 1] for answer, example in zip(answers, examples, strict=True)]
    return np.array(hits, np.float64)


def _sets(task: Task, answers: Sequence[Answer], examples: Sequence[Example]) -> NDArray[np.float64]:
    rows = []
    for answer, example in zip(answers, examples, strict=True):
        gold: set[Any] = set(example.label)
        found: set[Any] = set(answer["labels"]) if "labels" in answer else _spans(answer)
        rows.append([len(gold & found), len(found), len(gold)])
    return np.array(rows, np.float64)


def _spans(answer: Answer) -> set[Span]:
    return {Span(entity["start"], entity["end"], entity["type"]) for entity in answer["entities"]}


def _answers(task: Task, answers: Sequence[Answer], examples: Sequence[Example]) -> NDArray[np.float64]:
    each = [[task.score([answer], [example])["f1"], 1] for answer, example in zip(answers, examples, strict=True)]
    return np.array(each, np.float64)


def _mean(total: float, count: float) -> float:
    return total / count


def _f1(right: float, found: float, gold: float) -> float:
    return 2 * right / (found + gold) if right else 0.0


Figures = Callable[[Task, Sequence[Answer], Sequence[Example]], NDArray[np.float64]]
SUMS: dict[tuple[str, str], tuple[Figures, Callable[..., float]]] = {
    ("classify", "accuracy"): (_hits, _mean),
    ("match", "accuracy"): (_hits, _mean),
    ("relate", "accuracy"): (_hits, _mean),
    ("choose", "accuracy"): (_hits, _mean),
    ("classify", "micro_f1"): (_sets, _f1),
    ("tag", "f1"): (_sets, _f1),
    ("answer", "f1"): (_answers, _mean),
}
"""Scores that are functions of sums over rows: the figures of a row, and what is made of their sums."""
