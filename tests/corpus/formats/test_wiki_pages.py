"""A dump of fifty pages: wikitext as editors write it, redirects, other kinds of pages; clean prose comes out."""

from __future__ import annotations

import bz2
from itertools import count, cycle
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read

pytest.importorskip("mwparserfromhell")

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="zh">
<siteinfo><base>https://example.org/wiki/Start</base><namespaces><namespace key="0" />
<namespace key="6">文件</namespace><namespace key="14">分类</namespace></namespaces></siteinfo>
"""
HARD = [
    part.rstrip("\n").split("\n%%%% prose\n")
    for part in Path(__file__).with_name("wikitext.txt").read_text(encoding="utf-8").split("%%%% page\n")[1:]
]
"""Wikitext with a difficulty or several, and the paragraphs that it should give, a line each."""

PROSE = {
    "en": [
        "The river rises in the hills above the town and runs north for most of its length.",
        "Mills stood on its banks until the railway came, and two of them are museums today.",
        "In dry summers the upper part carries no water, so the fish retreat to the deeper pools.",
        "Several bridges cross it; the oldest was built of local stone and is still in use.",
    ],
    "zh": [
        "这条河发源于城北的山区，大部分河段向北流去。",
        "铁路通车以前，两岸有许多水车，其中两座如今是博物馆。",
        "夏季干旱时上游断流，鱼群退到较深的水潭里。",
        "河上有几座桥，最古老的一座用当地的石头砌成，至今仍在使用。",
    ],
}
BEFORE = [
    "{{Infobox river\n| name = X\n| map = [[File:X.png|thumb|A [[map]]]]\n| length = {{convert|5|km}}\n}}\n",
    "{{multiple issues|{{cleanup}}{{refimprove|date=May}}}}\n",
    "[[File:A.jpg|thumb|left|A caption with a [[link]] and ''more''.<ref>Note</ref>]]\n",
    '{| class="wikitable"\n! a !! b\n|-\n| 1 || {| \n| nested\n|}\n|}\n',
    "<!-- a comment\n\nover lines -->\n== A heading ==\n",
    "-{T|zh-hans:甲;zh-hant:乙}-{{NoteTA|G1=IT|1=zh-hans:甲;zh-hant:乙}}\n",
    "<gallery>\nFile:A.jpg|One\nFile:B.jpg|Two\n</gallery>\n",
]
AFTER = [
    "<ref>A book.</ref>",
    '<ref name="x">{{cite book|title=Y|url=https://example.org}}</ref><ref name="x" />',
    "{{sfn|Low|1999|p=3}}",
    "{{citation needed|date=May 2020}}",
    "<!-- why -->",
    "<math>x^2</math>",
]
END = "\n{{Reflist}}\n{{Navbox|name=x|list1=[[a]]}}\n[[分类:河流]]\n[[Category:Rivers]]\n[[fr:Rivière]]\n__NOTOC__"


def _page(number: int, text: str, ns: int = 0, more: str = "", model: str = "wikitext") -> str:
    return (
        f"<page><title>T{number}</title><ns>{ns}</ns><id>{number}</id>{more}<revision><model>{model}</model>"
        f"<text>{escape(text)}</text></revision></page>\n"
    )


def _marked_up(sentences: list[str], seed: int) -> str:
    """The same words as an editor of a wiki would have them."""
    before, after = cycle(BEFORE[seed % len(BEFORE) :] + BEFORE), cycle(AFTER[seed % len(AFTER) :] + AFTER)
    lines = []
    for number, sentence in enumerate(sentences):
        place = 1 + (seed + number) % 4
        word, rest = sentence[:place], sentence[place:]
        word = [f"[[{word}]]", f"[[Page (river)|{word}]]", f"'''{word}'''", f"-{{{word}}}-"][(seed + number) % 4]
        lines.append(f"{next(before)}{word}{rest}{next(after)}\n")
    return "\n".join(lines) + END


@pytest.mark.parametrize("name", ["zhwiki-20260101-pages-articles.xml.bz2", "zhwiki-20260101-pages-articles.xml"])
def test_fifty_pages_give_clean_prose(tmp_path: Path, name: str) -> None:
    numbers = count(1)
    pages: list[str] = []
    wanted: dict[str, list[str]] = {}
    for text, prose in HARD:
        pages.append(_page(number := next(numbers), text))
        wanted[str(number)] = prose.split("\n")
    for seed in range(28):
        sentences = PROSE["zh" if seed % 2 else "en"]
        pages.append(_page(number := next(numbers), _marked_up(sentences[seed % 4 :] + sentences[: seed % 4], seed)))
        wanted[str(number)] = sentences[seed % 4 :] + sentences[: seed % 4]
    for target in ("T1", "T2", "T3", "T4", "T5"):
        pages.append(_page(next(numbers), f"#REDIRECT [[{target}]]", more=f'<redirect title="{target}" />'))
    for namespace in (1, 4, 6, 10, 14):
        pages.append(_page(next(numbers), "Words that are no article.", ns=namespace))
    pages.append(_page(next(numbers), "{{Disambiguation}}\n[[Category:Empty]]"))
    pages.append(_page(next(numbers), "body { color: red }", model="css"))
    pages.append(_page(next(numbers), "return {}", model="Scribunto"))
    assert len(pages) == 50
    data = (HEAD + "".join(pages) + "</mediawiki>").encode()
    (tmp_path / name).write_bytes(bz2.compress(data) if name.endswith(".bz2") else data)

    tally = Tally()
    found = {document.id: document.text.split("\n\n") for document in read([str(tmp_path / name)], tally)}
    assert found == wanted
    assert tally.counts == {
        "wiki_redirect": 5,
        "wiki_no_article": 5,
        "wiki_page_without_prose": 1,
        "wiki_no_wikitext": 2,
    }
