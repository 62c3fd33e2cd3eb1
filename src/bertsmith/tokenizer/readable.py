"""Pieces as a person reads them: joined into words, with the spaces that one would set."""

from __future__ import annotations

import re
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from bertsmith.tokenizer.load import CONTINUATION, SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.segment import HAN
from bertsmith.tokenizer.words import words_of

_WIDE = re.compile("[\u3000-\u303f\u3040-\u30ff\uff00-\uffef—…‘’“”·]")
_CLOSES = re.compile(r"[.,:;!?%)\]}'/-]")
_OPENS = re.compile(r"[(\[{'/#$@-]")


class Readable:
    """Turns ids into text, and a text typed by a person into the same form.

    Where a space stood in the original is not known any more: there is none beside a Chinese character or mark, before
    a mark that closes and after one that opens, and one between all other words. Case and accents are as the
    vocabulary has them.

    Args:
        tokenizer: the vocabulary that the ids belong to.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        pre_tokenizer = tokenizer.settings["pre_tokenizer"] or {}
        self._is_bert = pre_tokenizer.get("type") == "BertPreTokenizer"
        self._backend = tokenizers.Tokenizer.from_str(tokenizer.files()["tokenizer.json"].decode())
        continues = [self._is_bert and token.startswith(CONTINUATION) and len(token) > 2 for token in tokenizer.tokens]
        plain = [token[2:] if inside else token for token, inside in zip(tokenizer.tokens, continues, strict=True)]
        self._plain = np.array(plain, dtype=object)
        self._spaced = np.array([" " + token for token in plain], dtype=object)
        self._joins_left = np.array(continues) | np.array([_joins_left(token) for token in plain])
        self._joins_right = np.array([_joins_right(token) for token in plain])

    @property
    def folds_case(self) -> bool:
        """Whether the vocabulary knows no capital letters."""
        return bool((self._tokenizer.settings["normalizer"] or {}).get("lowercase"))

    def text(self, ids: NDArray[np.integer[Any]]) -> str:
        """The text of consecutive pieces.

        Args:
            ids: piece ids `[P]`.
        """
        if not self._is_bert:
            return self._tokenizer.decode(ids)
        return "".join(self.parts(ids)).removeprefix(" ")

    def parts(self, ids: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """The strings `[P]` that, joined, are the text of consecutive pieces, with a space before the first one.

        Args:
            ids: piece ids `[P]`.
        """
        joined = self._joins_left[ids]
        joined[1:] |= self._joins_right[ids[:-1]]
        found: NDArray[Any] = np.where(joined, self._plain[ids], self._spaced[ids])
        return found

    def normal(self, text: str) -> str:
        """A text as it would stand among the pieces: normalised, and spaced as `text` does it.

        Args:
            text: any string.
        """
        if not self._is_bert:
            return text
        words = words_of(self._backend, text)
        if not words:
            return ""
        joints = ("" if _joins_right(before) or _joins_left(word) else " " for before, word in pairwise(words))
        return words[0] + "".join(joint + word for joint, word in zip(joints, words[1:], strict=True))

    def unknown(self, text: str) -> str:
        """The characters of a normalised text that no piece of the vocabulary has, each once.

        Args:
            text: as `normal` gives it.
        """
        return "".join(dict.fromkeys(character for character in text if character not in self._characters))

    @cached_property
    def _characters(self) -> set[str]:
        return {" ", *"".join(token for token in self._plain if token not in SPECIAL_TOKENS)}


def _joins_left(token: str) -> bool:
    return _is_wide(token[0]) or bool(_CLOSES.match(token))


def _joins_right(token: str) -> bool:
    return _is_wide(token[-1]) or (len(token) == 1 and bool(_OPENS.match(token)))


def _is_wide(character: str) -> bool:
    return bool(HAN.match(character) or _WIDE.match(character))
