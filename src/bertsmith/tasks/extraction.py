"""Summaries made of a text's own sentences: which ones to learn, how they are read, and which are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.corpus.sentences import split
from bertsmith.metrics.text import is_chinese, ngrams, rouge_n, rouge_words
from bertsmith.model.packing import Encoding
from bertsmith.tokenizer.load import Tokenizer

IGNORED = -100
Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Sentences(Encoding):
    """Some sentences of a text, each with its [SEP].

    Attributes:
        example: index of the example among those encoded.
        spans: where the sentences stand in the text, in characters.
        ends: where their [SEP] stand in `input_ids`.
    """

    example: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    ends: tuple[int, ...] = ()


def sentence_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Where the sentences of a text stand in it, in characters; white space around them is left out."""
    spans = []
    at = 0
    for sentence in split(text):
        letters = [letter for letter in sentence if not letter.isspace()]
        start: int | None = None
        for letter in letters:
            at = text.find(letter, at)
            start = at if start is None else start
            at += 1
        if start is not None:
            spans.append((start, at))
    return tuple(spans)


def oracle(text: str, spans: Spans, golds: Sequence[str], most: int) -> set[int]:
    """The sentences to learn: taken one by one as long as ROUGE-1 and ROUGE-2 together rise.

    Args:
        text: the whole text.
        spans: its sentences.
        golds: what people wrote; the one that fits best counts.
        most: sentences at most.

    Source: Nallapati et al. 2017, section 2.2 (arXiv:1611.04230); Liu & Lapata 2019 (arXiv:1908.08345).
    """
    words = [rouge_words(text[start:end]) for start, end in spans]
    references = [rouge_words(gold) for gold in golds]
    chosen: set[int] = set()
    reached = 0.0
    while len(chosen) < most:
        best, place = reached, None
        for number in range(len(spans)):
            if number in chosen:
                continue
            together = [word for index in sorted({*chosen, number}) for word in words[index]]
            found = max(rouge_n(gold, together, 1) + rouge_n(gold, together, 2) for gold in references)
            if found > best:
                best, place = found, number
        if place is None:
            break
        chosen.add(place)
        reached = best
    return chosen


def encode_sentences(
    tokenizer: Tokenizer, example: int, text: str, spans: Spans, gold: set[int] | None, max_length: int
) -> tuple[list[Sentences], bool]:
    """`[CLS] first [SEP] second [SEP] …`, whole sentences, as many sequences as it takes.

    Args:
        tokenizer: turns text into pieces.
        example: index of the example.
        text: the whole text.
        spans: its sentences.
        gold: those to learn; None: nobody has said.
        max_length: pieces of a sequence; a longer sentence loses its end.

    Returns:
        The sequences, and whether a sentence was cut.
    """
    pieces = [ids for ids, _ in tokenizer.encode_ids([text[start:end] for start, end in spans])]
    room, cut = max_length - 2, any(len(ids) > max_length - 2 for ids in pieces)
    groups: list[list[int]] = [[]]
    left = max_length - 1
    for number, ids in enumerate(pieces):
        size = min(len(ids), room) + 1
        if size > left and groups[-1]:
            groups.append([])
            left = max_length - 1
        groups[-1].append(number)
        left -= size
    cls, sep = np.array([tokenizer.cls_id], np.int32), np.array([tokenizer.sep_id], np.int32)
    found = []
    for group in groups:
        parts = [cls, *(part for number in group for part in (pieces[number][:room], sep)), *([] if group else [sep])]
        ids = np.concatenate(parts).astype(np.int32)
        ends = np.cumsum([min(len(pieces[number]), room) + 1 for number in group], dtype=np.int64)
        targets: dict[str, Any] = {}
        if gold is not None:
            target = np.full(len(ids), IGNORED)
            target[ends] = [number in gold for number in group]
            targets = {"gold": target}
        mine = tuple(spans[number] for number in group)
        segments = np.zeros(len(ids), np.int32)
        found.append(Sentences(ids, segments, targets, example=example, spans=mine, ends=tuple(ends.tolist())))
    return found, cut


def choose(text: str, scored: Iterable[tuple[tuple[int, int], float]], count: int, *, block: bool) -> dict[str, Any]:
    """The best sentences in the order of the text.

    Args:
        text: the whole text.
        scored: sentences with their probabilities.
        count: sentences at most.
        block: leave out a sentence that shares three words in a row with one that is already chosen.

    Source: Paulus et al. 2018, section 2.5 (arXiv:1705.04304) for the blocking.
    """
    chosen: list[tuple[tuple[int, int], float]] = []
    seen: set[tuple[str, ...]] = set()
    for span, score in sorted(scored, key=lambda one: (-one[1], one[0])):
        if len(chosen) == count:
            break
        trigrams = set(ngrams(rouge_words(text[span[0] : span[1]]), 3))
        if not (block and seen & trigrams):
            chosen.append((span, score))
            seen |= trigrams
    sentences = [
        {"text": text[start:end], "start": start, "end": end, "score": score} for (start, end), score in sorted(chosen)
    ]
    texts = [str(sentence["text"]) for sentence in sentences]
    return {
        "generated": ("" if is_chinese(texts) else " ").join(texts),
        "score": float(np.mean([score for _, score in chosen])) if chosen else 0.0,
        "sentences": sentences,
    }


def probabilities(logits: NDArray[np.float32], window: Sentences) -> list[tuple[tuple[int, int], float]]:
    """Each sentence of a sequence with the probability that it belongs to the summary.

    Args:
        logits: of the tag head, `[n, 2]`.
        window: the sequence.
    """
    ours = logits[list(window.ends)].astype(np.float64)
    shares = 1 / (1 + np.exp(np.clip(ours[:, 0] - ours[:, 1], -500, 500)))
    return list(zip(window.spans, shares.tolist(), strict=True))
