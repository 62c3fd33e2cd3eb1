"""Where words start: the units that whole-word masking hides together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.tokenizer.load import Pieces


def word_starts(pieces: Pieces, text: str = "", cut: Callable[[str], Iterable[str]] | None = None) -> NDArray[np.bool_]:
    """Mark the first piece of each word `[P]`.

    Without `cut`, an English word is a "##" chain and every Han character is its own word, as in the original BERT.
    With it, Han characters that `cut` puts into one word are joined (Cui et al. 2021, arXiv:1906.08101).

    Args:
        pieces: one text's pieces.
        text: the text itself; needed by `cut` only.
        cut: a word segmenter such as `rjieba_cut()`: splits a text into words that, joined, give the text again.

    Raises:
        DataError: `cut` lost or changed characters of the text.
    """
    starts: NDArray[np.bool_] = np.diff(pieces.words, prepend=-1) != 0
    if cut is None or not len(pieces):
        return starts
    words = list(cut(text))
    if "".join(words) != text:
        raise DataError(f"the word segmenter changed the text {text[:40]!r}; use one whose words joined give the text")
    boundary = np.zeros(len(text) + 1, dtype=np.bool_)
    boundary[np.cumsum([0, *map(len, words)])] = True
    inside = ~boundary[pieces.starts]
    inside[0] = False
    # Only neighbours without a gap can be one word, and only Han characters are joined: "don't" stays three words.
    adjacent = np.concatenate(([False], pieces.ends[:-1] == pieces.starts[1:]))
    han = np.array([_is_han(text[start]) for start in pieces.starts])
    joined = inside & adjacent & han & np.concatenate(([False], han[:-1]))
    starts &= ~joined
    return starts


def rjieba_cut() -> Callable[[str], Iterable[str]]:
    """The Chinese word segmenter of the `fast` extra.

    Raises:
        ConfigError: rjieba is not installed.
    """
    try:
        import rjieba  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ConfigError("Chinese words need rjieba; install it with: pip install 'bertsmith[fast]'") from error
    return lambda text: rjieba.cut(text)


def _is_han(character: str) -> bool:
    code = ord(character)
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0x20000 <= code <= 0x2FA1F or 0xF900 <= code <= 0xFAFF
    )
