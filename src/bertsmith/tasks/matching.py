"""Whether two texts go together: read as one by a cross-encoder, or each as a vector by a bi-encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics.classification import accuracy, precision_recall_f1
from bertsmith.metrics.correlation import pearson, spearman
from bertsmith.metrics.ranking import average_precision, best_threshold, ranking_scores
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.contrast import also_right, cosent
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.base import Answer, Example, Loss, Member, Outputs, check_length, say_on_stderr
from bertsmith.tasks.candidates import against_all, among_drawn, texts_of
from bertsmith.tasks.classification import Classification, ClassificationConfig
from bertsmith.tasks.decisions import Decided
from bertsmith.tasks.dialogue import turn_ids
from bertsmith.tasks.joining import join_texts
from bertsmith.tasks.label_sets import positive_of
from bertsmith.tasks.pairs import (
    check_contrast,
    choose_together,
    dialogue_rows,
    draw_negatives,
    is_labelled,
    is_list,
    read_together,
)
from bertsmith.tasks.rows import is_number, read_table
from bertsmith.tasks.values import Rejects
from bertsmith.tokenizer.load import Tokenizer

MANY = 20
"""More labels than this are texts rather than labels where most rows have one of their own."""


class MatchingConfig(ClassificationConfig):
    """How rows of two texts are read, and how the two are compared."""

    mode: Literal["cross", "bi"] = Field(
        "cross",
        description="cross: both texts in one sequence, exact and slow; bi: a vector a text, to search among many",
    )
    pooling: Literal["mean", "cls"] = Field("mean", description="bi: a text's vector, the mean of its pieces or [CLS]")
    normalize: bool = Field(True, description="bi: vectors have length 1")
    temperature: float = Field(
        0.05, gt=0, allow_inf_nan=False, description="bi: cosines are divided by this in the loss"
    )
    prompt: str = Field("", description="bi: put before every text")
    labelled: bool | None = Field(
        None,
        description="whether rows have a label; if not, each is two texts that go together; by default as the file is",
    )
    negative_column: str | None = Field(
        None, description="column of a text that does not go with the first; by default those called negative, neg_1, …"
    )
    drawn: int = Field(
        4, ge=1, description="cross: texts of other rows set against each where rows have no label and no negative"
    )
    candidates: int | None = Field(
        None, ge=2, description="bi: rank each text's partner among so many, the others drawn; by default among all"
    )
    turns: bool | None = Field(
        None, description="a first text's lines are turns of a dialogue, the last ones kept; by default as the file is"
    )
    max_turns: int = Field(8, ge=1, description="of a dialogue, turns before the response")
    positive: str | None = Field(
        None,
        description="the label of texts that go together; by default the one of two that does not deny the other "
        "(match, no match), else the last in the alphabet",
    )
    threshold: float | None = Field(
        None, ge=-1, le=1, description="bi, two labels: cosine from which texts go together; found on dev"
    )


class Matching(Classification):
    """Two texts, to a label or a number, or to their place among others.

    A cross-encoder is a classifier of pairs. A bi-encoder learns from rows without labels to tell each text's own
    partner from those of the other rows of a step and from the negatives that the rows bring; from labels or numbers,
    to have cosines in their order.

    Sources: Reimers & Gurevych 2019 (arXiv:1908.10084); Henderson et al. 2017, section 4.4 (arXiv:1705.00652) for
    negatives from the batch; Su 2022, "CoSENT" (kexue.fm/archives/8847) for the order of cosines.
    """

    name = "match"
    config: MatchingConfig

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: MatchingConfig | None = None,
        *,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        """As Classification; a cross-encoder takes nothing but pairs, a bi-encoder also single texts."""
        config = config or MatchingConfig()
        super().__init__(tokenizer, config.model_copy(update={"pair": None if config.mode == "bi" else True}), say=say)

    @property
    def output(self) -> str:
        """A cross-encoder's head reads [CLS]; `pooling` is a bi-encoder's."""
        return "classify"

    @property
    def joint(self) -> bool:
        """Whether the loss compares the sequences of a step with each other."""
        return self.config.mode == "bi"

    @property
    def decides(self) -> Decided | None:
        """As Classification; a bi-encoder's loss compares rows."""
        return None if self.config.mode == "bi" else super().decides

    @property
    def paired(self) -> bool:
        """A file must hold two texts a row."""
        return True

    @property
    def headline(self) -> str:
        """Spearman's correlation for numbers, average precision for two labels, accuracy for more, or else nDCG."""
        if self.config.regression:
            return "spearman"
        if self.config.labels:
            return "ap" if len(self.config.labels) == 2 else "accuracy"
        return "ndcg@10"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of a cross-encoder's outputs; none for numbers and for a bi-encoder."""
        return () if self.config.mode == "bi" else self.config.labels

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read a file of pairs, with labels or without; see `tasks.pairs` for the latter.

        Raises:
            DataError: names file, line and what to do.
        """
        config = self.config
        if (examples := dialogue_rows(path, tally, config.max_turns, skip=config.skip_bad_rows)) is not None:
            self.config = config.model_copy(update={"turns": True})
            self.say(f"{path}: dialogues: each turn goes with the {config.max_turns} turns before it")
            check_contrast(path, examples)
            return examples if config.mode == "bi" else self._as_labelled(path, examples)
        named = (config.text_column, config.pair_column, config.negative_column, config.label_column)
        skip = config.skip_bad_rows
        table = read_table(path, tally, skip_bad_rows=skip, named=list(filter(None, named)), lists=is_list)
        labelled = config.labelled
        if labelled is None:
            labelled = bool(config.label_column) or (not config.negative_column and is_labelled(table))
        if labelled:
            return self.labelled(table, tally)
        columns = choose_together(
            table, text=config.text_column, pair=config.pair_column, negative=config.negative_column
        )
        told = {"text": [columns.query], "pair": columns.positives, "negative": columns.negatives}
        parts = [f"{role} = column {', '.join(repr(table.columns[i]) for i in at)}" for role, at in told.items() if at]
        how = f"; {table.told}" if table.told else ""
        self.say(f"{path}: no labels: each row is two texts that go together; {', '.join(parts)}{how}")
        rejects = Rejects(tally, skip=skip)
        examples = read_together(table, columns, rejects)
        if not examples:
            raise DataError(f"{path}: no usable row is left; {tally.summary()}")
        check_contrast(path, examples)
        return examples if config.mode == "bi" else self._as_labelled(path, examples)

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """A cross-encoder reads `[CLS] text [SEP] pair [SEP]`; for a bi-encoder each text is a sequence of its own."""
        if self.config.mode == "cross":
            return super().encode(examples, tally)
        texts = [texts_of(example) for example in examples]
        ids = {text: number for number, text in enumerate(dict.fromkeys(text for mine in texts for text in mine))}
        joined = [
            join_texts(self.tokenizer, mine, None, self.config.max_length, keep_end=self.keep_end and "\n" in text)
            for text, mine in zip(ids, self.pieces([self.config.prompt + text for text in ids]), strict=True)
        ]
        members: list[Encoding] = []
        for number, (example, mine) in enumerate(zip(examples, texts, strict=True)):
            for role, text in enumerate(mine):
                encoding, cut = joined[ids[text]]
                if cut and tally is not None:
                    tally.add("cut_to_max_length", example.where)
                targets: dict[str, Any] = {}
                if example.label is not None:
                    targets = {"example": number, "role": role}
                    targets |= (
                        {"text": ids[text]} if example.label is True else {"similar": self._similar(example.label)}
                    )
                members.append(Member(encoding.input_ids, encoding.segment_ids, targets, example=number, role=role))
        return members

    @property
    def keep_end(self) -> bool:
        """Of a dialogue the last turns count."""
        return bool(self.config.turns)

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The pieces of each text; of a dialogue with [SEP] between two turns."""
        if self.config.turns:
            return turn_ids(self.tokenizer, texts)
        return [ids for ids, _ in self.tokenizer.encode_ids(texts)]

    def head(self, model_config: ModelConfig) -> Heads:
        """A classifier over the pooled [CLS], or for a bi-encoder nothing but a way of pooling."""
        if self.config.mode == "cross":
            return super().head(model_config)
        check_length(self.config.max_length, model_config)
        return Heads(embed=self.config.pooling)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Cross-entropy or squared error; for a bi-encoder that of its own partner among all, or CoSENT."""
        if self.config.mode == "cross":
            return super().loss(outputs, batch)
        vectors = F.normalize(outputs["embed"].float(), dim=-1)
        targets = batch.targets
        order = torch.argsort(targets["example"] * (int(targets["role"].max()) + 1) + targets["role"])
        role = targets["role"][order]
        vectors, first, second, more = vectors[order], role == 0, role == 1, role > 1
        if "similar" in targets:
            cosines = (vectors[first] * vectors[second]).sum(-1) / self.config.temperature
            return Loss(cosent(cosines, targets["similar"][order][first]) * len(cosines), len(cosines))
        texts = targets["text"][order]
        logits = vectors[first] @ torch.cat([vectors[second], vectors[more]]).T / self.config.temperature
        known = also_right(texts[first], texts[second], torch.cat([texts[second], texts[more]]))
        logits = logits.masked_fill(known, -math.inf)
        gold = torch.arange(len(logits), device=logits.device)
        right = (logits.detach().argmax(-1) == gold).sum()
        return Loss(F.cross_entropy(logits, gold, reduction="sum"), len(gold), {"accuracy": (right, len(gold))})

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """As Classification; for a bi-encoder `{"similarity"}` of a pair, `{"embedding"}` of a single text.

        A similarity is a cosine, -1 to 1. Where two labels were learned, `label` says which. Rows without labels also
        give `vectors` `[n, H]` of length 1, from which `score` ranks.
        """
        if self.config.mode == "cross":
            return super().decode(outputs, encodings, examples)
        found: list[list[NDArray[np.float32]]] = [[] for _ in examples]
        for output, encoding in zip(outputs, encodings, strict=True):
            assert isinstance(encoding, Member)
            found[encoding.example].append(output["embed"])
        return [self._answer(np.stack(mine), example) for mine, example in zip(found, examples, strict=True)]

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """What fits the rows: correlations, accuracy and average precision, or nDCG, MRR, recall and hits.

        Labelled rows are also ranked, each query's own candidates, where every query has candidates of both kinds;
        rows without labels against all texts of the file.
        """
        if self.config.mode == "cross":
            scores = super().score(answers, examples)
            if len(self.labels) != 2:
                return scores
            return scores | self._order(examples, [answer["probabilities"][self.labels[1]] for answer in answers])
        if examples[0].label is True:
            if self.config.candidates is not None:
                return ranking_scores(among_drawn(answers, examples, self.config.candidates))
            return ranking_scores(against_all(answers, examples))
        similarities = [answer["similarity"] for answer in answers]
        if self.config.regression:
            gold = [float(example.label) for example in examples]
            return {"spearman": spearman(gold, similarities), "pearson": pearson(gold, similarities)}
        scores = self._order(examples, similarities)
        if self.config.threshold is not None:
            truth, guesses = [example.label for example in examples], [answer["label"] for answer in answers]
            f1 = precision_recall_f1(truth, guesses, self.config.labels)[self.config.labels[1]].f1
            scores |= {"accuracy": accuracy(truth, guesses), "f1": f1}
        return scores

    def tune(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[Answer]:
        """Choose on held-out rows what is not learned: the cosine from which texts go together, for the best F1.

        Args:
            answers: to `examples`.
            examples: labelled.

        Returns:
            The answers by the new threshold; the same ones where there is nothing to choose.
        """
        if self.config.mode == "cross" or len(self.config.labels) != 2 or examples[0].label is True:
            return list(answers)
        gold = [self._similar(example.label) for example in examples]
        if len(set(gold)) == 1:
            self.say(f"all {len(gold)} dev rows have one label: from which cosine on texts go together is not chosen")
            return list(answers)
        at = best_threshold(gold, [answer["similarity"] for answer in answers])
        self.config = self.config.model_copy(update={"threshold": at})
        return [answer | self._verdict(answer["similarity"]) for answer in answers]

    def _similar(self, label: Any) -> float:
        return float(label) if self.config.regression else float(label == self.config.labels[1])

    def _verdict(self, similarity: float) -> Answer:
        at = self.config.threshold
        return {} if at is None else {"label": self.config.labels[int(similarity >= at)]}

    def _answer(self, vectors: NDArray[np.float32], example: Example) -> Answer:
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        unit = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        if "pair" not in example.fields:
            return {"embedding": (unit if self.config.normalize else vectors)[0].tolist()}
        similarity = float(np.clip(unit[0].astype(np.float64) @ unit[1].astype(np.float64), -1, 1))
        answer = self._verdict(similarity) | {"similarity": similarity}
        return answer | {"vectors": unit} if example.label is True else answer

    def _order(self, examples: Sequence[Example], scores: Sequence[float]) -> dict[str, float]:
        """Average precision over all rows, and the ranking of each query's own candidates where there is one."""
        gold = [float(example.label == self.config.labels[1]) for example in examples]
        queries: dict[str, tuple[list[float], list[float]]] = {}
        for example, right, score in zip(examples, gold, scores, strict=True):
            mine = queries.setdefault(example.fields["text"], ([], []))
            mine[0].append(right)
            mine[1].append(score)
        both = all(0 < sum(relevance) < len(relevance) for relevance, _ in queries.values())
        return {"ap": average_precision(gold, scores)} | (ranking_scores(queries.values()) if both else {})

    def _settle(self, path: Path, examples: Sequence[Example], *, paired: bool) -> None:
        config = self.config
        values = sorted({example.label for example in examples})
        first = config.regression is None and not config.labels
        words = sum(map(is_number, values)) <= len(values) / 2
        if first and words and len(values) > max(MANY, len(examples) / 2):
            raise DataError(
                f"{path}: {len(values)} different labels in {len(examples)} rows; if these are texts that do not "
                "go with the first, name it with task.negative_column, else the right one with task.label_column"
            )
        if first and config.mode == "bi" and len(values) > 2:
            if words:
                raise DataError(
                    f"{path}: a bi-encoder learns from two labels or from numbers; here are {len(values)} labels "
                    f"({', '.join(values[:4])}, …); leave task.mode=bi out, or give rows of another kind"
                )
            self.config = config.model_copy(update={"regression": True})
        super()._settle(path, examples, paired=paired)
        config = self.config
        if first and config.regression and len(values) == 1:
            raise DataError(f"{path}: all {len(examples)} rows have the score {values[0]}; give rows that differ")
        labels = config.labels
        if first and config.positive is None and not config.regression:
            config = config.model_copy(update={"positive": positive_of(labels)})
        if config.positive is not None and not config.regression:
            if config.positive not in labels:
                raise ConfigError(f"task.positive {config.positive!r} is not one of the labels {', '.join(labels)}")
            labels = (*(label for label in labels if label != config.positive), config.positive)
        update = {"labels": labels, "pair": None if config.mode == "bi" else True}
        self.config = config.model_copy(update=update)

    def _as_labelled(self, path: Path, examples: Sequence[Example]) -> list[Example]:
        """Rows of texts that go together as pairs with two labels, for a cross-encoder."""
        labels = self.config.labels or ("0", "1")
        if self.config.regression or len(labels) != 2:
            raise DataError(
                f"{path}: rows without labels, for a model that learned other labels than two; add a label column"
            )
        self.config = self.config.model_copy(update={"labels": labels, "regression": False})
        result = []
        for example in draw_negatives(examples, self.config.drawn):
            texts = [example.fields["pair"], *example.fields["negatives"]]
            for number, text in enumerate(texts):
                fields = {name: value for name, value in example.fields.items() if name != "negatives"}
                result.append(Example(fields | {"pair": text}, labels[number == 0], example.where))
        return result
