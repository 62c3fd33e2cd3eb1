"""Hidden words of held-out text and what the model takes them for, as a person would want to see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bertsmith.core.device import Precision
from bertsmith.corpus.store import Store
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding
from bertsmith.predict.engine import forward
from bertsmith.tasks.windows import Passages, counter_rng
from bertsmith.tokenizer.load import Tokenizer

AROUND = 9
SENTENCE = (12, 60)


@dataclass(frozen=True, slots=True)
class Sample:
    """A sentence with one word hidden.

    Attributes:
        encoding: the sentence with [MASK].
        before: text left of the word.
        after: text right of it.
        word: the hidden word.
    """

    encoding: Encoding
    before: str
    after: str
    word: str


@dataclass(frozen=True, slots=True)
class Guess:
    """What the model puts in a sample's place: the best pieces with their probabilities, and that of the true word."""

    sample: Sample
    best: tuple[tuple[str, float], ...]
    true: float


def draw_samples(store: Store, held_out: Passages, tokenizer: Tokenizer, count: int) -> list[Sample]:
    """Choose sentences of the held-out text and hide one word in each, always the same ones for a store.

    Args:
        store: the tokens.
        held_out: where to draw from.
        tokenizer: writes the text again.
        count: how many at most.
    """
    sizes = held_out.stop - held_out.first
    sentences = np.repeat(held_out.first - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
    samples: list[Sample] = []
    rng = counter_rng(7)
    for sentence in rng.permutation(sentences).tolist():
        start, stop = (int(store.sentence_offsets[sentence + i]) for i in (0, 1))
        if not SENTENCE[0] <= stop - start <= SENTENCE[1]:
            continue
        ids = store.read(start, stop)
        whole = np.flatnonzero(store.word_starts(start, stop) & np.append(store.word_starts(start, stop)[1:], True))
        words = [i for i in whole.tolist() if _telling(tokenizer.tokens[ids[i]])]
        if not words:
            continue
        at = words[int(rng.integers(len(words)))]
        framed = np.concatenate([[tokenizer.cls_id], ids, [tokenizer.sep_id]]).astype(np.int32)
        framed[at + 1] = tokenizer.mask_id
        before = tokenizer.decode(ids[max(0, at - AROUND) : at])
        after = tokenizer.decode(ids[at + 1 : at + 1 + AROUND])
        samples.append(Sample(Encoding(framed, np.zeros_like(framed)), before, after, tokenizer.tokens[ids[at]]))
        if len(samples) == count:
            break
    return samples


def guess(
    model: Model, tokenizer: Tokenizer, samples: Sequence[Sample], precision: Precision, top_k: int = 3
) -> list[Guess]:
    """Ask the model for the hidden word of each sample."""
    guesses: list[Guess | None] = [None] * len(samples)
    encodings = [sample.encoding for sample in samples]
    for indices, _, outputs in forward(model, encodings, precision=precision, mask_id=tokenizer.mask_id):
        probabilities = torch.softmax(outputs["mlm"].float(), dim=-1)
        for index, row in zip(indices.tolist(), probabilities, strict=True):
            values, ids = row.topk(top_k)
            best = tuple((tokenizer.tokens[i], p) for i, p in zip(ids.tolist(), values.tolist(), strict=True))
            true = float(row[tokenizer.tokens.index(samples[index].word)])
            guesses[index] = Guess(samples[index], best, true)
    return [found for found in guesses if found is not None]


def line(found: Guess) -> str:
    """One guess as a line of text: `… a list of [sorted] values …  → sorted 41 %, all 7 %, the 3 %`."""
    offers = ", ".join(f"{token} {probability:.0%}" for token, probability in found.best)
    return f"… {found.sample.before} [{found.sample.word}] {found.sample.after} …  → {offers}"


def _telling(token: str) -> bool:
    return token.isalpha() and (len(token) >= 4 or "\u4e00" <= token <= "\u9fff")
