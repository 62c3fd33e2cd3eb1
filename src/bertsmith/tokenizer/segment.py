"""Where words start: the units that whole-word masking hides together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.tokenizer.load import Pieces, Tokenizer, well_formed

Cut = Callable[[str], Iterable[str]]

_NOTHING = (np.empty(0, np.int32), np.empty(0, np.bool_))

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")


def word_starts(pieces: Pieces, text: str = "", cut: Cut | None = None) -> NDArray[np.bool_]:
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
    places = {found.start() for found in HAN.finditer(text)}
    han = np.array([start in places for start in pieces.starts.tolist()])
    joined = inside & adjacent & han & np.concatenate(([False], han[:-1]))
    starts &= ~joined
    return starts


def encode_in_words(
    tokenizer: Tokenizer, texts: Sequence[str], cut: Cut
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64]]:
    """As `Tokenizer.encode_flat`, with Han characters joined into words; texts without any take its fast path.

    Args:
        tokenizer: cuts texts into pieces.
        texts: any strings.
        cut: a word segmenter such as `rjieba_cut()`.

    Returns:
        Ids `[P]`, the same as without words; flags `[P]`, true where a word starts; pieces of each text `[N]`.

    Raises:
        DataError: `cut` lost or changed characters of a text.
    """
    has_han = [HAN.search(text) is not None for text in texts]
    chinese = [text for text, han in zip(texts, has_han, strict=True) if han]
    marked = (
        (pieces.ids, word_starts(pieces, well_formed(text), cut))
        for pieces, text in zip(tokenizer.encode(chinese), chinese, strict=True)
    )
    plain = iter(tokenizer.encode_ids([text for text, han in zip(texts, has_han, strict=True) if not han]))
    found = [next(marked if han else plain) for han in has_han]
    ids, starts = ([empty, *(one[place] for one in found)] for place, empty in enumerate(_NOTHING))
    return np.concatenate(ids), np.concatenate(starts), np.array([len(one) for one, _ in found], np.int64)


def rjieba_cut() -> Cut:
    """The Chinese word segmenter of the `fast` extra.

    Raises:
        ConfigError: rjieba is not installed.
    """
    try:
        import rjieba  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ConfigError("Chinese words need rjieba; install it with: pip install 'bertsmith[fast]'") from error
    return lambda text: rjieba.cut(text)
