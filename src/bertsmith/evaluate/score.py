"""A bundle against labelled data: scores, figures of each class, confusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.core.files import without_nan
from bertsmith.core.picture import matrix
from bertsmith.corpus.document import Tally
from bertsmith.metrics.classification import Scores, confusion_matrix, precision_recall_f1
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Answer, Example, Task
from bertsmith.tasks.classification import Classification
from bertsmith.tasks.questions import Questions
from bertsmith.tasks.relations import Relations
from bertsmith.tasks.squad import prediction_files
from bertsmith.tasks.tagging import Tagging

MOST = 100
"""Classes whose confusion is counted: a table of thousands would fill the memory, and nobody could read it."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a bundle does.

    Attributes:
        task: the task's name.
        headline: which of the scores counts.
        examples: how many were scored.
        scores: by name, 0 to 1 (correlations -1 to 1).
        classes: precision, recall, F1 and support of each class or type of entity.
        labels: the classes, in the order of `confusion`, of more than 100 those most often confused; or none.
        confusion: counts, a row for each gold class and a column for each predicted one.
        notices: what was skipped or cut, by reason.
        files: the answers as other scripts take them, by file name.
    """

    task: str
    headline: str
    examples: int
    scores: Mapping[str, float]
    classes: Mapping[str, Scores] = field(default_factory=dict)
    labels: Sequence[str] = ()
    confusion: Sequence[Sequence[int]] = ()
    notices: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; without `files`."""
        values = asdict(self)
        del values["files"]
        return values | {
            "scores": without_nan(self.scores),
            "classes": {name: scores._asdict() for name, scores in self.classes.items()},
        }

    def picture(self) -> str | None:
        """The confusion matrix as SVG; None without classes."""
        if not self.labels:
            return None
        title = f"{self.examples:,} examples: gold in rows, predicted in columns"
        if len(self.labels) < len(self.classes):
            title += f"; the {len(self.labels)} of {len(self.classes):,} classes most often confused"
        return matrix(self.labels, self.confusion, title=title)


def evaluate(
    predictor: Predictor,
    data: Path,
    *,
    sets: Sequence[str] = (),
    skip_bad_rows: bool = False,
    tally: Tally | None = None,
) -> Evaluation:
    """Score a bundle on a labelled file.

    Args:
        predictor: the opened bundle.
        data: the file, in any format that the task reads.
        sets: changes to the task's config, such as `task.label_column=stars`.
        skip_bad_rows: count bad rows instead of stopping at the first.
        tally: counts what is skipped or cut.

    Raises:
        DataError: names file and line.
        ConfigError: a setting that there is not, or a pretrained bundle.
    """
    tally = predictor.tally if tally is None else tally
    examples = labelled_rows(predictor, data, sets=sets, skip_bad_rows=skip_bad_rows, tally=tally)
    assert predictor.task is not None
    return describe(predictor.task, predictor.examples(examples), examples, tally)


def labelled_rows(
    predictor: Predictor,
    data: Path,
    *,
    sets: Sequence[str] = (),
    skip_bad_rows: bool = False,
    tally: Tally | None = None,
) -> list[Example]:
    """The rows of a labelled file as a bundle's task reads them; see `evaluate`.

    Args:
        predictor: the opened bundle, whose task's config is changed.
        data: the file.
        sets: changes to the task's config.
        skip_bad_rows: count bad rows instead of stopping at the first.
        tally: counts what is skipped.

    Raises:
        DataError: names file and line.
        ConfigError: a setting that there is not, or a pretrained bundle.
    """
    task = predictor.task
    if task is None:
        raise ConfigError(f"{predictor.bundle.path}: a pretrained model has no labels to be scored on")
    task.config = load(
        type(task.config),
        base=task.config.model_dump(exclude_none=True),
        sets=[item.removeprefix("task.") for item in sets],
        options={"skip_bad_rows": skip_bad_rows},
    )
    return task.rows(data, predictor.tally if tally is None else tally)


def describe(task: Task, answers: Sequence[Answer], examples: Sequence[Example], tally: Tally) -> Evaluation:
    """Put the figures together for answers that a task gave."""
    scores = task.score(answers, examples)
    known: dict[str, Any] = {
        "task": task.name,
        "headline": task.headline if task.headline in scores else next(iter(scores)),
        "examples": len(examples),
        "scores": scores,
        "notices": dict(tally.counts),
    }
    if isinstance(task, Tagging):
        return Evaluation(**known, classes=task.by_type(answers, examples)[1])
    if isinstance(task, Questions):
        return Evaluation(**known, files=prediction_files(answers, examples))
    if isinstance(task, Classification) and "labels" in answers[0]:
        return Evaluation(**known, classes=task.by_label(answers, examples))
    if isinstance(task, Classification) and "label" in answers[0]:
        labels = list(task.labels)
        gold, guesses = [example.label for example in examples], [answer["label"] for answer in answers]
        classes = precision_recall_f1(gold, guesses, labels)
        if len(labels) > MOST:
            wrong = Counter(name for pair in zip(gold, guesses, strict=True) if pair[0] != pair[1] for name in pair)
            shown = {name for name, _ in wrong.most_common(MOST)}
            labels = [label for label in labels if label in shown]
        confusion = confusion_matrix(gold, guesses, labels).tolist()
        if isinstance(task, Relations):
            classes = task.by_relation(answers, examples)[2]
        return Evaluation(**known, classes=classes, labels=labels, confusion=confusion)
    return Evaluation(**known)
