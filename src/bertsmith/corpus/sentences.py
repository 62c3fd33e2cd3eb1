"""Cut English, Chinese and mixed text into sentences: one regular expression proposes, cheap checks decide.

Linear in the length of the text, whatever the text. Nothing but whitespace is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bertsmith.corpus.document import Document

MAX_SENTENCE = 2000
"""Characters; a longer sentence is cut at whitespace, else after a comma, else anywhere."""

CJK = (
    "\u2e80-\u2fdf\u3003-\u3007\u3021-\u30ff\u3105-\u31bf\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Ideographs, kana, bopomofo and hangul, as the inside of a regular expression's character class."""

_OPENERS = "\"'“‘«(\\[{「『（《〈【〔"
_CLOSERS = "\"'”’»)\\]}」』）》〉】〕"
_WIDE_STOPS = "。！？｡"

# Either a run of Western stops before whitespace or wide text, or a wide stop anywhere. Every quantifier is possessive
# and the first branch starts only where a run does, so no character is scanned more than a fixed number of times.
_CANDIDATE = re.compile(
    rf"(?<![.!?…])[.!?…]++[{_CLOSERS}]*+(?=[\s{CJK}「『（《〈【“‘])|[{_WIDE_STOPS}][{_WIDE_STOPS}.!?…]*+[{_CLOSERS}]*+"
)
_NEXT = re.compile(rf"\s*+[{_OPENERS}]{{0,3}}+(?:([^\W\d_]+)(\.?)|(\S))?")
_PREVIOUS = re.compile(rf"[^\s\"“‘«(\[{{「『（《〈【〔—–/{CJK}]*$")
_PARAGRAPH = re.compile(r"\n[^\S\n]*+\n\s*+")
# A single newline that ends a line: after wide text, or before a bullet or a list number.
_LINE_END = re.compile(
    rf"(?<=[{CJK}{_WIDE_STOPS}…”’」』）》：；，])[^\S\n]*+\n\s*+|\n\s*+(?=(?:[-*•·‣]|\(?\d{{1,3}}[.)])[^\S\n])"
)
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]{1,2}")
_ITEM = re.compile(r"\(?(?:\d{1,3}|[ivxlIVXL]{1,5}|[A-Za-z])")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Never the end of a sentence: what they abbreviate needs a word after it.
_BEFORE_WORD = _words(
    "mr mrs ms messrs dr prof st ste gen sen rep gov lt col capt cpt sgt maj adm cmdr rev fr hon pres mt mme "
    "mlle dept e.g i.e eg ie vs cf viz ca approx esp incl excl resp a.k.a aka"
)
# Not the end when a number follows: "No. 5", but "No. He left."
_BEFORE_NUMBER = _words(
    "no nos nr fig figs eq eqs eqn vol vols pp pg ch chap sec sect art op ed tab tbl ref refs ver para jan feb "
    "mar apr jun jul aug sep sept oct nov dec"
)
# The end only when a word follows that commonly starts a sentence.
_PERHAPS = _words(
    "etc inc ltd co corp jr sr bros llc plc ph.d est univ ave blvd rd al et sp spp var subsp min max feat eds"
)
_PERHAPS_IF_CAPITAL = _words(
    "Mass Calif Conn Penn Wash Ariz Colo Tenn Minn Mich Ill Ind Wis Ore Okla Fla Nev Tex Ala Ark Miss Mo Neb "
    "Va Ga Ky La Md Ph"
)
_ABBREVIATIONS = _BEFORE_WORD | _BEFORE_NUMBER | _PERHAPS
_STARTERS = _words(
    "A About After All Also Although Among An And Another Are As At Because Before Both But By Can Could Did "
    "Do Does Due During Each Even Every Everyone Finally First For From Had Has Have He Her Here His How "
    "However I If In Instead Is It Its Just Later Let Like Many Meanwhile More Most My Neither Nevertheless No "
    "Nobody Not Nothing Now Of On Once One Only Or Other Others Our Over Perhaps Please Second See She Should "
    "Similarly Since So Some Soon Still Such Than That The Their Then There Therefore These They This Those "
    "Though Three Through Throughout Thus To Today Two Under Unlike Until Upon Was We Were What When Where "
    "Whether Which While Who Whose Why Will With Within Without Would Yet You Your"
)
_NUMBER = re.compile(r"[IVXLC]+|[ivxlc]+")


def _previous(text: str, begin: int, stop: int) -> str:
    """The word before `stop`, with its inner dots and apostrophes; looks back 24 characters."""
    match = _PREVIOUS.search(text[max(begin, stop - 24) : stop])
    return match.group().lstrip("'") if match else ""


