"""A text as words, and a long one as windows of whole words that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bertsmith.model.packing import Encoding
from bertsmith.tokenizer.load import Pieces, Tokenizer

Words = Sequence[tuple[int, int]]


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


def word_windows(
    tokenizer: Tokenizer,
    example: int,
    pieces: Pieces,
    words: Words,
    *,
    max_length: int,
    overlap: float,
    shared: bool = False,
) -> list[Window]:
    """The windows of one example; words without a piece are in none.

    Args:
        tokenizer: has [CLS] and [SEP].
        example: the example's index.
        pieces: of its text.
        words: offsets of its words.
        max_length: pieces of a window at most, with [CLS] and [SEP].
        overlap: share of a window that the next one repeats.
        shared: a window answers for every word that begins in it; else each word is answered for by the window that
            shows most of what stands on both sides of it.
    """
    starts = np.array([start for start, _ in words], dtype=np.int64)
    ends = np.array([end for _, end in words], dtype=np.int64)
    first = np.searchsorted(pieces.starts, starts)
    has_piece = first < len(pieces)
    has_piece[has_piece] = pieces.starts[first[has_piece]] < ends[has_piece]
    own = np.flatnonzero(has_piece)
    cuts = cut_windows(len(pieces), first[own], max_length - 2, overlap)
    room = np.array([np.minimum(first[own] - start, stop - 1 - first[own]) for start, stop in cuts])
    owner = room.argmax(axis=0) if len(own) else np.zeros(0, np.int64)
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    windows = []
    for number, (start, stop) in enumerate(cuts):
        ids = np.concatenate([cls, pieces.ids[start:stop], sep]).astype(np.int32)
        mine = own[room[number] >= 0] if shared else own[owner == number]
        positions = (first[mine] - start + 1).astype(np.int64)
        windows.append(
            Window(ids, np.zeros(len(ids), np.int32), example=example, words=words, owned=mine, positions=positions)
        )
    return windows


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
