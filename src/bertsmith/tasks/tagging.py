"""Finding spans in text: names, terms, code words."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics.classification import Scores
from bertsmith.metrics.spans import conlleval_f1
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.annotations import Annotated, Span, read_annotated, spans_to_tags, split_tag, tags_to_spans
from bertsmith.tasks.base import Answer, Example, Loss, Outputs, check_length, say_on_stderr
from bertsmith.tasks.rows import Rejects, read_text
from bertsmith.tokenizer.load import Pieces, Tokenizer

IGNORED = -100
Words = Sequence[tuple[int, int]]


class TaggingConfig(Config):
    """How texts are read and cut into windows."""

    labels: tuple[str, ...] = Field(
        default=(), description="the tags, such as O, B-LOC, I-LOC; by default those of the first file"
    )
    max_length: int = Field(
        default=256, ge=16, description="longest sequence in pieces; longer texts are read in windows"
    )
    overlap: float = Field(default=0.25, ge=0.0, lt=1.0, description="share of a window that the next one reads again")
    skip_bad_rows: bool = Field(default=False, description="count bad rows instead of stopping at the first")


@dataclass(frozen=True, slots=True)
class Window(Encoding):
    """A stretch of one example, small enough for the model.

    Attributes:
        example: index of the example among those encoded.
        words: offsets of all words of the example.
        owned: indices of the words that this window answers for, `[n]`.
        positions: where the first piece of each stands in `input_ids`, `[n]`.
    """

    example: int = 0
    words: Words = ()
    owned: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    positions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


class Tagging:
    """One IOB2 tag a word, read from the word's first piece.

    Source: Devlin et al. 2019, section 5.3 (arXiv:1810.04805).
    """

    name = "tag"
    headline = "f1"

    def __init__(
        self, tokenizer: Tokenizer, config: TaggingConfig | None = None, *, say: Callable[[str], None] = say_on_stderr
    ) -> None:
        """Build the task; the first file that it reads settles the labels.

        Args:
            tokenizer: turns text into pieces.
            config: what is already known.
            say: takes sentences meant for the user.
        """
        self.tokenizer = tokenizer
        self.config = config or TaggingConfig()
        self.say = say

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags in the order of the head's outputs."""
        return self.config.labels

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read a labelled file, CoNLL columns or JSON spans. The first one settles the labels.

        An example's label is its spans; `fields["words"]` holds the words' offsets where the file gives words.

        Raises:
            DataError: names file, line and what to do.
        """
        rejects = Rejects(tally, skip=self.config.skip_bad_rows)
        mended_before = tally.counts.get("inside_tag_read_as_beginning", 0)
        annotated = read_annotated(path, read_text(path, tally), rejects)
        if mended := tally.counts.get("inside_tag_read_as_beginning", 0) - mended_before:
            self.say(f"{path}: {mended} entities begin with an I- tag; read as IOB1, where that begins an entity")
        if not self.labels:
            types = sorted({span.type for row in annotated for span in row.spans})
            if not types:
                raise DataError(f"{path}: none of its {len(annotated)} texts has a marked span; a tagger needs some")
            tags = ("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))
            self.config = self.config.model_copy(update={"labels": tags})
        known = {split_tag(tag)[1] for tag in self.labels}
        examples = [example for row in annotated if (example := self._example(row, known, rejects))]
        if not examples:
            raise DataError(f"{path}: no usable text is left; {tally.summary()}")
        return examples

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """Windows of at most `max_length` pieces; each word is answered for by one window."""
        pieces = self.tokenizer.encode([example.fields["text"] for example in examples])
        windows: list[Encoding] = []
        for index, (example, pieced) in enumerate(zip(examples, pieces, strict=True)):
            words: Words = example.fields.get("words") or tokenizer_words(pieced)
            mine = self._windows(index, pieced, words)
            if len(mine) > 1 and tally is not None:
                tally.add("read_in_windows", example.where)
            if example.label is not None:
                tags, inexact, overlapping = spans_to_tags(example.label, words)
                gold = np.array([self._tag(tag) for tag in tags], dtype=np.int64)
                mine = [_with_targets(window, gold) for window in mine]
                if tally is not None and inexact:
                    tally.add("span_ends_inside_a_word", example.where, inexact)
                if tally is not None and overlapping:
                    tally.add("span_inside_another", example.where, overlapping)
            windows.extend(mine)
        return windows

    def head(self, model_config: ModelConfig) -> Heads:
        """A classifier over every piece, one output a tag."""
        check_length(self.config, self.config.max_length, model_config)
        return Heads(tag=len(self.labels))

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Cross-entropy at the first pieces of words."""
        logits, gold = outputs["tag"].float(), batch.targets["tag"]
        counted = gold != IGNORED
        total = F.cross_entropy(logits, gold, ignore_index=IGNORED, reduction="sum")
        right = ((logits.detach().argmax(-1) == gold) & counted).sum()
        return Loss(total, counted.sum(), {"accuracy": (right, counted.sum())})

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """`{"text", "entities", "words", "tags"}`; an entity is `{"start", "end", "type", "text", "score"}`.

        Offsets are characters of `text`, `end` not included; the score is the mean probability of its tags.
        """
        # Words without a piece of their own, such as control characters, belong to nothing.
        nothing = np.where(np.array(self.labels) == "O", 0.0, -1e4)
        scores: list[NDArray[np.float64]] = [np.zeros((0, len(nothing)))] * len(examples)
        words: list[Words] = [()] * len(examples)
        for output, window in zip(outputs, encodings, strict=True):
            assert isinstance(window, Window)
            if not len(words[window.example]):
                words[window.example] = window.words
                scores[window.example] = np.tile(nothing, (len(window.words), 1))
            scores[window.example][window.owned] = output["tag"][window.positions]
        return [self._answer(*item) for item in zip(examples, words, scores, strict=True)]

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """Strict F1 of entities (type and both ends right), precision, recall, seqeval's F1, and F1 of each type."""
        total, by_type = self.by_type(answers, examples)
        gold = [
            spans_to_tags(example.label, answer["words"])[0] for answer, example in zip(answers, examples, strict=True)
        ]
        return {
            "f1": total.f1,
            "precision": total.precision,
            "recall": total.recall,
            "f1_conlleval": conlleval_f1(gold, [answer["tags"] for answer in answers]),
            **{f"f1/{kind}": scores.f1 for kind, scores in by_type.items()},
        }

    def by_type(self, answers: Sequence[Answer], examples: Sequence[Example]) -> tuple[Scores, dict[str, Scores]]:
        """Strict scores over all entities, by character offsets, and of each type."""
        right: Counter[str] = Counter()
        offered: Counter[str] = Counter()
        wanted: Counter[str] = Counter()
        for answer, example in zip(answers, examples, strict=True):
            gold = set(example.label)
            found = {Span(entity["start"], entity["end"], entity["type"]) for entity in answer["entities"]}
            right.update(span.type for span in gold & found)
            offered.update(span.type for span in found)
            wanted.update(span.type for span in gold)
        kinds = sorted({*offered, *wanted})
        by_type = {kind: Scores.of(right[kind], offered[kind], wanted[kind]) for kind in kinds}
        return Scores.of(right.total(), offered.total(), wanted.total()), by_type

    def _tag(self, tag: str) -> int:
        return self.labels.index(tag) if tag in self.labels else self.labels.index(tag.replace("B-", "I-", 1))

    def _example(self, row: Annotated, known: set[str], rejects: Rejects) -> Example | None:
        if not row.text.strip():
            rejects.add("empty_text", row.where, "the text is empty")
            return None
        for span in row.spans:
            if span.type not in known:
                types = ", ".join(sorted(known - {""}))
                rejects.add("unknown_label", row.where, f"type {span.type!r} is not one of {types}")
                return None
        fields = {"text": row.text} if row.words is None else {"text": row.text, "words": row.words}
        return Example(fields, row.spans, row.where)

    def _windows(self, example: int, pieces: Pieces, words: Words) -> list[Window]:
        starts = np.array([start for start, _ in words], dtype=np.int64)
        ends = np.array([end for _, end in words], dtype=np.int64)
        first = np.searchsorted(pieces.starts, starts)
        has_piece = first < len(pieces)
        has_piece[has_piece] = pieces.starts[first[has_piece]] < ends[has_piece]
        own = np.flatnonzero(has_piece)
        cuts = cut_windows(len(pieces), first[own], self.config.max_length - 2, self.config.overlap)
        # A word belongs to the window that shows most of what stands on both sides of it.
        room = np.array([np.minimum(first[own] - start, stop - 1 - first[own]) for start, stop in cuts])
        owner = room.argmax(axis=0) if len(own) else np.zeros(0, np.int64)
        cls, sep = [self.tokenizer.cls_id], [self.tokenizer.sep_id]
        windows = []
        for number, (start, stop) in enumerate(cuts):
            ids = np.concatenate([cls, pieces.ids[start:stop], sep]).astype(np.int32)
            mine = own[owner == number]
            windows.append(
                Window(
                    ids,
                    np.zeros(len(ids), np.int32),
                    {},
                    example,
                    words,
                    mine,
                    (first[mine] - start + 1).astype(np.int64),
                )
            )
        return windows

    def _answer(self, example: Example, words: Words, logits: NDArray[np.float64]) -> Answer:
        text = example.fields["text"]
        logits = logits - logits.max(axis=-1, keepdims=True) if len(logits) else logits
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        path = best_path(log_probabilities, self.labels)
        tags = [self.labels[i] for i in path]
        certainty = np.exp(log_probabilities[np.arange(len(path)), path])
        spans, _ = tags_to_spans(tags, words)
        starts, ends = [start for start, _ in words], [end for _, end in words]
        entities = []
        for span in spans:
            touched = slice(bisect_right(ends, span.start), bisect_left(starts, span.end))
            entities.append(
                {
                    "start": span.start,
                    "end": span.end,
                    "type": span.type,
                    "text": text[span.start : span.end],
                    "score": float(certainty[touched].mean()),
                }
            )
        return {"text": text, "entities": entities, "words": list(words), "tags": tags}


