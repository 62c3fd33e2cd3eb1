"""Sorting texts, or pairs of texts, into classes, one or several each; or giving them a number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics import classification as metrics
from bertsmith.metrics.correlation import pearson, spearman
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.base import Answer, Example, Loss, Outputs, check_length, say_on_stderr
from bertsmith.tasks.columns import Columns, choose_columns
from bertsmith.tasks.decisions import Decided, Decisions
from bertsmith.tasks.joining import join_texts
from bertsmith.tasks.label_sets import (
    chosen,
    closed,
    descend,
    level_scores,
    likely,
    members,
    numbers,
    shown,
    split_labels,
    tuned,
    without_missing,
)
from bertsmith.tasks.rows import LABEL_NAMES, LISTED, Table, are_scores, is_number, plain_name, read_table
from bertsmith.tasks.values import Rejects
from bertsmith.tokenizer.load import Tokenizer

NO_AGREEMENT = "-"  # of these pairs (SNLI, MNLI, OCNLI) annotators did not agree; published scores leave them out


class ClassificationConfig(Config):
    """How rows are read and cut."""

    text_column: str | None = Field(default=None, description="column of the text; guessed when not given")
    pair_column: str | None = Field(default=None, description="column of the second text; guessed when not given")
    label_column: str | None = Field(default=None, description="column of the label; guessed when not given")
    pair: bool | None = Field(
        default=None, description="whether texts come in pairs; by default as the first file has it"
    )
    labels: tuple[str, ...] = Field(default=(), description="the classes; by default those of the first file")
    regression: bool | None = Field(default=None, description="predict a number; by default when labels have decimals")
    multi_label: bool | None = Field(
        default=None,
        description="a text may have several labels, or none; by default when a list of labels or a separator is given",
    )
    separator: str | None = Field(None, min_length=1, description="what stands between the labels of a text, such as ;")
    levels: str | None = Field(
        None, min_length=1, description="what stands between the levels of a label, such as / in animal/bird"
    )
    thresholds: tuple[float, ...] = Field(
        default=(), description="probabilities from which labels are given, where there may be several; tuned on dev"
    )
    pooling: Literal["cls", "mean"] = Field(
        "cls", description="what the classifier reads: [CLS], or the mean of the pieces, for encoders of sentences"
    )
    max_length: int = Field(256, ge=8, description="longest sequence in pieces; longer texts are cut, and counted")
    skip_bad_rows: bool = Field(default=False, description="count bad rows instead of stopping at the first")


class Classification:
    """One text or a pair, to one of several classes, to any of them, or to a number.

    Source: Devlin et al. 2019, section 4.1 (arXiv:1810.04805).
    """

    name = "classify"
    weighed = "label"

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: ClassificationConfig | None = None,
        *,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        """Build the task; the first file that it reads completes `config`.

        Args:
            tokenizer: turns text into pieces.
            config: what is already known.
            say: takes sentences meant for the user, such as which columns were guessed.
        """
        self.tokenizer = tokenizer
        self.config = config or ClassificationConfig()
        self.say = say

    @property
    def output(self) -> str:
        """The head that is read."""
        return "mean" if self.config.pooling == "mean" else "classify"

    @property
    def headline(self) -> str:
        """Accuracy; micro-F1 where a text may have several labels; Pearson's correlation for numbers."""
        return "pearson" if self.config.regression else "micro_f1" if self._several else "accuracy"

    @property
    def paired(self) -> bool | None:
        """Whether a file must hold two texts a row; None: as it has it."""
        return self.config.pair

    @property
    def keep_end(self) -> bool:
        """Whether the first text, where it is too long, loses its beginning rather than its end."""
        return False

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the head's outputs; none for numbers."""
        return self.config.labels

    @property
    def _several(self) -> bool:
        return bool(getattr(self.config, "multi_label", False))

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read a labelled file. The first one settles the classes, later ones are held to them.

        Raises:
            DataError: names file, line and what to do.
        """
        config = self.config
        named = [name for name in (config.text_column, config.pair_column, config.label_column) if name]
        joined = lambda name: name == config.label_column or plain_name(name) in LABEL_NAMES  # noqa: E731
        table = read_table(path, tally, skip_bad_rows=config.skip_bad_rows, named=named, joined=joined)
        return self.labelled(table, tally)

    def labelled(self, table: Table, tally: Tally) -> list[Example]:
        """The examples of a table with labels; see `rows`."""
        config, path = self.config, table.path
        columns = choose_columns(
            table, text=config.text_column, pair=config.pair_column, label=config.label_column, paired=self.paired
        )
        self._announce(table, columns)
        rejects = Rejects(tally, skip=config.skip_bad_rows)
        examples = []
        for row in table.rows:
            cells = {"text": row.cells[columns.text].strip()}
            if columns.pair is not None:
                cells["pair"] = row.cells[columns.pair].strip()
            label = row.cells[columns.label].strip() if columns.label is not None else ""
            if not all(cells.values()):
                rejects.add("empty_text", row.where, "the text is empty")
            elif not label:
                rejects.add("no_label", row.where, "the label is empty")
            elif label == NO_AGREEMENT and columns.pair is not None:
                tally.add("no_agreed_label", row.where)
            else:
                examples.append(Example(cells, label, row.where))
        if not examples:
            raise DataError(f"{path}: no usable row is left; {tally.summary() or 'there is none below the header'}")
        examples = self._in_sets(without_missing(examples, rejects), rejects)
        self._settle(path, examples, paired=columns.pair is not None)
        return self._check(examples, rejects)

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """One sequence an example, `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`, cut longest first."""
        first = self.pieces([example.fields["text"] for example in examples])
        pairs = [example.fields.get("pair") for example in examples]
        second = iter(self.tokenizer.encode([pair for pair in pairs if pair is not None]))
        encodings = []
        for example, a, pair, targets in zip(examples, first, pairs, self._targets(examples), strict=True):
            b = None if pair is None else next(second).ids
            encoding, cut = join_texts(self.tokenizer, a, b, self.config.max_length, keep_end=self.keep_end)
            if cut and tally is not None:
                tally.add("cut_to_max_length", example.where)
            encodings.append(Encoding(encoding.input_ids, encoding.segment_ids, targets))
        return encodings

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The pieces of the first text of each row."""
        return [pieces.ids for pieces in self.tokenizer.encode(texts)]

    def head(self, model_config: ModelConfig) -> Heads:
        """A classifier over the pooled [CLS] or the mean, one output a class, or a single one for numbers."""
        check_length(self.config.max_length, model_config)
        classes = 1 if self.config.regression else len(self.labels)
        return Heads.model_validate({self.output: classes, "multi": self._several})

    @property
    def decides(self) -> Decided | None:
        """What a row's loss is taken of."""
        return "sets" if self._several else "numbers" if self.config.regression else "classes"

    def decisions(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[Decisions]:
        """One for each row."""
        logits, gold = outputs[self.output].float(), batch.targets["label"]
        if self._several:
            return [Decisions("sets", logits, gold.view_as(logits))]
        return [Decisions("numbers" if self.config.regression else "classes", logits, gold)]

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Cross-entropy, of each label by itself where there may be several; or the squared error for numbers."""
        return self.decisions(outputs, batch)[0].loss()

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """`{"label", "score", "probabilities"}`, `{"labels", "probabilities"}` of several, or `{"value"}` for numbers.

        Where labels are paths, `levels` says how probable each node on the way is. Of more than 1,000 classes the
        probabilities are those of the 100 most probable.
        """
        if not outputs:
            return []
        logits = np.stack([output[self.output] for output in outputs]).astype(np.float64)
        if self.config.regression:
            return [{"value": float(value)} for value in logits[:, 0]]
        if self._several:
            chances = 1 / (1 + np.exp(-logits))
            return [
                {"labels": self._chosen(row), "probabilities": dict(zip(self.labels, row.tolist(), strict=True))}
                for row in chances
            ]
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        answers = []
        for row in weights / weights.sum(-1, keepdims=True):
            answer: Answer = {}
            best, score = self.labels[int(row.argmax())], float(row.max())
            if levels := getattr(self.config, "levels", None):
                every = dict(zip(self.labels, row.tolist(), strict=True))
                way = descend(every, levels)
                best, score = way[-1][0], every[way[-1][0]]
                answer = {"levels": [{"label": node, "score": chance} for node, chance in way]}
            answers.append({"label": best, "score": score, "probabilities": likely(row, self.labels)} | answer)
        return answers

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """Accuracy, macro-F1 and MCC (and F1 of the second class when there are two); or the two correlations.

        Of several labels micro-F1, macro-F1, the share of texts with all labels right, and F1 of each. Of paths besides
        the scores at each level.
        """
        if self.config.regression:
            gold = np.array([example.label for example in examples], dtype=np.float64)
            values = np.array([answer["value"] for answer in answers], dtype=np.float64)
            error = float(np.mean((gold - values) ** 2))
            return {"pearson": pearson(gold, values), "spearman": spearman(gold, values), "mse": error}
        levels = getattr(self.config, "levels", None)
        if self._several:
            gold_sets, found_sets = self._sets(answers, examples)
            micro, macro, each = metrics.label_set_scores(gold_sets, found_sets)
            exact = metrics.subset_accuracy(gold_sets, found_sets)
            by_level = level_scores(
                [example.label for example in examples], [answer["labels"] for answer in answers], levels, single=False
            )
            by_label = {f"f1/{label}": scores.f1 for label, scores in zip(self.labels, each, strict=True)}
            return {"micro_f1": micro, "macro_f1": macro, "subset_accuracy": exact} | by_level | by_label
        truth, guesses = self.indices(answers, examples)
        scores = {
            "accuracy": metrics.accuracy(truth, guesses),
            "macro_f1": metrics.macro_f1(truth, guesses),
            "mcc": metrics.matthews(truth, guesses),
        }
        if len(self.labels) == 2:
            hits = int(((truth == 1) & (guesses == 1)).sum())
            scores["f1"] = 2 * hits / max(1, int((truth == 1).sum() + (guesses == 1).sum()))
        return scores | level_scores(
            [[example.label] for example in examples], [[answer["label"]] for answer in answers], levels, single=True
        )

    def by_label(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, metrics.Scores]:
        """Scores of each label, where a text may have several."""
        return dict(zip(self.labels, metrics.label_set_scores(*self._sets(answers, examples))[2], strict=True))

    def tune(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[Answer]:
        """Choose on held-out rows from which probability on a label is given, for the best F1 of each.

        Args:
            answers: to `examples`.
            examples: labelled.

        Returns:
            The answers by the new thresholds; the same ones where a text has one label.
        """
        if not self._several:
            return list(answers)
        chances = np.array([[answer["probabilities"][label] for label in self.labels] for answer in answers])
        gold = members([example.label for example in examples], self.labels)
        self.config = self.config.model_copy(update={"thresholds": tuned(gold, chances)})
        return [answer | {"labels": self._chosen(row)} for answer, row in zip(answers, chances, strict=True)]

    def _chosen(self, chances: NDArray[np.float64]) -> list[str]:
        return list(closed(chosen(chances, self.labels, self.config.thresholds), self.labels, self.config.levels))

    def _sets(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        gold = members([example.label for example in examples], self.labels)
        return gold, members([answer["labels"] for answer in answers], self.labels)

    def indices(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Gold and predicted classes as indices into `labels`."""
        index = {label: i for i, label in enumerate(self.labels)}
        gold = np.array([index[example.label] for example in examples], dtype=np.int64)
        return gold, np.array([index[answer["label"]] for answer in answers], dtype=np.int64)

    def _targets(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        places = numbers(tuple(self.labels))

        def target(label: Any) -> float | int | NDArray[np.float32]:
            if self._several:
                sets: NDArray[np.float32] = members([label], self.labels).astype(np.float32)
                return sets.reshape(-1)
            return float(label) if self.config.regression else places[label]

        return [{} if example.label is None else {"label": target(example.label)} for example in examples]

    def _in_sets(self, examples: Sequence[Example], rejects: Rejects) -> list[Example]:
        """Labels as tuples, where a text may have several; the first file settles whether."""
        config = self.config
        if config.multi_label is None and config.regression is None:
            several = bool(config.separator) or any(example.label.endswith(LISTED) for example in examples)
            self.config = config = config.model_copy(update={"multi_label": several and self.name == "classify"})
        good = []
        for example in examples:
            labels = split_labels(example.label, config.separator)
            if config.multi_label and "" in labels:
                rejects.add("no_label", example.where, "one of the labels is empty")
            elif config.multi_label:
                good.append(Example(example.fields, tuple(dict.fromkeys(labels)), example.where))
            elif example.label.endswith(LISTED):
                message = "a list of labels where a text has one; --set task.multi_label=true learns several"
                rejects.add("several_labels", example.where, message)
            else:
                good.append(example)
        return good

    def _announce(self, table: Table, columns: Columns) -> None:
        if table.told:
            self.say(f"{table.path}: {table.told}")
        if self.config.text_column and self.config.label_column:
            return
        self.say(f"{table.path}: {columns.shown(table)} (override with text_column, pair_column, label_column)")

    def _settle(self, path: Path, examples: Sequence[Example], *, paired: bool) -> None:
        """Complete the config from the first file."""
        config = self.config
        values = Counter(label for example in examples for label in _labels(example))
        regression = config.regression
        if regression is None:
            regression = not self._several and not config.labels and are_scores(values)
        labels = config.labels
        if regression and config.regression is None and len(values) == 1 and len(examples) > 1:
            raise DataError(
                f"{path}: all {len(examples)} rows have the score {next(iter(values))}; give rows that differ"
            )
        if not regression and not labels:
            order = (lambda label: (float(label), label)) if all(map(is_number, values)) else None
            labels = tuple(sorted(values, key=order))
            if len(labels) < 2 and not (labels and self._several and any(not example.label for example in examples)):
                raise DataError(
                    f"{path}: all {len(examples)} rows have the label {labels[0] if labels else 'nothing'!r}; "
                    "a classifier needs rows of at least two classes"
                )
        update = {"labels": () if regression else labels, "regression": regression, "pair": paired}
        self.config = config.model_copy(update=update)

    def _check(self, examples: list[Example], rejects: Rejects) -> list[Example]:
        good = []
        known = set(self.config.labels)
        for example in examples:
            if not self.config.regression:
                if unknown := [label for label in _labels(example) if label not in known]:
                    message = f"label {unknown[0]!r} is not one of {shown(self.config.labels)}"
                    rejects.add("unknown_label", example.where, message)
                elif self._several:
                    implied = closed(example.label, self.config.labels, self.config.levels)
                    good.append(Example(example.fields, implied, example.where))
                else:
                    good.append(example)
            elif is_number(example.label) and math.isfinite(float(example.label)):
                good.append(Example(example.fields, float(example.label), example.where))
            else:
                rejects.add("label_not_a_number", example.where, f"label {example.label!r} is not a finite number")
        if not good:
            raise DataError(f"{examples[0].where}: no usable row is left; {rejects.tally.summary()}")
        return good


def _labels(example: Example) -> Sequence[str]:
    return example.label if isinstance(example.label, tuple) else (example.label,)
