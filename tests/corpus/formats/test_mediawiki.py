"""MediaWiki dumps: articles as prose, everything else counted, damage named, memory bounded."""

from __future__ import annotations

import bz2
import resource
import sys
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.formats import mediawiki
from bertsmith.corpus.readers import read

pytest.importorskip("mwparserfromhell")

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">
<siteinfo><base>https://example.org/wiki/Start</base>
<namespaces><namespace key="0" /><namespace key="6">Datei</namespace><namespace key="14">Kategorie</namespace>
</namespaces></siteinfo>
"""
ARTICLE = """{{Infobox|name={{x}}}}
'''Tide''' ({{IPA|x}}) is the [[sea|rise]] of [[water]].&lt;ref&gt;A book&lt;/ref&gt; See [https://x.org this].
[[Datei:a.png|thumb|A caption with a [[link]]]]
[[Kategorie:Water]]
[[en:Tide]]

== History ==
* one item
* two ''items'', each &amp;ndash; 5&amp;nbsp;km
{| class="wikitable"
! a
|-
| 1
|}
&lt;!-- a comment --&gt;&lt;math&gt;x^2&lt;/math&gt;__NOTOC__
潮水-{zh-hant:漲;zh-hans:涨}-了，-{T|zh:x}-又-{退}-。
"""


def _page(id: int, text: str, title: str = "T", ns: int = 0, more: str = "") -> str:
    return (
        f"<page><title>{title}</title><ns>{ns}</ns><id>{id}</id>{more}"
        f"<revision><id>9{id}</id><model>wikitext</model><text xml:space='preserve'>{text}</text></revision></page>\n"
    )


def _read(path: Path, xml: str, tally: Tally | None = None) -> list[Document]:
    path.write_bytes(bz2.compress(xml.encode()) if path.suffix == ".bz2" else xml.encode())
    return list(read([str(path)], tally or Tally()))


@pytest.mark.parametrize("name", ["a.xml", "a.xml.bz2", "dewiki-pages-articles-multistream1.xml-p1p29.bz2"])
def test_the_prose_of_an_article(tmp_path: Path, name: str) -> None:
    tally = Tally()
    (document,) = _read(tmp_path / name, HEAD + _page(7, ARTICLE, "Tide") + "</mediawiki>", tally)
    assert document.text.split("\n\n") == [
        "Tide is the rise of water. See this.",
        "one item",
        "two items, each – 5\u00a0km",
        "潮水涨了，又退。",
    ]
    assert (document.id, document.meta) == ("7", {"title": "Tide", "url": "https://example.org/wiki?curid=7"})
    assert tally.counts == {}


def test_what_is_no_article_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    xml = HEAD + _page(1, "Talk", ns=1) + _page(2, "#REDIRECT [[x]]", more='<redirect title="x" />')
    xml += _page(3, "{{stub}}") + _page(4, "body {}").replace("wikitext", "css")
    xml += _page(5, "old").replace("</page>", "<revision><text>new text</text></revision></page>") + "</mediawiki>"
    tally = Tally()
    assert [document.text for document in _read(path, xml, tally)] == ["new text"]
    assert tally.counts == {
        "wiki_no_article": 1,
        "wiki_redirect": 1,
        "wiki_page_without_prose": 1,
        "wiki_no_wikitext": 1,
    }
    assert tally.first["wiki_redirect"] == f"{path}, page 2"


def test_a_dump_cut_off_gives_its_whole_pages_then_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(HEAD + _page(1, "first") + _page(2, "second")[:90])
    documents = read([str(path)], Tally())
    assert next(documents).text == "first"
    with pytest.raises(DataError, match=r"a\.xml: is damaged or cut off: .*line 6, column \d+; copy or download"):
        next(documents)


def test_other_xml_and_pages_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no text in 1 file; xml_no_mediawiki_dump: 1"):
        _read(tmp_path / "a.xml", "<rss><item/></rss>")
    with pytest.raises(DataError, match="no text in 1 file; empty_file: 1"):
        _read(tmp_path / "a.xml", "")
    monkeypatch.setattr(mediawiki, "_LARGEST", 1 << 20)
    with pytest.raises(DataError, match="a page of more than 1 MB"):
        _read(tmp_path / "a.xml", HEAD + "<page><text>" + "x" * (3 << 20))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_many_pages_need_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    with path.open("w") as file:
        file.write(HEAD)
        for number in range(6000):
            file.write(_page(number, "{{x}}" + "x" * 10_000, ns=1 if number % 100 else 0))
        file.write("</mediawiki>")
    next(read([str(path)], Tally()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in read([str(path)], Tally())) == 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10, "KB beyond the start, for 60 MB"
