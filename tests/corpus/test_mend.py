"""Mending: what nobody sees goes, what is prose stays to the character, and no text takes long."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.corpus.mend import in_form, in_script, without_html, without_unseen


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("One<br /><br />two<br>three", "One\n\ntwo\nthree"),
        ("<p>One</p><p class='x'>Two</p>", "One\n\nTwo"),
        ('A <b>bold</b> <a href="x">link</a>.', "A bold link."),
        ("R&amp;D, caf&eacute; &#8212; &#x4E2D;", "R&D, café — 中"),
        ("x<!-- a <b> --> y<script>if (a < b) {}</script> z<STYLE>p{}</STYLE>!", "x y z!"),
        ("&lt;nowiki&gt;kept&lt;/nowiki&gt;", "kept"),
        (
            "a < b and c > d, <name> and <unknown-tag>, AT&T; x&y",
            "a < b and c > d, <name> and <unknown-tag>, AT&T; x&y",
        ),
        ("an open <!-- comment stays", "an open <!-- comment stays"),
        ("copy & paste &copy 2020", "copy & paste &copy 2020"),
    ],
)
def test_remains_of_html(text: str, mended: str) -> None:
    assert without_html(text) == mended


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("zero\u200bwidth\ufeff, soft\u00adhyphen", "zerowidth, softhyphen"),
        ("a\u00a0b\u3000c\u2009d", "a b c d"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("\x93Quoted\x94 \x96 5\x80", "“Quoted” – 5€"),
        ("bell\x07, null\x00, icon\ue001", "bell, null, icon"),
        ("\u202eright\u202c to left", "right to left"),
        ("a\u200db", "ab"),
        ("👨\u200d👩\u200d👧 می\u200cخواهم", "👨\u200d👩\u200d👧 می\u200cخواهم"),
        ("tab\tand newline\n stay", "tab\tand newline\n stay"),
    ],
)
def test_characters_that_nobody_sees(text: str, mended: str) -> None:
    assert without_unseen(text) == mended


@given(st.text(st.characters(categories=["L", "N", "P"], exclude_characters="<>&"), max_size=200))
def test_prose_is_untouched(text: str) -> None:
    assert without_html(text) == text
    assert without_unseen(text) == text
    assert in_form(text, "nfc") == unicodedata.normalize("NFC", text)


def test_normal_forms() -> None:
    assert in_form("cafe\u0301", "nfc") == "café"
    assert in_form("Ａ１，ﬁ", "nfc") == "Ａ１，ﬁ"
    assert in_form("Ａ１，ﬁ", "nfkc") == "A1,fi"
    assert in_form("cafe\u0301", "keep") == "cafe\u0301"


def test_scripts_of_chinese() -> None:
    pytest.importorskip("opencc")
    assert in_script("漢語和头发", "simplified") == "汉语和头发"
    assert in_script("头发和发展", "traditional") == "頭髮和發展"
    assert in_script("漢語", "keep") == "漢語"


@pytest.mark.parametrize(
    "piece", ["<!--", "<script>", "<a ", "<a <", "&amp;amp;", "<br ", "&#", "\r\n", "\u200b", "\n \n"]
)
def test_no_text_takes_long(piece: str) -> None:
    """Twice the text takes about twice the time; a second for a megabyte would be much too much."""
    text = piece * (1_000_000 // len(piece))
    began = time.perf_counter()
    without_unseen(without_html(text))
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize(
    "text",
    [
        "For all numbers, if a<b then c>d holds.",
        "Where p <q and r> s the curves cross.",
        "The <script> element loads code. Harbours are safe. Its end is written </script> and that is all.",
        "&ampere; and x&lty; are no entities.",
        "<b-custom>stays</b-custom>",
    ],
)
def test_prose_that_looks_like_a_tag_stays(text: str) -> None:
    assert without_html(text) == text


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("<a href='x>y'>link</a>", "link"),
        ('<a href="foo>an open quote</a> x', "an open quote x"),
        ("<td nowrap>x</td><input disabled value=3>y", "x\ny"),
        ("<script>alert('x')</script>a<script src=x></script>b<style> </style>c", "abc"),
        ("<img src=http://x/y?a=1&b=2 alt='z'/>v<div id=a data-x>w</div>", "v\nw"),
    ],
)
def test_tags_by_their_attributes(text: str, mended: str) -> None:
    assert without_html(text) == mended


@pytest.mark.parametrize("unit", ["<a ", "<a x=", '<a x="', "<script> a ", "<a x='1' ", "<p a a a ", "<a hidden "])
def test_tags_that_never_end_take_linear_time(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit)) + "</script>"
        began = time.process_time()
        without_html(text)
        return time.process_time() - began

    seconds(10_000)
    assert seconds(800_000) < 30 * max(0.005, seconds(80_000))
