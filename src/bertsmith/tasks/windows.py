"""Which tokens of a store each training sequence holds: a plan of an epoch, as a few arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.corpus.store import Store

Ints = NDArray[np.int64]
Pairs = Literal["nsp", "sop", "none"]

FEW_DOCUMENTS = 20
"""A store of fewer documents is cut into passages, so that there are some to hold out and to draw negatives from."""
PASSAGE = 32
"""Sentences of such a passage, at most; fewer where the store would give fewer than 8 passages."""
LEAST = 4
"""Passages of a store: two to learn from and two to measure on, so that both have another to draw negatives from."""
REDRAWS = 4


def counter_rng(*key: int) -> np.random.Generator:
    """A generator whose numbers are a pure function of `key`: counter-based, no state to save.

    Source: Salmon et al. 2011 (Philox), as NumPy has it.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


@dataclass(frozen=True, slots=True)
class Passages:
    """Runs of sentences that are read in order: documents, or parts of them.

    Attributes:
        first: index of each passage's first sentence, `[P]`.
        stop: index after its last one, `[P]`.
    """

    first: Ints
    stop: Ints

    def __len__(self) -> int:
        """P."""
        return len(self.first)

    def take(self, index: Ints) -> Passages:
        """Those at `index`, in that order."""
        return Passages(self.first[index], self.stop[index])


@dataclass(frozen=True, slots=True)
class Windows:
    """One sequence a row: `A` is `[start, cut)`, and `B` is `[other, other + length_b)` of the store's tokens.

    Attributes:
        start: first token of A, `[W]`.
        cut: token after A, `[W]`.
        other: first token of B, `[W]`; equal to `cut` where B really follows.
        length_b: tokens of B, `[W]`; 0: there is no B.
        is_negative: whether B does not follow A: it was drawn from elsewhere, or the two are swapped, `[W]` bool.
    """

    start: Ints
    cut: Ints
    other: Ints
    length_b: Ints
    is_negative: NDArray[np.bool_]

    def __len__(self) -> int:
        """W."""
        return len(self.start)

    @property
    def lengths(self) -> Ints:
        """Pieces of each sequence with [CLS] and [SEP], `[W]`."""
        return self.cut - self.start + self.length_b + np.where(self.length_b > 0, 3, 2)

    def take(self, index: Ints) -> Windows:
        """Those at `index`, in that order."""
        return Windows(
            self.start[index], self.cut[index], self.other[index], self.length_b[index], self.is_negative[index]
        )


