"""Spans as one IOB2 tag a word: each word belongs to one span at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bertsmith.metrics.spans import conlleval_f1
from bertsmith.model import crf
from bertsmith.model.config import Heads
from bertsmith.model.packing import Batch
from bertsmith.tasks.annotations import Span, spans_to_tags, split_tag, tags_to_spans, touched_words
from bertsmith.tasks.base import Answer, Example, Loss, Outputs
from bertsmith.tasks.decisions import Decisions
from bertsmith.tasks.word_windows import Window, Words

IGNORED = -100
MOST = 256
"""Texts whose paths are sought together."""


@dataclass(frozen=True)
class Flat:
    """Tags read from the first pieces of words, each for itself or as a chain.

    Attributes:
        labels: the tags, in the order of the head's outputs.
        chain: whether a CRF scores tags that follow each other.

    Source: Devlin et al. 2019, section 5.3 (arXiv:1810.04805); Lample et al. 2016 (arXiv:1603.01360) for the chain.
    """

    labels: tuple[str, ...]
    chain: bool = False
    shared = False
    """Each word is answered for by one window."""

    @staticmethod
    def outputs(types: Sequence[str]) -> tuple[str, ...]:
        """The tags of `types`."""
        return ("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))

    @property
    def types(self) -> set[str]:
        """What a span may be."""
        return {split_tag(tag)[1] for tag in self.labels} - {""}

    @property
    def heads(self) -> Heads:
        """One output a tag and piece."""
        return Heads(tag=len(self.labels), crf=self.chain)

    def refusal(self, spans: Sequence[Span]) -> str | None:
        """Why these spans, sorted, cannot be tags; None where they can."""
        furthest = Span(0, 0, "")
        for span in spans:
            if span.start < furthest.end:
                return (
                    f"the spans {furthest.start} to {furthest.end} ({furthest.type}) and {span.start} to {span.end} "
                    f"({span.type}) overlap, and this head gives each word one tag; --set task.head=span learns both"
                )
            furthest = max(furthest, span, key=lambda one: one.end)
        return None

    def with_targets(self, windows: Sequence[Window], spans: Sequence[Span], words: Words) -> tuple[list[Window], int]:
        """The windows of one text with their gold tags, and how many spans do not end where words do."""
        tags, inexact, overlapping = spans_to_tags(spans, words)
        gold = np.array([self._index(tag) for tag in tags], dtype=np.int64)
        found = []
        for window in windows:
            target = np.full(len(window.input_ids), IGNORED, dtype=np.int64)
            target[window.positions] = gold[window.owned]
            found.append(replace(window, targets={"tag": target}))
        return found, inexact + overlapping

    def decisions(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[Decisions]:
        """One for each word, where tags do not depend on each other."""
        counted = (gold := batch.targets["tag"]) != IGNORED
        return [Decisions("classes", outputs["tag"].float()[counted], gold[counted])]

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Cross-entropy of the tags; of a chain, of the whole path, a window's words being one."""
        logits, gold = outputs["tag"].float(), batch.targets["tag"]
        counted = gold != IGNORED
        right = ((logits.detach().argmax(-1) == gold) & counted).sum()
        parts = {"accuracy": (right, counted.sum())}
        if not self.chain:
            total = F.cross_entropy(logits, gold, ignore_index=IGNORED, reduction="sum")
            return Loss(total, counted.sum(), parts)
        lengths = [length for part in counted.split(list(batch.lengths)) if (length := int(part.sum()))]
        if not lengths:
            return Loss(logits.sum() * 0, counted.sum(), parts)
        emissions, path, table = logits[counted], gold[counted], outputs["crf"][0]
        total = crf.log_partition(emissions, table, lengths) - crf.path_score(emissions, table, path, lengths)
        return Loss(total.sum(), counted.sum(), parts)

    def decode(
        self, outputs: Sequence[Outputs], windows: Sequence[Window], examples: Sequence[Example]
    ) -> Iterator[Answer]:
        """The best legal tags of each text, as entities."""
        # Words without a piece of their own, such as control characters, belong to nothing.
        nothing = np.where(np.array(self.labels) == "O", 0.0, crf.FORBIDDEN).astype(np.float32)
        scores = [np.zeros((0, len(nothing)), np.float32)] * len(examples)
        words: list[Words] = [()] * len(examples)
        for output, window in zip(outputs, windows, strict=True):
            if not len(words[window.example]):
                words[window.example] = window.words
                scores[window.example] = np.tile(nothing, (len(window.words), 1))
            scores[window.example][window.owned] = output["tag"][window.positions]
        learned = outputs[0]["crf"] if self.chain and outputs else None
        for start in range(0, len(examples), MOST):
            part = slice(start, start + MOST)
            paths = best_tags(scores[part], self.labels, learned)
            for example, mine, (tags, certainty) in zip(examples[part], words[part], paths, strict=True):
                entities = list(_entities(example.fields["text"], mine, tags, certainty))
                yield {"text": example.fields["text"], "entities": entities, "words": list(mine), "tags": tags}

    def scores(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """F1 of entities as conlleval reads tags."""
        gold = [
            spans_to_tags(example.label, answer["words"])[0] for answer, example in zip(answers, examples, strict=True)
        ]
        return {"f1_conlleval": conlleval_f1(gold, [answer["tags"] for answer in answers])}

    def _index(self, tag: str) -> int:
        return self.labels.index(tag) if tag in self.labels else self.labels.index(tag.replace("B-", "I-", 1))


def legal(labels: Sequence[str]) -> NDArray[np.float32]:
    """A table of transitions, as `model.crf` has it, that forbids an inside tag that does not follow its type.

    Args:
        labels: C tags; of a type that has no B-tag, I-tags may begin.

    Returns:
        `[C + 2, C]`: 0, or `FORBIDDEN`.
    """
    parts = [split_tag(label) for label in labels]
    begun = {kind for prefix, kind in parts if prefix == "B"}
    before = [*parts, ("O", ""), ("O", "")]
    forbidden = np.array(
        [[b == "I" and kind in begun and (a == "O" or other != kind) for b, kind in parts] for a, other in before]
    )
    forbidden[-1] = False  # any tag may be the last
    return np.where(forbidden, crf.FORBIDDEN, 0.0).astype(np.float32)


def best_tags(
    logits: Sequence[NDArray[np.float32]], labels: Sequence[str], learned: NDArray[np.float32] | None = None
) -> list[tuple[list[str], NDArray[np.float32]]]:
    """For each text the most probable of the legal tag sequences, and the probability of each of its tags.

    Args:
        logits: `[n, C]` each.
        labels: the C tags.
        learned: a CRF's table, `[C + 2, C]`; None: tags do not depend on each other, but for being legal.
    """
    lengths = [len(one) for one in logits]
    used = [length for length in lengths if length]
    if not used:
        return [([], np.zeros(0, np.float32)) for _ in logits]
    emissions = torch.from_numpy(np.concatenate(logits)).float()
    table = torch.from_numpy(legal(labels) + (0 if learned is None else learned))
    if learned is None:
        emissions = emissions.log_softmax(-1)
    chances = emissions.exp() if learned is None else crf.marginals(emissions, table, used)
    path = crf.best_path(emissions, table, used)
    certainty = chances.gather(1, path[:, None])[:, 0]
    return [
        ([labels[i] for i in mine.tolist()], sure.numpy())
        for mine, sure in zip(path.split(lengths), certainty.split(lengths), strict=True)
    ]


def _entities(text: str, words: Words, tags: Sequence[str], certainty: NDArray[np.float32]) -> Iterator[Answer]:
    for span in tags_to_spans(tags, words)[0]:
        touched = touched_words(span, words)
        score = float(certainty[touched.start : touched.stop].mean())
        surface = text[span.start : span.end]
        yield {"start": span.start, "end": span.end, "type": span.type, "text": surface, "score": score}