def _ends(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether the Western stop at `stop` (with its closers: up to `end`) ends the sentence that began at `begin`."""
    following = _NEXT.match(text, end)
    word, dot, sign = following.groups() if following else (None, None, None)
    if word is None and sign is None:
        return True
    if sign is not None and sign in ",;:，；：、)）%":
        return False
    previous = _previous(text, begin, stop)
    lowered = previous.lower()
    single = text[stop] == "." and (end == stop + 1 or text[stop + 1] not in ".!?…")
    if word is not None and word[0].islower() and not word[0] > "\u2e80":
        # Careless writers do not capitalise; believe the stop after an ordinary word that is not an abbreviation.
        plain = end == stop + 1 and text[stop] != "…" and len(previous) > 3 and previous.isalpha()
        return plain and previous == lowered and lowered not in _ABBREVIATIONS
    if not single:
        return True
    starter = word in _STARTERS and not dot
    before = stop - len(previous)
    if before - begin < 8 and _ITEM.fullmatch(previous) and not text[begin:before].strip(" ("):
        return False
    if len(previous) == 1 and previous.isalpha():
        return starter and (previous != "I" or word not in ("A", "I"))
    if lowered in _BEFORE_WORD:
        return False
    if lowered in _BEFORE_NUMBER:
        return not (sign or "").isdigit() and not (word and _NUMBER.fullmatch(word) and word != "I")
    if lowered in _PERHAPS or previous in _PERHAPS_IF_CAPITAL or _ACRONYM.fullmatch(previous):
        return starter
    return True


def _ends_unspaced(text: str, begin: int, stop: int) -> bool:
    """Whether a full stop directly before Chinese text ends a sentence; after a digit it belongs to a number."""
    if stop > begin and text[stop - 1] > "\u2e80":
        return True
    previous = _previous(text, begin, stop)
    return len(previous) > 1 and previous.isalpha() and previous.lower() not in _ABBREVIATIONS


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """The (begin, end) of each sentence of one paragraph."""
    begin = 0
    for match in _CANDIDATE.finditer(text):
        stop, end = match.span()
        if text[stop] in _WIDE_STOPS:
            # 「...。」， and 。） : the quotation is part of a longer sentence.
            if end < len(text) and text[end] in "，、；：,;:":
                continue
        elif not text[end].isspace():
            if text[end] in _WIDE_STOPS or not (text[stop] in "!?" or _ends_unspaced(text, begin, stop)):
                continue
        elif not _ends(text, begin, stop, end):
            continue
        yield begin, end
        begin = end
    yield begin, len(text)


def _shorten(sentence: str) -> Iterator[str]:
    """Pieces of at most MAX_SENTENCE characters."""
    begin = 0
    while len(sentence) - begin > MAX_SENTENCE:
        limit = begin + MAX_SENTENCE
        cut = sentence.rfind(" ", begin + 1, limit)
        if cut < 0:
            cut = max(sentence.rfind(mark, begin, limit) for mark in "，、；：,;\t\u3000") + 1 or limit
        yield sentence[begin:cut].strip()
        begin = cut
    yield sentence[begin:].strip()


def split(text: str) -> list[str]:
    """Cut text into sentences; closing quotes and brackets stay with theirs.

    A blank line always ends a sentence. A single newline does after Chinese text and before a list item; elsewhere the
    line was only wrapped, and is joined with a space.

    Args:
        text: any text, of any length.

    Returns:
        The sentences, stripped, none empty, each at most `MAX_SENTENCE` characters.
    """
    found: list[str] = []
    paragraphs = [text]
    if "\n" in text:
        paragraphs = [
            line.replace("\n", " ") for paragraph in _PARAGRAPH.split(text) for line in _LINE_END.split(paragraph)
        ]
    for paragraph in paragraphs:
        for begin, end in _cuts(paragraph):
            sentence = paragraph[begin:end].strip()
            if len(sentence) > MAX_SENTENCE:
                found.extend(piece for piece in _shorten(sentence) if piece)
            elif sentence:
                found.append(sentence)
    return found


def document_sentences(document: Document) -> list[str]:
    """The sentences of a document: its lines where the source had one sentence a line, else `split` of its text."""
    if document.meta.get("layout") != "sentences":
        return split(document.text)
    lines = (line.strip() for line in document.text.split("\n"))
    return [piece for line in lines for piece in _shorten(line) if piece]
