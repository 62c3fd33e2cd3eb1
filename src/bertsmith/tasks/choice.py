"""Choosing the right one of several texts: endings of a story, answers to a question about a passage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics.classification import accuracy
from bertsmith.metrics.ranking import reciprocal_rank
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.base import Answer, Example, Loss, Member, Outputs, check_length, say_on_stderr
from bertsmith.tasks.choices import read_choices
from bertsmith.tasks.decisions import Decided, Decisions
from bertsmith.tasks.joining import join_texts
from bertsmith.tokenizer.load import Tokenizer


class ChoiceConfig(Config):
    """How choices are read and cut."""

    pair: ClassVar[bool] = False

    context_column: str | None = Field(None, description="column of the text; known names are tried")
    question_column: str | None = Field(
        None, description="column of a question, or of a beginning that the choices go on from; known names are tried"
    )
    choice_columns: tuple[str, ...] = Field(
        (), description="columns of the choices; by default choice 1, ending0, A, …"
    )
    label_column: str | None = Field(None, description="column of the right choice; known names are tried")
    first: int | None = Field(
        None, ge=0, le=1, description="number of the first choice where labels are numbers; by default as they suggest"
    )
    max_length: int = Field(256, ge=8, description="longest sequence in pieces; the longer text loses its end first")
    skip_bad_rows: bool = Field(False, description="count bad rows instead of stopping at the first")


class Choice:
    """Each choice is read with the text and the question, and gets one number; the highest one is chosen.

    Source: Devlin et al. 2019, section 4.4 (arXiv:1810.04805); Zellers et al. 2018 (SWAG, arXiv:1808.05326); Sun et al.
    2020 (C3, arXiv:1904.09679).
    """

    name = "choose"
    headline = "accuracy"
    labels: tuple[str, ...] = ()
    joint = True
    """The loss compares the choices of an example, so a step that is cut into batches is taken as a whole."""
    several = True
    """Takes a text and any number of choices."""
    decides: Decided = "places"

    def __init__(
        self, tokenizer: Tokenizer, config: ChoiceConfig | None = None, *, say: Callable[[str], None] = say_on_stderr
    ) -> None:
        """Build the task; the first file that it reads settles whether choices are counted from 0 or from 1.

        Args:
            tokenizer: turns text into pieces.
            config: what is already known.
            say: takes sentences meant for the user.
        """
        self.tokenizer = tokenizer
        self.config = config or ChoiceConfig()
        self.say = say

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read texts with their choices and the number of the right one, from 0.

        Raises:
            DataError: names file, line and what to do.
        """
        return self._read(path, tally, labelled=True)

    def unlabelled(self, path: Path, tally: Tally) -> list[Example]:
        """Read texts with their choices; which one is right need not be known.

        Raises:
            DataError: names file and line.
        """
        return self._read(path, tally, labelled=False)

    def asked(self, texts: Sequence[str], where: str) -> Example:
        """An example of a text and its choices.

        Args:
            texts: the text, then two choices or more.
            where: names it in errors.

        Raises:
            DataError: there are fewer than two choices.
        """
        if isinstance(texts, str) or len(texts) < 3:
            raise DataError(f"{where}: this model chooses; give a text and after it two choices or more")
        return Example({"text": texts[0], "choices": tuple(texts[1:])}, where=where)

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """`[CLS] text [SEP] question choice [SEP]` for each choice; without a text the question stands in its place."""
        members: list[Encoding] = []
        firsts, seconds, owners = [], [], []
        for number, example in enumerate(examples):
            fields = example.fields
            text, question = fields["text"], fields.get("question", "")
            for role, choice in enumerate(fields["choices"]):
                firsts.append(text or question)
                seconds.append(" ".join(filter(None, (question if text else "", choice))))
                owners.append((number, role))
        distinct = list(dict.fromkeys(firsts))
        known = dict(zip(distinct, (ids for ids, _ in self.tokenizer.encode_ids(distinct)), strict=True))
        cut_already = set()
        for first, (second, _), (number, role) in zip(firsts, self.tokenizer.encode_ids(seconds), owners, strict=True):
            encoding, cut = join_texts(self.tokenizer, known[first], second, self.config.max_length)
            example = examples[number]
            if cut and tally is not None and number not in cut_already:
                tally.add("cut_to_max_length", example.where)
                cut_already.add(number)
            targets = {} if example.label is None else {"example": number, "gold": int(role == example.label)}
            members.append(Member(encoding.input_ids, encoding.segment_ids, targets, example=number, role=role))
        return members

    def head(self, model_config: ModelConfig) -> Heads:
        """One number a sequence, over the pooled [CLS]."""
        check_length(self.config.max_length, model_config)
        return Heads(choose=True)

    def decisions(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[Decisions]:
        """One for each example; choices stand in the order of the batch."""
        logits = outputs["choose"].float()[:, 0]
        _, place, sizes = torch.unique(batch.targets["example"], return_inverse=True, return_counts=True)
        order = torch.argsort(place, stable=True)
        column = torch.arange(len(order), device=logits.device) - (sizes.cumsum(0) - sizes)[place[order]]
        table = logits.new_full((len(sizes), int(sizes.max())), -torch.inf)
        table[place[order], column] = logits[order]
        return [Decisions("classes", table, column[batch.targets["gold"][order].bool()])]

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Cross-entropy over the choices of each example; the batch holds all of them, in any order."""
        logits, gold = outputs["choose"].float()[:, 0], batch.targets["gold"].bool()
        _, place = torch.unique(batch.targets["example"], return_inverse=True)
        count = int(place.max()) + 1
        most = torch.full((count,), -torch.inf, device=logits.device).scatter_reduce(0, place, logits.detach(), "amax")
        sums = torch.zeros(count, device=logits.device).index_add(0, place, (logits - most[place]).exp())
        total = (sums.log() + most).sum() - logits[gold].sum()
        # Equal floats of two choices are too rare to matter here; `score` counts them as `decode` does.
        right = (logits.detach()[gold] == most[place[gold]]).sum()
        return Loss(total, count, {"accuracy": (right, count)})

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """`{"choice", "chosen", "score", "scores"}`: the number of the chosen one, from 0, and all probabilities."""
        logits: list[dict[int, float]] = [{} for _ in examples]
        for output, encoding in zip(outputs, encodings, strict=True):
            assert isinstance(encoding, Member)
            logits[encoding.example][encoding.role] = float(output["choose"][0])
        answers = []
        for example, found in zip(examples, logits, strict=True):
            values = [found[role] for role in sorted(found)]
            weights = [math.exp(value - max(values)) for value in values]
            shares = [weight / sum(weights) for weight in weights]
            best = int(np.argmax(shares))
            answers.append(
                {"choice": best, "chosen": example.fields["choices"][best], "score": shares[best], "scores": shares}
            )
        return answers

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """Accuracy, mean reciprocal rank of the right choice, and the accuracy of always taking the same number."""
        gold, chosen = [example.label for example in examples], [answer["choice"] for answer in answers]
        ranks = [
            reciprocal_rank([int(number == label) for number in range(len(answer["scores"]))], answer["scores"])
            for answer, label in zip(answers, gold, strict=True)
        ]
        return {
            "accuracy": accuracy(gold, chosen),
            "mrr": float(np.mean(ranks)),
            "most_frequent": max(gold.count(label) for label in set(gold)) / len(gold),
        }

    def _read(self, path: Path, tally: Tally, *, labelled: bool) -> list[Example]:
        config = self.config
        named = {"context": config.context_column, "question": config.question_column, "label": config.label_column}
        examples, first = read_choices(
            path,
            tally,
            named=named,
            choices=config.choice_columns,
            first=config.first,
            labelled=labelled,
            skip_bad_rows=config.skip_bad_rows,
        )
        if labelled and config.first is None:
            self.config = config.model_copy(update={"first": first})
            if first:
                self.say(f"{path}: choices are counted from 1 (override with task.first=0)")
        return examples
