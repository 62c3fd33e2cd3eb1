"""Which encoding bytes are in: by a mark, by strict decoding, and by how much the result looks like Chinese."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_FREQUENT = frozenset(
    "的一是不了在人有我他这個个们們来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着著下自之"
    "年过過发發后後作里裡用道行所然家种種事成方多经經么麼去法学學如都同现現当當没沒动動面起看定天分还還进進好小部"
    "其些主样樣理心她本前开開但因只从從想实實日軍军者意无無力它與与长長把机機十民第公此已工使情明性知全三又关關点"
    "點正业業外将將两兩高间間由问問很最重并並物手应應战戰向头頭文体體政美相见見被利什二等产產或新己制身果加西斯月"
)
_IF_RIGHT, _IF_WRONG = 0.35, 0.03
"""Share of these among the Han characters of Chinese text, and of text decoded wrongly."""

_SLIP, _BYTES_A_SLIP = 1e-2, 2000
"""How likely a damaged place is in text decoded rightly, beside text decoded wrongly; and how many bytes have one."""

_MOST, _LEAST = 400, 4
_SURE = 0.9
_MENDED = 3
_HAN = re.compile(r"[\u3400-\u9fff]")
_PRIVATE = re.compile(r"[\ue000-\uf8ff]")
_MARKS = {
    codecs.BOM_UTF32_LE: ("utf-32", "utf32"),
    codecs.BOM_UTF16_LE: ("utf-16", "utf16"),
    codecs.BOM_UTF16_BE: ("utf-16", "utf16"),
}
# The codec that reads the most of what calls itself Big5 is that of Hong Kong.
_CHINESE = {"gb18030": "gb18030", "big5hkscs": "big5"}


class Guess(NamedTuple):
    """A codec of Python's, the name that a reason shows, and how sure it is, between 0 and 1."""

    codec: str
    label: str
    confidence: float


UTF8 = Guess("utf-8", "utf8", 1.0)


def damage(head: bytes) -> int:
    """How many places of `head` are no UTF-8; a character cut off at its end is none."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    return text.count("\ufffd") - head.count(b"\xef\xbf\xbd")


def guess(head: bytes) -> Guess | None:
    """The encoding of text that begins with `head`, or None if nothing fits.

    A mark decides, and what is UTF-8 throughout is UTF-8. Else GB18030 and Big5 are tried: one that decodes with hardly
    an error is scored by the characters that come out. In Chinese text about every third one is among a few hundred; in
    text decoded wrongly about every thirtieth. The confidence is the probability that this gives, with equal odds for
    each encoding and for neither. Where neither is likely, UTF-8 with up to three wrong places is UTF-8 all the same.

    Args:
        head: the first bytes, some kilobytes at best.
    """
    for mark, (codec, label) in _MARKS.items():
        if head.startswith(mark):
            return Guess(codec, label, 1.0)
    wrong = damage(head)
    if not wrong:
        return UTF8
    odds = {codec: math.exp(min(_evidence(head, codec), 500.0)) for codec in _CHINESE}
    best = max(odds, key=lambda codec: odds[codec])
    confidence = odds[best] / (1 + sum(odds.values()))
    if confidence >= _SURE:
        return Guess(best, _CHINESE[best], min(confidence, 0.999))
    return UTF8 if wrong <= _MENDED else None


def _evidence(head: bytes, codec: str) -> float:
    """Logarithm of how much likelier the decoded text is if the codec is right than if it is wrong."""
    text = codecs.getincrementaldecoder(codec)("replace").decode(head)
    wrong = text.count("\ufffd")
    if wrong * _BYTES_A_SLIP > len(head):
        return -math.inf
    han = _HAN.findall(text)
    if len(han) < _LEAST or len(_PRIVATE.findall(text)) * 50 > len(han):
        return -math.inf
    sample = han[:: max(1, len(han) // _MOST)][:_MOST]
    hits = sum(character in _FREQUENT for character in sample)
    misses = len(sample) - hits
    return (
        wrong * math.log(_SLIP)
        + hits * math.log(_IF_RIGHT / _IF_WRONG)
        + misses * math.log((1 - _IF_RIGHT) / (1 - _IF_WRONG))
    )


def transcoded(chunks: Iterable[bytes], codec: str) -> Iterator[bytes]:
    """The chunks in UTF-8; bytes that the codec cannot decode become one byte that is no UTF-8 either.

    Args:
        chunks: bytes in another encoding, cut anywhere.
        codec: its name in Python.
    """
    decoder = codecs.getincrementaldecoder(codec)(_INVALID)
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogateescape")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogateescape")


def _mark_invalid(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


_INVALID = "bertsmith.invalid"
codecs.register_error(_INVALID, _mark_invalid)
