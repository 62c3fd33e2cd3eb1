"""One or two texts as the model reads them: cut to fit, with the tokens around them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bertsmith.model.packing import Encoding
from bertsmith.tokenizer.load import Tokenizer


def join_texts(
    tokenizer: Tokenizer, a: NDArray[np.int32], b: NDArray[np.int32] | None, max_length: int, *, keep_end: bool = False
) -> tuple[Encoding, bool]:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, at most `max_length` pieces, and whether it had to be cut.

    The longer text loses its end first, as in BERT; with `keep_end` the first text loses its beginning instead.
    """
    cls, sep = np.array([tokenizer.cls_id], np.int32), np.array([tokenizer.sep_id], np.int32)
    if b is None:
        room = max_length - 2
        ids = np.concatenate([cls, a[max(0, len(a) - room) :] if keep_end else a[:room], sep])
        return Encoding(ids, np.zeros(len(ids), np.int32)), len(a) > room
    room = max_length - 3
    cut = len(a) + len(b) > room
    if cut:
        longer = len(a) > len(b)
        b = b[: room // 2] if longer else b
        most = room - len(b) if longer else room - room // 2
        a = a[max(0, len(a) - most) :] if keep_end else a[:most]
        b = b[: room - len(a)]
    segments = np.repeat(np.array([0, 1], np.int32), [len(a) + 2, len(b) + 1])
    return Encoding(np.concatenate([cls, a, sep, b, sep]), segments), cut
