"""Sorting texts, or pairs of texts, into classes; or giving them a number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
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
from bertsmith.tasks.rows import Rejects, Table, is_number, read_table
from bertsmith.tokenizer.load import Tokenizer

# Annotators did not agree on these (SNLI, MNLI, OCNLI); every published score leaves them out.
MOSTLY = 0.9
"""Share of labels that must be numbers for those with decimals to be scores."""
NO_AGREEMENT = "-"


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
    max_length: int = Field(
        default=256, ge=8, description="longest sequence in pieces; longer texts are cut, and counted"
    )
    skip_bad_rows: bool = Field(default=False, description="count bad rows instead of stopping at the first")


class Classification:
    """One text or a pair, to one of several classes or to a number.

    Source: Devlin et al. 2019, section 4.1 (arXiv:1810.04805).
    """

    name = "classify"

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
    def headline(self) -> str:
        """Accuracy, or Pearson's correlation for numbers."""
        return "pearson" if self.config.regression else "accuracy"

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

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read a labelled file. The first one settles the classes, later ones are held to them.

        Raises:
            DataError: names file, line and what to do.
        """
        config = self.config
        named = [name for name in (config.text_column, config.pair_column, config.label_column) if name]
        return self.labelled(read_table(path, tally, skip_bad_rows=config.skip_bad_rows, named=named), tally)

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
            elif label == NO_AGREEMENT:
                tally.add("no_agreed_label", row.where)
            else:
                examples.append(Example(cells, label, row.where))
        if not examples:
            raise DataError(f"{path}: no usable row is left; {tally.summary()}")
        self._settle(path, examples, paired=columns.pair is not None)
        return self._check(examples, rejects)

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """One sequence an example, `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`, cut longest first."""
        first = self.pieces([example.fields["text"] for example in examples])
        pairs = [example.fields.get("pair") for example in examples]
        second = iter(self.tokenizer.encode([pair for pair in pairs if pair is not None]))
        encodings = []
        for example, a, pair in zip(examples, first, pairs, strict=True):
            b = None if pair is None else next(second).ids
            encoding, cut = join_texts(self.tokenizer, a, b, self.config.max_length, keep_end=self.keep_end)
            if cut and tally is not None:
                tally.add("cut_to_max_length", example.where)
            targets = {} if example.label is None else {"label": self._target(example.label)}
            encodings.append(Encoding(encoding.input_ids, encoding.segment_ids, targets))
        return encodings

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The pieces of the first text of each row."""
        return [pieces.ids for pieces in self.tokenizer.encode(texts)]

    def head(self, model_config: ModelConfig) -> Heads:
        """A classifier over the pooled [CLS], one output a class, or a single one for numbers."""
        check_length(self.config, self.config.max_length, model_config)
        return Heads(classify=1 if self.config.regression else len(self.labels))

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Cross-entropy, or the squared error for numbers."""
        logits, gold = outputs["classify"].float(), batch.targets["label"]
        count = batch.num_sequences
        if self.config.regression:
            return Loss(F.mse_loss(logits[:, 0], gold, reduction="sum"), count)
        total = F.cross_entropy(logits, gold, reduction="sum")
        return Loss(total, count, {"accuracy": ((logits.detach().argmax(-1) == gold).sum(), count)})

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """`{"label", "score", "probabilities"}`, or `{"value"}` for numbers."""
        if not outputs:
            return []
        logits = np.stack([output["classify"] for output in outputs]).astype(np.float64)
        if self.config.regression:
            return [{"value": float(value)} for value in logits[:, 0]]
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        answers = []
        for row in weights / weights.sum(-1, keepdims=True):
            best = int(row.argmax())
            probabilities = dict(zip(self.labels, row.tolist(), strict=True))
            answers.append({"label": self.labels[best], "score": float(row[best]), "probabilities": probabilities})
        return answers

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """Accuracy, macro-F1 and MCC (and F1 of the second class when there are two); or the two correlations."""
        if self.config.regression:
            gold = np.array([example.label for example in examples], dtype=np.float64)
            values = np.array([answer["value"] for answer in answers], dtype=np.float64)
            error = float(np.mean((gold - values) ** 2))
            return {"pearson": pearson(gold, values), "spearman": spearman(gold, values), "mse": error}
        truth, guesses = self.indices(answers, examples)
        scores = {
            "accuracy": metrics.accuracy(truth, guesses),
            "macro_f1": metrics.macro_f1(truth, guesses),
            "mcc": metrics.matthews(truth, guesses),
        }
        if len(self.labels) == 2:
            hits = int(((truth == 1) & (guesses == 1)).sum())
            scores["f1"] = 2 * hits / max(1, int((truth == 1).sum() + (guesses == 1).sum()))
        return scores

    def indices(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Gold and predicted classes as indices into `labels`."""
        index = {label: i for i, label in enumerate(self.labels)}
        gold = np.array([index[example.label] for example in examples], dtype=np.int64)
        return gold, np.array([index[answer["label"]] for answer in answers], dtype=np.int64)

    def _target(self, label: Any) -> float | int:
        return float(label) if self.config.regression else self.labels.index(label)

    def _announce(self, table: Table, columns: Columns) -> None:
        config = self.config
        if config.text_column and config.label_column:
            return
        chosen = {"text": columns.text, "pair": columns.pair, "label": columns.label}
        parts = [f"{role} = column {table.columns[i]!r}" for role, i in chosen.items() if i is not None]
        self.say(f"{table.path}: {', '.join(parts)} (override with text_column, pair_column, label_column)")

    def _settle(self, path: Path, examples: Sequence[Example], *, paired: bool) -> None:
        """Complete the config from the first file."""
        config = self.config
        values = Counter(example.label for example in examples)
        regression = config.regression
        if regression is None:
            regression = not config.labels and _are_scores(values)
        labels = config.labels
        if not regression and not labels:
            order = (lambda label: (float(label), label)) if all(map(is_number, values)) else None
            labels = tuple(sorted(values, key=order))
            if len(labels) == 1:
                raise DataError(
                    f"{path}: all {len(examples)} rows have the label {labels[0]!r}; "
                    "a classifier needs rows of at least two classes"
                )
        update = {"labels": () if regression else labels, "regression": regression, "pair": paired}
        self.config = config.model_copy(update=update)

    def _check(self, examples: list[Example], rejects: Rejects) -> list[Example]:
        good = []
        known = set(self.config.labels)
        for example in examples:
            if not self.config.regression:
                if example.label in known:
                    good.append(example)
                else:
                    message = f"label {example.label!r} is not one of {_shown(self.config.labels)}"
                    rejects.add("unknown_label", example.where, message)
            elif is_number(example.label) and math.isfinite(float(example.label)):
                good.append(Example(example.fields, float(example.label), example.where))
            else:
                rejects.add("label_not_a_number", example.where, f"label {example.label!r} is not a finite number")
        if not good:
            raise DataError(f"{examples[0].where}: no usable row is left; {rejects.tally.summary()}")
        return good