def tokenizer_words(pieces: Pieces) -> list[tuple[int, int]]:
    """Offsets of the words that the tokenizer sees; each Han character and punctuation mark is one."""
    if not len(pieces):
        return []
    first = np.flatnonzero(np.diff(pieces.words, prepend=-1))
    last = np.append(first[1:], len(pieces)) - 1
    return list(zip(pieces.starts[first].tolist(), pieces.ends[last].tolist(), strict=True))


def cut_windows(length: int, word_starts: NDArray[np.int64], room: int, overlap: float) -> list[tuple[int, int]]:
    """Cut `length` pieces into windows of at most `room`, at word boundaries where a word fits.

    Args:
        length: number of pieces.
        word_starts: indices of the pieces at which words begin, ascending.
        room: pieces that one window holds.
        overlap: share of a window that the next one repeats, 0 to 1.

    Returns:
        Start and end of each window; together they cover all pieces.
    """
    windows: list[tuple[int, int]] = []
    start, done = 0, 0
    while True:
        stop = min(length, start + room)
        if stop < length:
            stop = _last_in(word_starts, start, stop) or stop
        if windows and stop <= done:
            start = done  # the word that follows is too long for a window that repeats anything
            continue
        windows.append((start, stop))
        if stop == length:
            return windows
        start, done = _last_in(word_starts, start, stop - int(room * overlap)) or stop, stop


