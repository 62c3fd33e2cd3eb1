"""What texts look like in numbers, and how far later ones have drifted from those that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

LENGTHS = 14
"""Classes of length: no piece, one, two, three to four, five to eight, and so on; the last is open."""
PIECES = 512
"""The most frequent pieces of the training texts are compared one by one, the others together."""
FLOOR = 1e-4
"""Share that a class has at least, so that one text of a new length is no infinite drift."""


@dataclass
class Profile:
    """Counts over texts.

    Attributes:
        pieces: how often each piece occurred, `[V]`.
        unknown_id: the piece that stands for what has none.
        lengths: texts by class of length, `[LENGTHS]`.
        texts: how many there were.
    """

    pieces: NDArray[np.int64]
    unknown_id: int
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LENGTHS, np.int64))
    texts: int = 0

    @classmethod
    def empty(cls, vocab_size: int, unknown_id: int) -> Self:
        """Counts of nothing.

        Args:
            vocab_size: number of pieces.
            unknown_id: the piece that stands for what has none.
        """
        return cls(np.zeros(vocab_size, np.int64), unknown_id)

    def add(self, texts: Iterable[NDArray[np.int32]]) -> Self:
        """Count texts.

        Args:
            texts: the ids of each, without [CLS] and [SEP].
        """
        found = list(texts)
        if found:
            sizes = np.array([len(ids) for ids in found])
            classes = np.minimum(np.ceil(np.log2(np.maximum(sizes, 0.5))) + 1, LENGTHS - 1).astype(np.int64)
            self.lengths += np.bincount(classes, minlength=LENGTHS)
            self.pieces += np.bincount(np.concatenate(found), minlength=len(self.pieces))
            self.texts += len(found)
        return self

    def __add__(self, other: Profile) -> Profile:
        lengths = self.lengths + other.lengths
        return Profile(self.pieces + other.pieces, self.unknown_id, lengths, self.texts + other.texts)

    @property
    def unknown(self) -> float:
        """Share of pieces that stand for what has none."""
        return float(self.pieces[self.unknown_id] / max(1, self.pieces.sum()))

    def as_dict(self) -> dict[str, Any]:
        """Shares, as a bundle keeps them: no text can be read from them."""
        total = max(1, int(self.pieces.sum()))
        most = np.argsort(-self.pieces, kind="stable")[:PIECES]
        shares = {str(i): round(float(self.pieces[i]) / total, 6) for i in most.tolist() if self.pieces[i]}
        lengths = [round(float(count) / max(1, self.texts), 6) for count in self.lengths]
        return {"texts": self.texts, "lengths": lengths, "unknown": round(self.unknown, 6), "pieces": shares}

    def drift(self, trained: Mapping[str, Any]) -> dict[str, float]:
        """How far these texts are from others.

        Args:
            trained: of those others, as `as_dict` gives it.

        Returns:
            `length`: population stability index of lengths (above 0.25 by common custom: another population);
            `pieces`: Jensen-Shannon divergence of pieces, 0 to 1; `unknown`: by how much the share of unknown pieces
            has grown.
        """
        lengths = stability(trained["lengths"], (self.lengths / max(1, self.texts)).tolist())
        known = [int(i) for i in trained["pieces"] if int(i) < len(self.pieces)]
        before = [float(trained["pieces"][str(i)]) for i in known]
        now = (self.pieces[known] / max(1, self.pieces.sum())).tolist()
        return {
            "length": lengths,
            "pieces": divergence([*before, max(0.0, 1 - sum(before))], [*now, max(0.0, 1 - sum(now))]),
            "unknown": self.unknown - float(trained["unknown"]),
        }


def stability(before: Sequence[float], now: Sequence[float]) -> float:
    """The population stability index of two distributions: 0 for equal ones.

    Args:
        before: shares by class.
        now: the same classes.

    Source: Yurdakul 2018, "Statistical properties of the population stability index".
    """
    pairs = [(max(a, FLOOR), max(b, FLOOR)) for a, b in zip(before, now, strict=True)]
    return sum((b - a) * math.log(b / a) for a, b in pairs)


def divergence(before: Sequence[float], now: Sequence[float]) -> float:
    """The Jensen-Shannon divergence of two distributions: 0 for equal ones, 1 for those with nothing in common.

    Args:
        before: shares by class.
        now: the same classes.

    Source: Lin 1991, IEEE Transactions on Information Theory 37(1).
    """
    total = 0.0
    for a, b in zip(before, now, strict=True):
        middle = (a + b) / 2
        total += sum(share / 2 * math.log2(share / middle) for share in (a, b) if share > 0)
    return max(0.0, total)