def _are_scores(values: Counter[str]) -> bool:
    """Whether labels are numbers to predict: some have decimals, and nearly all are numbers; or none is finite.

    A single word among scores is a bad row, not a reason to take each score for a class.
    """
    numbers = {label: count for label, count in values.items() if is_number(label)}
    if numbers.keys() == values.keys() and not any(math.isfinite(float(label)) for label in values):
        return True
    decimals = any(math.isfinite(float(label)) and float(label) != int(float(label)) for label in numbers)
    return decimals and sum(numbers.values()) >= MOSTLY * values.total()


def join_texts(
    tokenizer: Tokenizer,
    a: NDArray[np.int32],
    b: NDArray[np.int32] | None,
    max_length: int,
    *,
    keep_end: bool = False,
) -> tuple[Encoding, bool]:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, at most `max_length` pieces, and whether it had to be cut.

    The longer text loses its end first, as in BERT; with `keep_end` the first text loses its beginning instead.
    """
    cls, sep = np.array([tokenizer.cls_id], np.int32), np.array([tokenizer.sep_id], np.int32)
    if b is None:
        room = max_length - 2
        ids = np.concatenate([cls, a[max(0, len(a) - room) :] if keep_end else a[:room], sep])
        return Encoding(ids, np.zeros(len(ids), np.int32)), len(a) > room
    room = max_length - 3
    cut = len(a) + len(b) > room
    if cut:
        longer = len(a) > len(b)
        b = b[: room // 2] if longer else b
        most = room - len(b) if longer else room - room // 2
        a = a[max(0, len(a) - most) :] if keep_end else a[:most]
        b = b[: room - len(a)]
    segments = np.repeat(np.array([0, 1], np.int32), [len(a) + 2, len(b) + 1])
    return Encoding(np.concatenate([cls, a, sep, b, sep]), segments), cut


def _shown(labels: Sequence[str], most: int = 12) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more
