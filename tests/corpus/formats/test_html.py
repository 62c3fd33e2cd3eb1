"""HTML: the main text without what surrounds it, in whatever encoding, and counted when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.formats import html
from bertsmith.corpus.readers import read

PARAGRAPHS = [
    "The tide rose before noon and covered the lower steps of the harbour, and it stayed until the evening.",
    "Nobody had told the fishermen about the change, so three boats were still tied to the wall.",
    "A clock needs a steady beat, and its pendulum gives one; when the rod grows warm it grows longer.",
]
PAGE = """<?xml version="1.0" encoding="{charset}"?>
<!DOCTYPE html><html><head><meta charset="{charset}"><title>{title}</title>
<link rel="canonical" href="https://example.org/tide"></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About us</a></li></ul></nav>
<article><h1>{title}</h1>{body}<table><tr><td>1</td><td>2</td></tr></table><pre>code()</pre></article>
<footer><p>Copyright, cookies and terms of use</p></footer></body></html>
"""


def _page(*paragraphs: str, title: str = "The tide", charset: str = "utf-8") -> str:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return PAGE.format(title=title, body=body, charset=charset)


def _read(path: Path, data: bytes, tally: Tally | None = None) -> list[Document]:
    path.write_bytes(data)
    return list(read([str(path)], tally or Tally()))


def test_the_main_text(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura")
    tally = Tally()
    (document,) = _read(tmp_path / "a.html", _page(*PARAGRAPHS).encode(), tally)
    assert document.text.split("\n\n") == ["The tide", *PARAGRAPHS]
    assert document.meta == {"title": "The tide", "url": "https://example.org/tide"}
    assert tally.counts == {}


def test_pages_that_state_the_wrong_encoding(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura")
    chinese = [
        f"第{n}天，潮水在中午以前涨了起来，淹没了码头下面的台阶。没有人把这个变化告诉渔民，所以三条船还系在墙边。"
        for n in "一二三四五六七八九"
    ]
    tally = Tally()
    (document,) = _read(tmp_path / "a.htm", _page(*chinese, title="潮水").encode("gbk"), tally)
    assert document.text.split("\n\n")[-9:] == chinese
    assert list(tally.counts) == ["read_as_gb18030"]


def test_pages_in_the_encoding_that_they_state(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura")
    spanish = [f"{paragraph} ¿Qué pasó después, señor? Él está aquí." for paragraph in PARAGRAPHS]
    tally = Tally()
    (document,) = _read(tmp_path / "a.html", _page(*spanish, charset="windows-1252").encode("cp1252"), tally)
    assert document.text.split("\n\n")[1:] == spanish
    assert tally.first == {"read_as_cp1252": f"{tmp_path / 'a.html'}, as it states"}


def test_pages_without_text_and_too_large_ones_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trafilatura")
    monkeypatch.setattr(html, "_LARGEST", 1000)
    (tmp_path / "a.html").write_text("<html><body></body></html>")
    (tmp_path / "b.html").write_text("x" * 1001)
    (tmp_path / "c.html").touch()
    with pytest.raises(DataError, match="no text in 3 files; empty_file: 1.*\n.*too_large: 1.*\n.*without_text: 1"):
        list(read([str(tmp_path)], Tally()))


def test_without_trafilatura_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    monkeypatch.setattr("bertsmith.corpus.readers.present", lambda module: False)
    with pytest.raises(ConfigError, match=r"reading .*a\.html.gz needs the package trafilatura.*bertsmith\[web\]"):
        (tmp_path / "a.html.gz").touch()
        read([str(tmp_path)], Tally())  # before any document is asked for


def test_lines_of_the_source_are_no_paragraphs(tmp_path: Path) -> None:
    pytest.importorskip("trafilatura")
    wrapped = [paragraph.replace(" ", "\n  ", 9).replace("\n  ", " ", 6) for paragraph in PARAGRAPHS]
    chinese = "潮水在中午以前涨了上来，\r\n淹没了港口下面的台阶，\n    一直到傍晚才退去，谁也没有料到。"
    page = _page(*wrapped, chinese, title="The\n tide").replace("</h1>", '<a class="headerlink" href="#x">¶</a></h1>')
    (document,) = _read(tmp_path / "a.html", page.encode())
    assert all("\n" in paragraph for paragraph in wrapped)
    assert document.text.split("\n\n") == [
        "The tide",
        *PARAGRAPHS,
        "潮水在中午以前涨了上来，淹没了港口下面的台阶，一直到傍晚才退去，谁也没有料到。",
    ]
