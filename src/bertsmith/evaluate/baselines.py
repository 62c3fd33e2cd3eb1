"""What guessing without a network gives: the most frequent word, and the one most probable after the two before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bertsmith.corpus.store import Store
from bertsmith.model.packing import Batch
from bertsmith.tasks.windows import Passages

Ids = NDArray[np.int64]


class Ngrams:
    """Counts of one, two and three tokens in a row, interpolated.

    Source: Witten & Bell 1991, as interpolation of orders in Chen & Goodman 1999, section 2.5: a context seen `n` times
    with `t` different tokens after it counts `n / (n + t)`, the next shorter one the rest. Nothing has to be tuned.
    """

    def __init__(self, tokens: Ids, vocab_size: int) -> None:
        """Count.

        Args:
            tokens: ids below `vocab_size`; a negative one separates texts and is neither predicted nor a context.
            vocab_size: V.
        """
        self.vocab_size = vocab_size
        self.unigram: NDArray[np.float64] = np.bincount(tokens[tokens >= 0], minlength=vocab_size) / max(
            1, int((tokens >= 0).sum())
        )
        pairs = (tokens[:-1] >= 0) & (tokens[1:] >= 0)
        self._two = _counted((tokens[:-1] * vocab_size + tokens[1:])[pairs])
        threes = pairs[:-1] & pairs[1:]
        self._three = _counted(((tokens[:-2] * vocab_size + tokens[1:-1]) * vocab_size + tokens[2:])[threes])

    def after(self, before: int, last: int) -> NDArray[np.float64]:
        """The probability of each token after two others, `[V]`; a context that never occurred leaves the shorter one.

        Args:
            before: the token before the last one.
            last: the token just before.
        """
        shares = self._mixed(self._two, last, self.unigram)
        return self._mixed(self._three, before * self.vocab_size + last, shares)

    def _mixed(self, counted: tuple[Ids, Ids], context: int, shorter: NDArray[np.float64]) -> NDArray[np.float64]:
        keys, counts = counted
        first, stop = np.searchsorted(keys, [context * self.vocab_size, (context + 1) * self.vocab_size]).tolist()
        if first == stop:
            return shorter
        shares: NDArray[np.float64] = (stop - first) * shorter
        shares[keys[first:stop] - context * self.vocab_size] += counts[first:stop]
        shares /= counts[first:stop].sum() + stop - first
        return shares


def ngram_accuracy(store: Store, learn: Passages, batches: Sequence[Batch], vocab_size: int) -> dict[str, float]:
    """Share of hidden tokens that n-grams guess, at the places where a model was asked.

    The trigram sees the two true tokens to the left of each place, also where the model finds them masked, but nothing
    to its right.

    Args:
        store: the tokens.
        learn: passages to count in, those that the model has learned from.
        batches: masked held-out text, as `train.feed.evaluation_batches` makes it.
        vocab_size: V.

    Returns:
        `unigram` and `trigram`, 0 to 1.
    """
    offsets = store.sentence_offsets
    parts: list[Ids] = []
    for first, stop in zip(offsets[learn.first].tolist(), offsets[learn.stop].tolist(), strict=True):
        parts += [store.read(first, stop).astype(np.int64), np.full(1, -1)]
    ngrams = Ngrams(np.concatenate(parts), vocab_size)
    usual = int(ngrams.unigram.argmax())
    asked = by_unigram = by_trigram = 0
    for batch in batches:
        places, hidden = batch.targets["mlm_positions"].numpy(), batch.targets["mlm_labels"].numpy()
        ids = batch.input_ids.numpy().copy()
        ids[places] = hidden
        asked += len(places)
        by_unigram += int((hidden == usual).sum())
        # [CLS] stands before every place; the token before it, of another sequence, makes no known context with it.
        contexts = np.stack([ids[np.maximum(0, places - 2)], ids[places - 1]], axis=1)
        for (before, last), right in zip(contexts.tolist(), hidden.tolist(), strict=True):
            by_trigram += int(ngrams.after(before, last).argmax()) == right
    return {"unigram": by_unigram / max(1, asked), "trigram": by_trigram / max(1, asked)}


def _counted(keys: Ids) -> tuple[Ids, Ids]:
    unique, counts = np.unique(keys, return_counts=True)
    return unique, counts