def passages(store: Store) -> Passages:
    """The store's documents; or passages of them when there are only a few documents."""
    bounds = np.asarray(store.document_offsets)
    if store.num_documents >= FEW_DOCUMENTS:
        return Passages(bounds[:-1], bounds[1:])
    size = min(PASSAGE, max(2, store.num_sentences // 8))
    first = np.concatenate([np.arange(a, b, size) for a, b in pairwise(bounds.tolist())])
    document_end = bounds[np.searchsorted(bounds, first, side="right")]
    return Passages(first, np.minimum(first + size, document_end))


def hold_out(store: Store, share: float, most_tokens: int) -> tuple[Passages, Passages]:
    """Split a store into passages to learn from and passages to evaluate on.

    The choice depends on the tokens alone, so that runs with other seeds or presets compare.

    Args:
        store: the tokens.
        share: of all tokens to hold out, 0 < share <= 0.5.
        most_tokens: hold out no more than about this many.

    Returns:
        Passages for training, and held-out ones; at least two passages each.

    Raises:
        DataError: the store has fewer than four passages.
    """
    every = passages(store)
    if len(every) < LEAST:
        raise DataError(
            f"{store.path}: only {store.num_sentences} sentence(s) in {store.num_documents} document(s); "
            "pretraining needs at least four documents, or one of eight sentences: one part is held out to measure on, "
            "and next-sentence pairs need another text to draw from; add text"
        )
    offsets = store.sentence_offsets
    order = counter_rng(int(store.content_hash[:15], 16)).permutation(len(every))
    sizes = offsets[every.stop[order]] - offsets[every.first[order]]
    wanted = min(share * store.num_tokens, most_tokens)
    count = int(np.searchsorted(np.cumsum(sizes), wanted, side="left")) + 1
    count = min(max(count, LEAST // 2), len(every) - LEAST // 2)
    return every.take(np.sort(order[count:])), every.take(np.sort(order[:count]))


def plan(store: Store, source: Passages, *, length: int, pairs: Pairs, rng: np.random.Generator) -> Windows:
    """Cut passages into sequences that are as full as can be.

    A passage is a stream of tokens; each sequence takes the next `length` less its special tokens. The first takes a
    random share of that, so that the cuts lie elsewhere in each epoch. A and B meet at a random sentence boundary. A
    sequence without a boundary inside has no B.

    `nsp`: for half of the pairs B is replaced by as many tokens from a random sentence of another passage. `sop`: half
    of the pairs are swapped, and pairs are whole sentences: a sentence that a cut goes through would betray the order,
    so it becomes a sequence of its own.

    Args:
        store: the tokens.
        source: passages to cut.
        length: pieces of a full sequence, special tokens included.
        pairs: next sentence prediction, sentence order prediction, or A alone.
        rng: where chance comes from.

    Returns:
        Windows, in the order of the text except for what `sop` sets apart; every token of `source` is in exactly one
        window before B is replaced.

    Source: Devlin et al. 2019, appendix A.2; Lan et al. 2020, section 3.1 (arXiv:1909.11942) for `sop`. Differs:
    sequences are filled to the token instead of cut back to it, and pairs are drawn anew each epoch.
    """
    offsets = np.asarray(store.sentence_offsets)
    room = length - (2 if pairs == "none" else 3)
    begin, end = offsets[source.first], offsets[source.stop]
    sizes = end - begin
    head = np.where(sizes > room, rng.integers((room + 1) // 2, room + 1, len(sizes)), room)
    counts = 1 + np.maximum(0, -(-(sizes - head) // room))
    passage = np.repeat(np.arange(len(sizes)), counts)
    number = np.arange(len(passage)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = begin[passage] + np.where(number > 0, head[passage] + (number - 1) * room, 0)
    stop = np.minimum(begin[passage] + head[passage] + number * room, end[passage])
    none = np.zeros(len(start), np.int64)
    alone = Windows(start, stop, stop, none, none.astype(bool))
    if pairs == "none":
        return alone
    if pairs == "sop":
        return _in_either_order(offsets, alone, passage, room, rng)

    low = np.searchsorted(offsets, start, side="right")
    boundaries = np.searchsorted(offsets, stop, side="left") - low
    chosen = low + (rng.random(len(start)) * boundaries).astype(np.int64)
    cut = np.where(boundaries > 0, offsets[np.minimum(chosen, len(offsets) - 1)], stop)
    length_b = stop - cut
    is_negative = (boundaries > 0) & (rng.random(len(start)) < 0.5)
    if len(source) < 2:
        is_negative[:] = False
    other = cut.copy()
    rows = np.flatnonzero(is_negative)
    other[rows], length_b[rows] = _negatives(offsets, source, passage[rows], length_b[rows], rng)
    return Windows(start, cut, other, length_b, is_negative)


def _in_either_order(offsets: Ints, text: Windows, passage: Ints, room: int, rng: np.random.Generator) -> Windows:
    """Pairs of whole sentences, half of them swapped; then what no pair holds, as sequences without B.

    Args:
        offsets: where each sentence starts.
        text: neighbouring stretches of text, without B.
        passage: of each stretch.
        room: tokens of a sequence at most.
        rng: where chance comes from.
    """
    low = np.searchsorted(offsets, text.start, side="left")
    high = np.searchsorted(offsets, text.cut, side="right") - 1
    paired = high - low > 1
    chosen = np.where(paired, low + 1 + (rng.random(len(text)) * (high - low - 1)).astype(np.int64), low)
    is_negative = paired & (rng.random(len(text)) < 0.5)
    first, cut, last = (np.where(paired, offsets[at], text.cut) for at in (low, chosen, high))
    begin = np.where(paired, first, text.start)
    # What lies between one pair and the next is the sentence that a cut goes through; one too long stays in two.
    follows = np.append(np.where(passage[1:] == passage[:-1], begin[1:], text.cut[:-1]), text.cut[-1])
    middle = np.where(follows - last > room, text.cut, follows)
    left, right = np.concatenate([last, middle]), np.concatenate([middle, follows])
    left, right = left[right > left], right[right > left]
    none = np.zeros(len(left), np.int64)
    return Windows(
        np.concatenate([np.where(is_negative, cut, begin), left]),
        np.concatenate([np.where(is_negative, last, cut), right]),
        np.concatenate([np.where(is_negative, first, cut), right]),
        np.concatenate([np.where(is_negative, cut - first, last - cut), none]),
        np.concatenate([is_negative, none.astype(bool)]),
    )


def _negatives(offsets: Ints, source: Passages, own: Ints, wanted: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """For each row a random sentence of another passage, with `wanted` tokens after it where that can be found.

    Returns:
        First tokens and lengths.
    """
    ends = np.cumsum(source.stop - source.first)
    start, length = np.zeros(len(own), np.int64), np.zeros(len(own), np.int64)
    open_rows = np.arange(len(own))
    for _ in range(REDRAWS):
        mine = own[open_rows]
        before = ends[mine] - (source.stop[mine] - source.first[mine])
        mine_size = ends[mine] - before
        # A sentence among those of the other passages: draw among all but mine, then step over mine.
        drawn = (rng.random(len(mine)) * (ends[-1] - mine_size)).astype(np.int64)
        drawn += np.where(drawn >= before, mine_size, 0)
        passage = np.searchsorted(ends, drawn, side="right")
        sentence = source.stop[passage] - (ends[passage] - drawn)
        room = offsets[source.stop[passage]] - offsets[sentence]
        better = room > length[open_rows]
        rows = open_rows[better]
        start[rows], length[rows] = offsets[sentence[better]], np.minimum(room[better], wanted[rows])
        open_rows = open_rows[length[open_rows] < wanted[open_rows]]
    return start, length
