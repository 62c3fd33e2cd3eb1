"""Finding text in a token store, and drawing documents from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bertsmith.core.errors import ConfigError
from bertsmith.tasks.stored import StoredText

CONTEXT = 60
"""Characters shown on each side of what was found."""


@dataclass(frozen=True)
class Hit:
    """One place where a text was found.

    Attributes:
        document: its number in the store, from 0.
        offset: where it begins, in characters of the document as the store can be read.
        before: what stands before it.
        text: what was found.
        after: what stands behind it.
    """

    document: int
    offset: int
    before: str
    text: str
    after: str


def search(
    stored: StoredText, query: str, *, regex: bool = False, context: int = CONTEXT, say: Callable[[str], None]
) -> Iterator[Hit]:
    """Find a text, document by document; every occurrence, also those that overlap no other.

    A literal query is normalised as the vocabulary does it (case, accents, spaces beside marks and Chinese characters),
    so it is found however it is typed. A regular expression is matched against the text as it can be read, with any
    case where the vocabulary folds case.

    Args:
        stored: the store with its vocabulary.
        query: what to look for.
        regex: the query is a regular expression.
        context: characters to show on each side.
        say: takes a remark when the vocabulary lacks a character of the query.

    Returns:
        An iterator; the query is checked before the first hit is asked for.

    Raises:
        ConfigError: nothing to look for, or no regular expression.
    """
    pattern = _pattern(stored, query, regex, say)

    def hits() -> Iterator[Hit]:
        for number, text in enumerate(stored.texts()):
            for found in pattern.finditer(text):
                begin, end = found.span()
                if begin < end:
                    yield Hit(number, begin, text[max(0, begin - context) : begin], found[0], text[end : end + context])

    return hits()


def _pattern(stored: StoredText, query: str, regex: bool, say: Callable[[str], None]) -> re.Pattern[str]:
    if regex:
        try:
            return re.compile(query, re.IGNORECASE if stored.readable.folds_case else 0)
        except re.error as error:
            place = f" at character {error.pos + 1}" if error.pos is not None else ""
            raise ConfigError(f"--regex {query!r}: {error.msg}{place}; leave --regex out to find it as it is") from None
    normal = stored.readable.normal(query)
    if not normal.strip():
        raise ConfigError(f"{query!r}: nothing to look for; type a word, or a part of one")
    if unknown := stored.readable.unknown(normal):
        say(f"{unknown}: not in the vocabulary of this store, which has [UNK] in its place; such text cannot be found")
    return re.compile(re.escape(normal))


def sample(stored: StoredText, count: int, seed: int) -> list[int]:
    """Numbers of documents drawn evenly, ascending; the same for the same store, count and seed.

    Args:
        stored: the store.
        count: how many; all when there are fewer.
        seed: where the draw starts from.
    """
    chance = np.random.Generator(np.random.Philox(seed))
    drawn = chance.choice(len(stored), min(count, len(stored)), replace=False)
    return sorted(int(number) for number in drawn)
