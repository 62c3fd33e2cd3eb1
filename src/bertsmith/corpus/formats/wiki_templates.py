"""Templates that stand for words in a sentence: without them it would have a hole. All others are no prose."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_FIRST = frozenset(
    [
        *("nowrap", "nobr", "nobold", "small", "big", "abbr", "tooltip", "val", "nts", "sup", "sub", "ruby", "ruby-ja"),
        *("ill", "illm", "internal link helper", "interlanguage link", "le", "nihongo", "nihongo2", "nihongo3"),
        *("en", "ja", "jpn", "kor", "fr", "de", "la", "ru", "lat", "not a typo", "sic", "formatnum", "linktext"),
    ]
)
"""The text is the first argument."""
_LAST = frozenset(["lang", "transl", "transliteration", "tsl", "translink", "link-interwiki", "zh-link"])
"""The text is the last argument."""
_QUOTATIONS = frozenset(["quote", "blockquote", "cquote", "quotation", "bquote", "引文", "引言"])
_SIGNS = {
    "snd": " – ",
    "spnd": " – ",
    "spaced ndash": " – ",
    "ndash": "–",
    "en dash": "–",
    "mdash": "—",
    "em dash": "—",
    "'": "'",
    "·": " · ",
    "!": "|",
    "nbsp": " ",
    "spaces": " ",
}
_PREFIX = re.compile(r"(?:lang|link)-[a-z-]+")
_NUMBER = re.compile(r"[\d.,+−/-]*\d[\d.,+−/-]*")
_BETWEEN = {"-": "–", "–": "–", "to": "to", "and": "and", "or": "or", "x": "×", "by": "by"}

Words = Callable[[Any], str]


def words_of(template: Any, words: Words) -> str:
    """The words that a template stands for, or nothing.

    Args:
        template: as mwparserfromhell parses it.
        words: those of an argument's value.
    """
    name = str(template.name).strip().lower().replace("_", " ")
    name, colon, rest = name.partition(":")
    if colon:
        return str(rest).strip() if name == "formatnum" else ""
    if name in _SIGNS:
        return _SIGNS[name]
    given = [words(one.value).strip() for one in template.params if not one.showkey]
    named = {str(one.name).strip().lower(): one.value for one in template.params if one.showkey}
    first = words(named["1"]).strip() if not given and "1" in named else (given or [""])[0]
    if name in _QUOTATIONS:
        return f"\n{words(named['text']).strip() if 'text' in named else first}\n"
    if name in _FIRST or _PREFIX.fullmatch(name):
        return first
    if name in _LAST:
        return (given or [""])[-1]
    if name in ("convert", "cvt"):
        return _measure(given)
    if name in ("circa", "c."):
        return f"c. {first}" if first else "c."
    if name == "as of":
        return f"{'as' if 'lc' in named else 'As'} of {' '.join(reversed(given[:3]))}"
    if name == "frac" and given:
        return "/".join(given[-2:]) if len(given) < 3 else f"{given[0]} {given[1]}/{given[2]}"
    return ""


def _measure(given: list[str]) -> str:
    """`5|km|mi` is 5 km, `5|to|7|km` 5 to 7 km: numbers and what is between them, up to the first unit."""
    pieces: list[str] = []
    for one in given:
        pieces.append(_BETWEEN.get(one, one))
        if not _NUMBER.fullmatch(one) and one not in _BETWEEN:
            break
    return " ".join(pieces).replace(" – ", "–")
