"""Lines that stand in many documents: navigation, notices, signatures; found by hash, on disk, whatever the size.

Each block of documents gives the hashes of its lines, a line once a document, in ascending order; the hashes that are
there often enough are the result. Hashes are compared range by range, so memory holds a few million at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
MIN_WORDS = 5
"""A shorter line, such as a heading or an answer, may stand in many documents by right."""
AT_ONCE = 1 << 22
"""Hashes held at a time, about."""


def line_key(line: str) -> int:
    """The 64-bit hash of a line.

    Args:
        line: without white space at its ends.
    """
    return int.from_bytes(blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def keys_of(documents: Iterable[Collection[int]]) -> Keys:
    """The hashes of a block's lines, ascending `[N]`.

    Args:
        documents: the distinct hashes of each document's lines.
    """
    keys = np.fromiter((key for document in documents for key in document), np.uint64)
    keys.sort()
    return keys


def frequent(files: Sequence[Path], documents: int) -> Keys:
    """The hashes of lines that stand in so many documents or more, ascending.

    Args:
        files: what `keys_of` gave for each block, as it lies in memory.
        documents: 2 or more.
    """
    total = sum(file.stat().st_size for file in files) // 8
    turns = max(1, -(-total // AT_ONCE))
    borders = [np.uint64(turn * 2**64 // turns) for turn in range(1, turns)]
    mapped = [np.memmap(file, np.uint64, "r") for file in files if file.stat().st_size]
    cuts = [[0, *np.searchsorted(keys, borders).tolist(), len(keys)] for keys in mapped]
    found = [np.empty(0, np.uint64)]
    for turn in range(turns):
        parts = [keys[cut[turn] : cut[turn + 1]] for keys, cut in zip(mapped, cuts, strict=True)]
        keys, counts = np.unique(np.concatenate([found[0], *parts]), return_counts=True)
        found.append(keys[counts >= documents])
    return np.concatenate(found)
