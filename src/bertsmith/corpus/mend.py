"""Mend text, and lose no prose: remains of HTML, characters that nobody sees, one way of writing what looks the same.

Linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache
from html.entities import html5
from typing import Any, Literal

from bertsmith.core.extras import require

Form = Literal["keep", "nfc", "nfkc"]
Script = Literal["keep", "simplified", "traditional"]

_BLOCK_TAGS = (
    "p|div|br|hr|li|ul|ol|dl|dt|dd|tr|td|th|table|tbody|thead|h[1-6]|blockquote|pre|section|article|header|footer|nav"
    "|form"
)
_INLINE_TAGS = (
    "a|abbr|b|big|center|cite|code|del|em|font|i|img|input|ins|kbd|label|mark|math|nobr|nowiki|q|ref|s|small|span|strike"
    "|strong|sub|sup|tt|u|var|wbr|body|html|head|meta|link|title|iframe|button|option|select|svg|path|noscript"
)
# Words after the name are attributes where they have values or are known to need none: in "a <b and c> d" they are not.
_WITHOUT_VALUE = (
    "async|checked|compact|controls|defer|disabled|hidden|ismap|loop|multiple|muted|nowrap|readonly|required|selected"
)
_VALUE = r"(?:\"[^\"<]{0,500}+\"|'[^'<]{0,500}+'|[^\s\"'<>]{1,500}+)"
_ATTRIBUTES = (
    rf"(?:(?:\s++(?:(?:{_WITHOUT_VALUE})\b(?!\s*=)|[\w:.@-]{{1,60}}+\s*+=\s*+{_VALUE})){{1,20}}+\s*+/?>"
    r"|\s++[\w:.@-]{1,60}+\s*+=[^<>]{0,500}+>|\s*+/?>)"
)
_BLOCK = re.compile(rf"</?(?:{_BLOCK_TAGS})(?![\w-]){_ATTRIBUTES}", re.IGNORECASE)
_INLINE = re.compile(rf"</?(?:{_INLINE_TAGS})(?![\w-]){_ATTRIBUTES}", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Opening, and what closes it. Between tags of scripts and styles stands code, unless somebody writes about these tags.
_HIDDEN = (
    (re.compile("<!--"), re.compile("-->")),
    (re.compile(r"<script[\s>]", re.IGNORECASE), re.compile("</script>", re.IGNORECASE)),
    (re.compile(r"<style[\s>]", re.IGNORECASE), re.compile("</style>", re.IGNORECASE)),
)
_CODE = (";", "{", "}", "=", "//", "/*", "()", "('", '("')
_CODE_SHOWS = 300
"""Characters by which code is told from prose."""
_AT_BREAK = re.compile(r"(?<=\S)[^\S\n]\n|\n[^\S\n](?=\S)")
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n[^\S\n]*(?:\n[^\S\n]*)+")

# Bytes 0x80 to 0x9F that were read as Latin-1 are Windows-1252 in practice: quotation marks, dashes, the euro sign.
_WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") or None for code in range(0x80, 0xA0)}
_SPACES = dict.fromkeys((0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
_LINES = {0x0B: "\n", 0x0C: "\n", 0x2028: "\n", 0x2029: "\n\n"}
_GONE = dict.fromkeys(
    [
        *(*range(9), *range(0x0E, 0x20), 0x7F, 0xAD, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F)),
        *(*range(0x2060, 0x2070), *range(0xE000, 0xF900), 0xFEFF, *range(0xFFF0, 0xFFFC), 0xFFFE, 0xFFFF),
    ]
)
_UNSEEN: dict[int, str | None] = {**_GONE, **_WINDOWS, **_SPACES, **_LINES}
_ANY_UNSEEN = re.compile(f"[\r{''.join(map(re.escape, map(chr, _UNSEEN)))}]")
# A joiner shapes letters in scripts of India and Persia, and makes one emoji of several; elsewhere it does nothing.
_JOINER = re.compile(
    "(?<![\u0600-\u0dff\u1000-\u109f\u1780-\u17ff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]"
)


def without_html(text: str) -> str:
    """Text without tags, comments, scripts and styles, and with characters instead of their entities.

    Only tags of HTML and of wiki text go: `a < b` and `<name>` stay. Tags that were themselves written as entities go,
    too, once.

    Args:
        text: any text.
    """
    if "<" not in text and "&" not in text:
        return text
    mended = _ENTITY.sub(_character, _without_tags(text))
    if "<" in mended and mended != text:
        mended = _without_tags(mended)
    return mended if mended == text else _BLANK_LINES.sub("\n\n", _AT_BREAK.sub("\n", mended)).strip()


def without_unseen(text: str) -> str:
    """Text without control, zero-width, direction and private characters; every kind of space is a space.

    The 32 control characters above ASCII are taken for what Windows-1252 means by them. Joiners stay where they shape
    letters or emoji.

    Args:
        text: any text.
    """
    # What nobody sees is not printable, and asking that is ten times as fast as looking for each.
    if not text.replace("\n", "").isprintable() and _ANY_UNSEEN.search(text):
        # Few of the characters are such, and str.translate would look all of them up.
        text = _ANY_UNSEEN.sub(_seen, text.replace("\r\n", "\n").replace("\r", "\n"))
    return _JOINER.sub("", text) if "\u200d" in text or "\u200c" in text else text


def in_form(text: str, form: Form) -> str:
    """Text in a Unicode normal form.

    Args:
        text: any text.
        form: `nfc` joins letters and their accents; `nfkc` also makes one of full-width and ordinary letters, of
            ligatures and the like.
    """
    if form == "keep" or text.isascii():
        return text
    return unicodedata.normalize("NFC" if form == "nfc" else "NFKC", text)


def in_script(text: str, script: Script) -> str:
    """Chinese text in simplified or traditional characters, phrase by phrase.

    Args:
        text: any text; what is not Chinese stays as it is.
        script: which.

    Raises:
        ConfigError: OpenCC is not installed; names the command that installs it.
    """
    if script == "keep" or text.isascii():
        return text
    converted: str = _converter(script).convert(text)
    return converted


@lru_cache
def _converter(script: Script) -> Any:
    opencc = require("opencc", f"corpus.clean.chinese_script={script}")
    return opencc.OpenCC("t2s" if script == "simplified" else "s2t")


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    for opening, closing in _HIDDEN:
        text = _without_hidden(text, opening, closing)
    return _INLINE.sub("", _BLOCK.sub("\n", text))


def _without_hidden(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """Without what stands between each opening and the next closing; one that is never closed stays."""
    parts: list[str] = []
    end: re.Match[str] | None = None
    done = 0
    for begin in opening.finditer(text):
        if begin.start() < done:
            continue
        if end is None or end.start() < begin.end():
            end = closing.search(text, begin.end())
        if end is None:
            break
        inside = text[begin.end() : min(end.start(), begin.end() + _CODE_SHOWS)]
        if begin[0] != "<!--" and inside.strip() and not any(map(inside.__contains__, _CODE)):
            continue
        parts.append(text[done : begin.start()])
        done = end.end()
    return "".join([*parts, text[done:]]) if done else text


def _seen(character: re.Match[str]) -> str:
    return _UNSEEN[ord(character[0])] or ""


def _character(entity: re.Match[str]) -> str:
    """What an entity stands for; one without a meaning stays, though its beginning may have one."""
    known = entity[0][1] == "#" or entity[0][1:] in html5
    return html.unescape(entity[0]) if known else entity[0]