def _last_in(values: NDArray[np.int64], above: int, limit: int) -> int | None:
    """The largest of the ascending `values` in `(above, limit]`."""
    index = int(np.searchsorted(values, limit, side="right")) - 1
    return int(values[index]) if index >= 0 and values[index] > above else None


def best_path(log_probabilities: NDArray[np.float64], labels: Sequence[str]) -> NDArray[np.int64]:
    """The most probable tag sequence in which every inside tag follows a tag of its type.

    Args:
        log_probabilities: `[n, C]`.
        labels: the C tags.

    Returns:
        Indices of tags, `[n]`. Source: Viterbi 1967, with transitions that are free or forbidden.
    """
    path: NDArray[np.int64] = log_probabilities.argmax(axis=-1)
    parts = [split_tag(label) for label in labels]
    begun = {kind for prefix, kind in parts if prefix == "B"}
    forbidden = np.array(
        [[b == "I" and kind in begun and (a == "O" or other != kind) for b, kind in parts] for a, other in parts]
    )
    at_start = forbidden[parts.index(("O", ""))] if ("O", "") in parts else np.zeros(len(parts), bool)
    if not len(path) or not (at_start[path[0]] or forbidden[path[:-1], path[1:]].any()):
        return path
    cost = np.where(forbidden, -np.inf, 0.0)
    best = log_probabilities[0] + np.where(at_start, -np.inf, 0.0)
    came_from = np.zeros(log_probabilities.shape, dtype=np.int64)
    for step in range(1, len(path)):
        options = best[:, None] + cost
        came_from[step] = options.argmax(axis=0)
        best = options.max(axis=0) + log_probabilities[step]
    path[-1] = best.argmax()
    for step in range(len(path) - 1, 0, -1):
        path[step - 1] = came_from[step, path[step]]
    return path


def _with_targets(window: Window, gold: NDArray[np.int64]) -> Window:
    target = np.full(len(window.input_ids), IGNORED, dtype=np.int64)
    target[window.positions] = gold[window.owned]
    return replace(window, targets={"tag": target})
