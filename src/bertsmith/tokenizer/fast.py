"""A faster encoder, where it gives the same ids: tokie, every character checked before it is relied on.

What it differs in are characters that few texts hold: combining marks, code points without a letter, some scripts. So
a character is compared with `tokenizers` when it is met first, in several surroundings, and only texts of characters
that passed go through it; all others go through `tokenizers`.
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

WORTH_CHECKING = 500
"""Texts from which loading it, some hundredths of a second, is worth its time."""

_RANGES = (
    ("\t", "\n"),
    ("\u0020", "\u007e"),
    ("\u00a0", "\u00ac"),
    ("\u00ae", "\u02ff"),
    ("\u0370", "\u0482"),
    ("\u048a", "\u0556"),
    ("\u1e00", "\u1fff"),
    ("\u2000", "\u200a"),
    ("\u2010", "\u2027"),
    ("\u202f", "\u205f"),
    ("\u2070", "\u20bf"),
    ("\u2100", "\u27ff"),
    ("\u2e80", "\u3029"),
    ("\u3030", "\u3096"),
    ("\u309b", "\u31ff"),
    ("\u3400", "\u9fff"),
    ("\uac00", "\ud7a3"),
    ("\uf900", "\ufaff"),
    ("\ufe30", "\ufe6b"),
    ("\uff01", "\uffe6"),
)
"""Characters that stand for themselves, whatever is beside them; what they become may differ, so each is checked."""
_SURE = "\t\n" + "".join(map(chr, range(0x20, 0x7F)))
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


_REFUSED, _UNSEEN, _KNOWN = range(3)


class FastEncoder:
    """Encodes texts whose characters all passed the check.

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
        self._reference = reference
        self._state = np.full(0x110000, _REFUSED, np.uint8)
        for first, last in _RANGES:
            self._state[ord(first) : ord(last) + 1] = _UNSEEN
        self._check(_SURE)
        self.same = bool((self._state[[ord(one) for one in _SURE]] == _KNOWN).all()) and not self._differ(list(_HARD))
        self._special = re.compile("|".join(map(re.escape, specials))) if specials else None
        self._hints = sorted({name[0] for name in specials})

    def takes(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether the ids of each text are known to be right `[N]`; characters that are new are checked first.

        Args:
            texts: any number.
        """
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
        found = self._state[codes]
        if len(new := codes[found == _UNSEEN]):
            self._check("".join(map(chr, np.unique(new).tolist())))
            found = self._state[codes]
        refused = np.zeros(len(codes) + 1, np.int64)
        np.cumsum(found != _KNOWN, out=refused[1:])
        ends = np.cumsum([0, *map(len, texts)])
        taken: NDArray[np.bool_] = refused[ends[1:]] == refused[ends[:-1]]
        if self._special:
            for place, text in enumerate(texts):
                if any(hint in text for hint in self._hints) and self._special.search(text):
                    taken[place] = False
        return taken

    def encode(self, texts: Sequence[str]) -> Flat:
        """Ids of texts that it takes.

        Args:
            texts: any number.
        """
        ids, lengths = self._backend.encode_batch_flat(list(texts), add_special_tokens=False)
        return ids.astype(np.int32), lengths.astype(np.int64)

    def _check(self, characters: str) -> None:
        """Note for each character whether the ids are the same: alone, in a word, between words, by Han and digits."""
        differ = set(self._differ([_CONTEXT.format(character) for character in characters]))
        for place, character in enumerate(characters):
            self._state[ord(character)] = _REFUSED if place in differ else _KNOWN

    def _differ(self, texts: list[str]) -> list[int]:
        """The places of the texts whose ids are other ones."""
        (mine, lengths), (theirs, right) = self.encode(texts), self._reference(texts)
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
    if fast is None or not (taken := fast.takes(texts)).any():
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
