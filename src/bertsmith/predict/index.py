"""Exact search among vectors: the best k of each query, block by block."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.files import atomic_write

QUERIES, VECTORS = 256, 8192
"""How many of each are compared at once: 8 MB of scores."""


class Found(NamedTuple):
    """The best k of each query, best first; of equal scores the one that stands first in the index.

    Attributes:
        scores: inner products, `[Q, k]` float32.
        ids: which vectors, `[Q, k]` int64.
    """

    scores: NDArray[np.float32]
    ids: NDArray[np.int64]


class Index:
    """Vectors to search by inner product, which is the cosine where they have length 1.

    Every vector is looked at, so nothing is missed; memory beside the vectors does not grow with their number. Opened
    from a file they stay on disk.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        """Hold the vectors, not a copy.

        Args:
            vectors: `[N, H]` float32, such as `Predictor.encode` gives.

        Raises:
            DataError: of another shape or type.
        """
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise DataError(f"an index takes float32 vectors [N, H], not {vectors.dtype} {list(vectors.shape)}")
        self.vectors = vectors

    def __len__(self) -> int:
        """N."""
        return len(self.vectors)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a file that `save` wrote; the vectors are mapped, not read.

        Raises:
            DataError: no such file, or not one of vectors.
        """
        try:
            return cls(np.load(path, mmap_mode="r", allow_pickle=False))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; write one with Index.save") from None
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"{path}: holds no vectors in NumPy's .npy form ({error})") from None

    def save(self, path: str | Path) -> None:
        """Write the vectors in NumPy's .npy form, whole or not at all."""
        content = io.BytesIO()
        np.save(content, self.vectors, allow_pickle=False)
        atomic_write(Path(path), content.getvalue())

    def search(self, queries: NDArray[np.float32], k: int = 10) -> Found:
        """The k vectors with the largest inner product with each query; all of them where there are fewer.

        Args:
            queries: `[Q, H]`.
            k: 1 or more.

        Raises:
            ConfigError: k is below 1.
            DataError: queries of another width, or a value that is not finite.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; it must be at least 1")
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise DataError(f"queries {list(queries.shape)} do not fit vectors {list(self.vectors.shape)}")
        k = min(k, len(self))
        scores = np.zeros((len(queries), k), np.float32)
        ids = np.zeros((len(queries), k), np.int64)
        for start in range(0, len(queries), QUERIES):
            stop = start + QUERIES
            scores[start:stop], ids[start:stop] = self._best(queries[start:stop].astype(np.float32), k)
        return Found(scores, ids)

    def _best(self, queries: NDArray[np.float32], k: int) -> Found:
        best = Found(np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64))
        for start in range(0, len(self), VECTORS):
            found = queries @ self.vectors[start : start + VECTORS].T
            if not np.isfinite(found).all():
                raise DataError("a query or a vector holds a value that is not finite")
            numbers = np.broadcast_to(np.arange(start, start + found.shape[1]), found.shape)
            scores = np.concatenate([best.scores, found], axis=1)
            best = _largest(scores, np.concatenate([best.ids, numbers], axis=1), min(k, scores.shape[1]))
        order = np.lexsort((best.ids, -best.scores), axis=1)
        return Found(np.take_along_axis(best.scores, order, 1), np.take_along_axis(best.ids, order, 1))


def _largest(scores: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> Found:
    """The k largest of each row, by ascending id; of those equal to the smallest of them, the first."""
    smallest = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k][:, None]
    above, equal = scores > smallest, scores == smallest
    room = k - above.sum(axis=1, keepdims=True)
    kept = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return Found(scores[kept].reshape(len(scores), k), ids[kept].reshape(len(scores), k))
