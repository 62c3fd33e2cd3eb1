"""How the lines of a text relate to its sentences: wrapped at a width, a paragraph each, or a sentence each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Literal

from bertsmith.corpus.sentences import CJK, split

Layout = Literal["wrapped", "paragraphs", "sentences"]

SAMPLE = 2000
"""Lines; by so many a file's layout is judged."""

_WIDEST_WRAP = 200
_TERMINAL = tuple(".!?;:…。！？；：｡")
_CLOSERS = "\"'”’»)]}」』）》"
_WIDE_END = re.compile(rf"[{CJK}，、；：]$")
_WIDE_START = re.compile(rf"[{CJK}「『（《“]")


def detect(lines: Sequence[str]) -> Layout:
    """Judge by a sample of consecutive lines, blank ones included.

    Wrapped: most line breaks come where the next word would no longer have fitted, or fall before a small letter.
    Sentences: nearly every line ends like a sentence, and hardly any holds two. Otherwise each line is a paragraph.
    """
    filled = [line for line in lines if line.strip()]
    pairs = [(line, after) for line, after in pairwise(lines) if line.strip() and after.strip()]
    if pairs:
        lengths = sorted(len(line.rstrip()) for line in filled)
        width = lengths[len(lengths) * 19 // 20]
        full = sum(len(line.rstrip()) + 1 + len(_first_word(after)) > width for line, after in pairs)
        broken = sum(continues(line, after) for line, after in pairs)
        if (width <= _WIDEST_WRAP and full * 2 > len(pairs)) or broken * 10 > len(pairs) * 3:
            return "wrapped"
    ended = sum(map(_is_ended, filled))
    if len(filled) < 2 or ended * 10 < len(filled) * 8:
        return "paragraphs"
    # Long lines first: where they hold paragraphs, a few of them show it.
    longest = sorted(filled, key=len, reverse=True)
    within = all(more <= len(filled) / 4 for more in accumulate(len(split(line)) - 1 for line in longest))
    return "sentences" if within else "paragraphs"


def _is_ended(line: str) -> bool:
    """Whether a line ends like a sentence."""
    return line.rstrip().rstrip(_CLOSERS).endswith(_TERMINAL)


def _first_word(line: str) -> str:
    word = line.split(None, 1)[0]
    return word[0] if _WIDE_START.match(word) else word


def continues(line: str, after: str) -> bool:
    """Whether the break between two lines falls inside a sentence: no stop before it and a small letter after it."""
    return after.lstrip()[:1].islower() and not _is_ended(line)


def joint(line: str, after: str, layout: Layout) -> str:
    """What belongs between two lines of a document: a newline or nothing in wrapped text, else a blank line."""
    if layout == "sentences":
        return "\n"
    if layout == "paragraphs":
        return "\n" if continues(line, after) else "\n\n"
    return "" if _WIDE_END.search(line) and _WIDE_START.match(after) else "\n"


def paragraphs(text: str) -> str:
    """The text with its single newlines judged: wrapped lines stay together, paragraphs get a blank line."""
    text = text.replace("\r\n", "\n")
    if "\n" not in text:
        return text
    lines = text.split("\n")
    shape = detect(lines[:SAMPLE])
    if shape == "wrapped":
        return text
    joints = (
        joint(line, after, "paragraphs") if line.strip() and after.strip() else "\n" for line, after in pairwise(lines)
    )
    return "".join(chain.from_iterable(zip(lines, chain(joints, [""]), strict=True)))
