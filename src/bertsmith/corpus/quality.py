"""Whether a document reads like prose: heuristics on its characters, words, lines and repetitions.

Sources: Raffel et al. 2020 (C4, arXiv:1910.10683), section 2.2; Rae et al. 2021 (Gopher, arXiv:2112.11446), table A1.
Differs: Chinese has thresholds and stop characters of its own; shares are of characters where theirs are of words;
repetition is the share of word 5-grams (Chinese: character 10-grams) that occurred before in the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bertsmith.core.config import Config
from bertsmith.corpus.characters import HAN, KANA, LATIN, MARK, SCRIPTS, SPACE, SYMBOL, kinds

STOP_WORDS = frozenset(
    [
        "the",
        "be",
        "to",
        "of",
        "and",
        "that",
        "have",
        "with",
        "a",
        "in",
        "is",
        "was",
        "for",
        "it",
        "on",
        "as",
        "at",
        "by",
        "this",
        "from",
        "or",
        "are",
        "an",
        "not",
        "but",
        "his",
        "her",
        "they",
        "i",
        "you",
    ]
)
STOP_CHARACTERS = frozenset("的是了在有和不我他她这這一人为為以及与與于於就也而都上中个個会會说說要你")
STOPS_LOOKED_FOR = 3000
"""Characters from the beginning in which stop words are looked for."""
CHINESE_SHARE = 0.2
"""Of letters that are Han, from which a text is judged as Chinese."""
MIN_LINES = 10
"""Shares of lines are judged from so many on."""
WORDS, CHARACTERS = 5, 10
"""Units of a shingle by which repetition is told."""

_BULLETS = ("-", "*", "•", "·", "●", "■", "◆", "★", "※", "‣", "►", "–")
_ELLIPSES = ("...", "…", "。。。")


class EnglishLimits(Config):
    """What prose with Latin letters looks like; in other scripts, but for Chinese, the shares alone are judged."""

    min_stop_words: int = Field(2, ge=0, description="different English stop words; text in other languages has none")
    min_word_length: float = Field(2.5, ge=0, description="letters in a word, on average")
    max_word_length: float = Field(10.0, ge=0, description="letters in a word, on average")
    min_letters: float = Field(0.6, ge=0, le=1, description="share of letters among visible characters")
    max_symbols: float = Field(0.1, ge=0, le=1, description="share of hash signs, bullets, arrows, icons and the like")
    min_marks: float = Field(0.003, ge=0, le=1, description="share of punctuation; a list of key words has none")
    max_bullets: float = Field(0.9, ge=0, le=1, description="share of lines that begin with a bullet")
    max_ellipses: float = Field(0.5, ge=0, le=1, description="share of lines that end in an ellipsis")
    max_repetition: float = Field(0.3, ge=0, le=1, description="share of word 5-grams that occurred before")


class ChineseLimits(Config):
    """What Chinese prose looks like."""

    min_stop_words: int = Field(2, ge=0, description="different stop characters, such as 的 and 是")
    min_letters: float = Field(0.5, ge=0, le=1, description="share of letters among visible characters")
    max_symbols: float = Field(0.1, ge=0, le=1, description="share of hash signs, bullets, arrows, icons and the like")
    min_marks: float = Field(0.01, ge=0, le=1, description="share of punctuation; a list of key words has none")
    max_bullets: float = Field(0.9, ge=0, le=1, description="share of lines that begin with a bullet")
    max_ellipses: float = Field(0.5, ge=0, le=1, description="share of lines that end in an ellipsis")
    max_repetition: float = Field(0.3, ge=0, le=1, description="share of character 10-grams that occurred before")


class Facts(NamedTuple):
    """What is counted in a text.

    Attributes:
        counts: characters by kind, 15 of them.
        words: runs of letters and digits, a Han or kana character being one.
        spelt: those of them with letters other than Han and kana.
        marks: punctuation; one for each run of the same sign.
    """

    counts: Sequence[int]
    words: int
    spelt: int
    marks: int

    @property
    def visible(self) -> int:
        """Characters that are not space."""
        return sum(self.counts) - self.counts[SPACE]

    @property
    def letters(self) -> int:
        """Characters of any script."""
        return sum(self.counts[: len(SCRIPTS)])

    @property
    def chinese(self) -> bool:
        """Whether the text is judged as Chinese."""
        return self.counts[HAN] > CHINESE_SHARE * self.letters


def facts(text: str) -> Facts:
    """Count what the rules are about.

    Args:
        text: any text.
    """
    found = kinds(text)
    counts = np.bincount(found, minlength=SYMBOL + 1).tolist()
    letter = (found < len(SCRIPTS)) & (found != HAN) & (found != KANA)
    spelt = _runs(letter)
    number = _runs(letter | (found == SPACE + 1)) - spelt
    return Facts(counts, spelt + max(0, number) + counts[HAN] + counts[KANA], spelt, _runs(found == MARK))


def fault(
    text: str, lines: Sequence[str], seen: Facts, repetition: float, english: EnglishLimits, chinese: ChineseLimits
) -> tuple[str, str] | None:
    """The first rule that a document breaks, and the figure that it breaks it with; None for prose.

    Args:
        text: of the document.
        lines: its lines that are not blank.
        seen: counts of its characters.
        repetition: share of its shingles that occurred before in it.
        english: thresholds of text that is not Chinese.
        chinese: thresholds of Chinese text.
    """
    limits = chinese if seen.chinese else english
    visible = max(1, seen.visible)
    symbols, letters, marks = seen.counts[SYMBOL] / visible, seen.letters / visible, seen.marks / visible
    if symbols > limits.max_symbols:
        return "too_many_symbols", f"{symbols:.0%} symbols"
    if letters < limits.min_letters:
        return "too_few_letters", f"{letters:.0%} letters"
    if marks < limits.min_marks:
        return "too_few_marks", f"{marks:.2%} punctuation"
    if isinstance(limits, EnglishLimits) and seen.counts[LATIN] * 2 > seen.letters:
        length = (seen.letters - (seen.counts[HAN] + seen.counts[KANA])) / max(1, seen.spelt)
        if not limits.min_word_length <= length <= limits.max_word_length:
            return "odd_word_length", f"{length:.1f} letters a word"
    if limits.min_stop_words and (seen.chinese or seen.counts[LATIN] * 2 > seen.letters):
        stops = _stops(text, limits.min_stop_words)
        if stops < limits.min_stop_words:
            return "too_few_stop_words", f"{stops} different stop words"
    if repetition > limits.max_repetition:
        return "too_much_repetition", f"{repetition:.0%} repeated"
    if len(lines) < MIN_LINES:
        return None
    ellipses = sum(line.endswith(_ELLIPSES) for line in lines) / len(lines)
    if ellipses > limits.max_ellipses:
        return "too_many_ellipses", f"{ellipses:.0%} of the lines"
    bullets = sum(line.startswith(_BULLETS) for line in lines) / len(lines)
    if bullets > limits.max_bullets:
        return "too_many_bullets", f"{bullets:.0%} of the lines"
    return None


def _stops(text: str, enough: int) -> int:
    """How many different stop words there are, or stop characters: an article may quote another language at length.

    Args:
        text: of the document.
        enough: where there are so many, nobody asks for more.
    """
    found = 0
    for size in (STOPS_LOOKED_FOR // 20, STOPS_LOOKED_FOR):
        head = text[:size]
        characters = 0 if head.isascii() else len(STOP_CHARACTERS.intersection(head))
        whole = head if len(head) < size else head.rpartition(" ")[0]
        found = max(characters, len(STOP_WORDS.intersection(whole.lower().split())))
        if found >= enough:
            break
    return found


def _runs(inside: NDArray[np.bool_]) -> int:
    """How many runs of true there are."""
    return int(np.count_nonzero(inside[1:] & ~inside[:-1])) + int(len(inside) > 0 and inside[0])
