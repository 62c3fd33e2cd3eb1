"""A faster encoder, where it gives the same ids: tokie, checked character by character before it is used.

What it differs in are characters that few texts hold: combining marks, code points without a letter, some scripts. So
only texts of characters that were checked go through it, and all others through `tokenizers`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.extras import present, require

Flat = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Ids of all texts, one after another, and how many each has."""

WORTH_CHECKING = 10_000
"""Texts from which the check, of some tenths of a second, is worth its time."""

_RANGES = (
    ("\u0020", "\u007e"),
    ("\u00a1", "\u00ac"),
    ("\u00ae", "\u024f"),
    ("\u0391", "\u03ce"),
    ("\u0410", "\u044f"),
    ("\u2010", "\u2027"),
    ("\u2030", "\u203a"),
    ("\u20a0", "\u20b9"),
    ("\u2190", "\u21ff"),
    ("\u2200", "\u22ff"),
    ("\u2460", "\u24ff"),
    ("\u2500", "\u266f"),
    ("\u3000", "\u3029"),
    ("\u3041", "\u3096"),
    ("\u30a1", "\u30fe"),
    ("\u4e00", "\u9fa5"),
    ("\uff01", "\uff5e"),
)
_CHECKED = "".join(chr(code) for first, last in _RANGES for code in range(ord(first), ord(last) + 1)) + "\n\t"
_CONTEXT = "{0} a{0}b {0}{0} 中{0}1{0} x{0}"
_HARD = (
    "",
    " ",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "\u00e9" * 100,
    "\u00e9" * 101,
    "The U.S. and Müller's naïve café cost $1,234.56 (ΣΟΦΟΣ; İstanbul).",
    "他说：“2019年的GDP增长了6.1%！”——《人民日报》（第3版）",
    "don't re-enter e-mail@example.org http://example.org/a_b?c=d#e ... ''quoted''",
)


class FastEncoder:
    """Encodes texts whose characters were all checked.

    Args:
        description: the content of tokenizer.json.
        reference: what the ids must be, for texts.
        specials: texts that hold one of these are left to the reference, for they are words there.
    """

    def __init__(self, description: str, reference: Callable[[Sequence[str]], Flat], specials: Sequence[str]) -> None:
        tokie = require("tokie", "fast encoding")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "tokenizer.json"
            file.write_text(description, encoding="utf-8")
            self._backend: Any = tokie.Tokenizer.from_json(str(file))
        known = "".join(sorted(set(_CHECKED) - set(self._different(reference))))
        self.same = bool(known) and not self._differ(list(_HARD), reference)
        special = "|".join(map(re.escape, specials))
        self._plain = set(map(chr, range(0x20, 0x7F))) <= set(known)
        self._brackets = all(name.startswith("[") for name in specials)
        self._other = re.compile(f"[^{re.escape(known)}]|{special}" if special else f"[^{re.escape(known)}]")

    def takes(self, text: str) -> bool:
        """Whether the ids of a `text` are known to be right."""
        if self._plain and self._brackets and text.isascii() and text.isprintable() and "[" not in text:
            return True
        return self._other.search(text) is None

    def encode(self, texts: Sequence[str]) -> Flat:
        """Ids of texts that it takes.

        Args:
            texts: any number.
        """
        ids, lengths = self._backend.encode_batch_flat(list(texts), add_special_tokens=False)
        return ids.astype(np.int32), lengths.astype(np.int64)

    def _different(self, reference: Callable[[Sequence[str]], Flat]) -> list[str]:
        """The characters with which the ids are other ones: alone, in a word, between words, beside Han and digits."""
        texts = [_CONTEXT.format(character) for character in _CHECKED]
        return [_CHECKED[place] for place in self._differ(texts, reference)]

    def _differ(self, texts: list[str], reference: Callable[[Sequence[str]], Flat]) -> list[int]:
        """The places of the texts whose ids are other ones."""
        (mine, lengths), (theirs, right) = self.encode(texts), reference(texts)
        other = lengths != right
        mine, theirs = mine[np.repeat(~other, lengths)], theirs[np.repeat(~other, right)]
        places = np.repeat(np.arange(len(texts)), np.where(other, 0, lengths))
        other[places[mine != theirs]] = True
        return [int(place) for place in np.flatnonzero(other)]


def fast_encoder(
    description: str, reference: Callable[[Sequence[str]], Flat], specials: Sequence[str]
) -> FastEncoder | None:
    """The faster encoder, where it is installed and passes its check; else None.

    Args:
        description: the content of tokenizer.json.
        reference: what the ids must be, for texts.
        specials: texts that are no ordinary words to the faster encoder.
    """
    if not present("tokie"):
        return None
    try:
        found = FastEncoder(description, reference, specials)
    except Exception:  # the library raises one of its own for a tokenizer that it does not know
        return None
    return found if found.same else None


def encode_with(fast: FastEncoder | None, texts: Sequence[str], reference: Callable[[Sequence[str]], Flat]) -> Flat:
    """Ids of all texts: by the faster encoder of those that it takes, by the reference of the others.

    Args:
        fast: None: there is none.
        texts: any number.
        reference: what the ids must be, for texts.
    """
    taken = np.array([fast is not None and fast.takes(text) for text in texts], np.bool_)
    if fast is None or not taken.any():
        return reference(texts)
    mine, my_lengths = fast.encode(list(compress(texts, taken.tolist())))
    if taken.all():
        return mine, my_lengths
    rest, other_lengths = reference(list(compress(texts, (~taken).tolist())))
    lengths = np.empty(len(texts), np.int64)
    lengths[taken], lengths[~taken] = my_lengths, other_lengths
    by_fast = np.repeat(taken, lengths)
    ids = np.empty(len(by_fast), np.int32)
    ids[by_fast], ids[~by_fast] = mine, rest
    return ids, lengths
