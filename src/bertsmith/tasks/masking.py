"""What is hidden: which pieces of a sequence are to be predicted, and what stands in their place.

Shape: `T` packed tokens, `S` sequences, `U` units (pieces or words), `M` masked positions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bertsmith.tasks.windows import Ints, counter_rng
from bertsmith.tokenizer.load import Tokenizer

Masking = Literal["subword", "whole-word", "span"]

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
LONGER, LONGEST = 0.8, 10
"""A span goes on after each word with this chance, and has at most so many words: 3.8 on average."""


class Masker:
    """Chooses pieces to predict and corrupts them: 80 % [MASK], 10 % a random piece, 10 % unchanged.

    There is one way to choose. Pieces make up units, each unit has a priority, and of every sequence the units of the
    smallest priorities are taken until its budget is met. The kinds of masking differ in unit and priority alone:

    - `subword`: a unit is a piece, its priority a random number (Devlin et al. 2019, section 3.1, arXiv:1810.04805).
    - `whole-word`: a unit is a word (Cui et al. 2021, arXiv:1906.08101, for Chinese).
    - `span`: a unit is a word, its priority that of the first span over it (Joshi et al. 2020, arXiv:1907.10529).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Find the pieces that may stand in for others.

        Args:
            tokenizer: the one that made the ids.
        """
        self.mask_id = tokenizer.mask_id
        self._never = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id)
        # Random replacements are real pieces: neither a special token nor an [unused…] slot.
        special = {*self._never, tokenizer.unk_id, tokenizer.mask_id}
        self._real = np.array(
            [i for i, token in enumerate(tokenizer.tokens) if i not in special and not token.startswith("[unused")],
            dtype=np.int64,
        )

    def __call__(
        self,
        ids: Ints,
        lengths: Ints,
        *key: int,
        rate: float,
        masking: Masking = "subword",
        word_starts: NDArray[np.bool_] | None = None,
    ) -> tuple[Ints, Ints, Ints]:
        """Hide a share of each sequence.

        Single pieces are exactly `round(rate * eligible)` of a sequence. The word at which words reach that number is
        taken with such a chance that the number is met on average. There is always one target, unless nothing is
        eligible.

        Args:
            ids: packed ids `[T]`; [CLS], [SEP] and [PAD] are never chosen.
            lengths: of the sequences, `[S]`.
            key: seed and step; the result is a pure function of it.
            rate: share of each sequence's eligible pieces, 0 < rate < 1.
            masking: what is hidden together.
            word_starts: whether a piece is the first of its word, `[T]`; for words and spans.

        Returns:
            The corrupted ids `[T]`, the chosen positions `[M]` in order, and their original ids `[M]`.
        """
        rng = counter_rng(*key)
        cls, sep, pad = self._never
        at = np.flatnonzero((ids != cls) & (ids != sep) & (ids != pad))
        owner = np.repeat(np.arange(len(lengths)), lengths)[at]
        counts = np.bincount(owner, minlength=len(lengths))
        budget = np.minimum(counts, np.maximum(1, np.rint(counts * rate).astype(np.int64)))
        priority = rng.random(len(ids))[at]
        if masking == "subword":
            size = np.ones_like(at)
            share = np.full(len(lengths), 0.5)
        else:
            assert word_starts is not None, "words are hidden by where they start"
            opens = np.diff(at, prepend=-1) > 1  # the first piece of A or of B
            first = np.flatnonzero(opens | word_starts[at])
            size = np.diff(first, append=len(at))
            owner, priority = owner[first], priority[first]
            share = rng.random(len(lengths))
        if masking == "span":
            priority, start = spans(priority, np.cumsum(opens, dtype=np.int64)[first], rng)
        chosen = np.repeat(_smallest(priority, size, owner, counts, budget, share), size)
        positions = at[chosen]
        labels = ids[positions]
        if masking == "span":  # one fate a span
            fate = rng.random(len(start))[np.repeat(start, size)[chosen]]
        else:
            fate = rng.random(len(positions))
        replacement = self._real[(rng.random(len(positions)) * len(self._real)).astype(np.int64)]
        corrupted = ids.copy()
        corrupted[positions] = np.where(
            fate < MASK_SHARE,
            self.mask_id,
            np.where(fate < MASK_SHARE + RANDOM_SHARE, replacement, labels),
        )
        return corrupted, positions, labels

    def following(self, ids: Ints, *key: int, share: float) -> tuple[Ints, Ints]:
        """What stands after tokens, for a model that sees only what stands before it.

        Args:
            ids: packed ids `[T]`.
            key: seed and step; the result is a pure function of it.
            share: of all positions to predict from, 0 < share <= 1, each chosen with that chance.

        Returns:
            Positions `[M]` that a real piece follows in the same sequence, and those pieces `[M]`. Special tokens are
            never to be predicted.
        """
        positions = np.flatnonzero(~np.isin(ids[1:], self._never))
        if share < 1:
            kept = counter_rng(*key).random(len(positions)) < share
            kept[:1] = True
            positions = positions[kept]
        return positions, ids[positions + 1]


def spans(priority: NDArray[np.float64], text: Ints, rng: np.random.Generator) -> tuple[NDArray[np.float64], Ints]:
    """Draw a span at each word, of 1 to 10 words within its text, and give every word to the first span over it.

    Args:
        priority: of the span that starts at each word, `[U]`; the order in which spans are drawn.
        text: number of the text that each word is in, `[U]`, rising.
        rng: draws how long each span is.

    Returns:
        For each word the priority of the first span over it `[U]`, and the word at which that span starts `[U]`.

    Source: Joshi et al. 2020, section 3.1 (arXiv:1907.10529). Differs: a span may start under one drawn before it, and
    the last one of a sequence ends at a whole word.
    """
    drawn = rng.random(len(priority)) * (1 - LONGER**LONGEST)
    words = 1 + np.floor(np.log1p(-drawn) / np.log(LONGER)).astype(np.int64)
    best, start, every = priority.copy(), np.arange(len(priority)), np.arange(len(priority))
    for back in range(1, LONGEST):
        earlier = priority[:-back]
        nearer = (words[:-back] > back) & (text[:-back] == text[back:]) & (earlier < best[back:])
        best[back:] = np.where(nearer, earlier, best[back:])
        start[back:] = np.where(nearer, every[:-back], start[back:])
    return best, start


def _smallest(
    priority: NDArray[np.float64], size: Ints, owner: Ints, counts: Ints, budget: Ints, share: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which units are taken, `[U]`: in each sequence those of the smallest priorities, until `budget` is met.

    A unit that straddles the budget is taken when `share` of it fits. A `share` drawn evenly from 0 to 1 takes it with
    a chance equal to the part that fits, so that the budget is met on average, whatever the sizes.

    Args:
        priority: `[U]`, from 0 to 1; of equals the earlier goes first.
        size: pieces of each unit, `[U]`.
        owner: sequence of each unit, `[U]`, rising.
        counts: pieces of all units of each sequence, `[S]`.
        budget: pieces to take from each sequence, `[S]`.
        share: `[S]`, between 0 and 1.
    """
    order = np.argsort(2 * owner + priority, kind="stable")  # sequences stay in order, so `owner` fits it as it is
    sizes = size[order]
    before = np.cumsum(sizes) - sizes - (np.cumsum(counts) - counts)[owner]
    taken = np.empty(len(order), np.bool_)
    taken[order] = (before == 0) | (before + share[owner] * sizes <= budget[owner])
    return taken
