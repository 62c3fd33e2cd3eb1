"""What the characters of a text are, counted in one pass: letters by script, digits, marks, symbols."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SCRIPTS = (
    "latin", "han", "kana", "hangul", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai", "letters",
)  # fmt: skip
"""Kinds of letters; the last one is of all other scripts."""

SPACE, DIGIT, MARK, SYMBOL = (len(SCRIPTS) + place for place in range(4))
"""Kinds of other characters: spaces and invisible ones, digits, punctuation, everything else."""

LATIN, HAN, KANA = (SCRIPTS.index(name) for name in ("latin", "han", "kana"))

_RANGES = {
    "latin": ((0x41, 0x24F), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF), (0xFF21, 0xFF5A)),
    "han": ((0x3005, 0x3029), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
    "kana": ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D)),
    "hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7A3)),
    "cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "hebrew": ((0x590, 0x5FF), (0xFB1D, 0xFB4F)),
    "devanagari": ((0x900, 0x97F), (0xA8E0, 0xA8FF)),
    "thai": ((0xE00, 0xE7F),),
}  # fmt: skip

ASSIGNED = ((0, 0x40000), (0xE0000, 0xE1000))
"""Where Unicode has characters; all other code points are unassigned or private."""


def kinds(text: str) -> NDArray[np.uint8]:
    """The kind of each character `[N]`: an index into `SCRIPTS` for letters, or one of the four numbers after them.

    Args:
        text: any text.
    """
    data, width = (text.encode(), np.uint8) if text.isascii() else (text.encode("utf-32-le", "surrogatepass"), "<u4")
    found: NDArray[np.uint8] = _table()[np.frombuffer(data, width)]
    return found


def count_kinds(text: str) -> list[int]:
    """How many characters there are of each of the 15 kinds.

    Args:
        text: any text.
    """
    found: list[int] = np.bincount(kinds(text), minlength=SYMBOL + 1).tolist()
    return found


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """The kind of every code point."""
    other = len(SCRIPTS) - 1
    by_category = {"Z": SPACE, "C": SPACE, "N": DIGIT, "P": MARK, "S": SYMBOL, "L": other, "M": other}
    category = unicodedata.category
    table = np.full(0x110000, by_category["C"], np.uint8)
    for first, end in ASSIGNED:
        table[first:end] = [by_category[category(chr(code))[0]] for code in range(first, end)]
    for name, ranges in _RANGES.items():
        for first, last in ranges:
            part = table[first : last + 1]
            part[part == other] = SCRIPTS.index(name)
    # An iteration mark and a zero stand for Han characters, and are not letters to Unicode.
    table[[0x3005, 0x3007]] = HAN
    # Icons of fonts, and bytes that could not be read.
    table[0xE000:0xF900] = SYMBOL
    table[0xFFFD] = SYMBOL
    # Marks of other kinds in the middle of a text are prose: %, &, degrees, currencies; hash signs and bullets are not.
    table[[ord(sign) for sign in "$£€¥%&°+=＋＝￥"]] = MARK
    table[[ord(sign) for sign in "#*\\_@•·※●■◆★☆"]] = SYMBOL
    table[ord("·")] = MARK
    return table
