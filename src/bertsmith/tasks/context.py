"""A long text in windows that overlap, and the stretches of it that could be an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bertsmith.model.packing import Encoding

Stretch: TypeAlias = tuple[float, int, int]
"""Score, first character, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Window(Encoding):
    """A question with a stretch of its context.

    Attributes:
        example: index of the example among those encoded.
        offset: where the context's pieces begin in `input_ids`.
        starts: where each of them starts in the context, in characters, `[m]`.
        ends: where each of them ends, exclusive, `[m]`.
        owned: whether an answer that starts at the piece is read from this window, `[m]`.
    """

    example: int = 0
    offset: int = 0
    starts: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    ends: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    owned: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))


def cut_context(length: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Cut `length` pieces into windows of at most `room` that overlap by half or more.

    Args:
        length: number of pieces; 0 gives one empty window.
        room: pieces that a window holds, at least 1.
        stride: pieces from the start of a window to that of the next, at most half of `room` (rounded up).

    Returns:
        Start and end of each window; together they cover all pieces.
    """
    step = min(stride, -(-room // 2))
    count = 1 + max(0, -(-(length - room) // step))
    return [(number * step, min(length, number * step + room)) for number in range(count)]


def owners(length: int, cuts: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """For each piece the window that shows most on both sides of it; the first of equals.

    Args:
        length: number of pieces.
        cuts: start and end of each window.

    Source: the "max context" of google-research/bert, run_squad.py.
    """
    owner = np.zeros(length, np.int64)
    most = np.full(length, -1.0)
    for number, (start, stop) in enumerate(cuts):
        place = np.arange(start, stop)
        context = np.minimum(place - start, stop - 1 - place) + 0.01 * (stop - start)
        better = place[context > most[start:stop]]
        owner[better] = number
        most[start:stop] = np.maximum(most[start:stop], context)
    return owner


def best_stretches(logits: NDArray[np.float64], window: Window, longest: int, most: int) -> list[Stretch]:
    """The stretches of a window with the largest scores, in no order: that of the first piece plus that of the last.

    Args:
        logits: `[n, 2]`, how well an answer starts and ends at each piece of the window.
        window: the window; stretches start at pieces that it owns.
        longest: pieces of a stretch at most.
        most: stretches at most.
    """
    size = len(window.starts)
    if not size:
        return []
    start, end = logits[window.offset : window.offset + size].T
    longest = min(longest, size)
    ends = sliding_window_view(np.append(end, np.full(longest - 1, -np.inf)), longest)
    total = np.where(window.owned[:, None], start[:, None] + ends, -np.inf).ravel()
    most = min(most, len(total))
    best = np.argpartition(-total, most - 1)[:most]
    return [
        (float(total[i]), int(window.starts[i // longest]), int(window.ends[i // longest + i % longest]))
        for i in best[np.isfinite(total[best])]
    ]
