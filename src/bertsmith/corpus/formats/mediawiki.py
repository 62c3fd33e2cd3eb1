"""MediaWiki XML dumps, as Wikipedia publishes them: the prose of the articles, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from bertsmith.core.errors import DataError
from bertsmith.core.extras import require
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.formats.wiki_templates import words_of
from bertsmith.corpus.parts import in_parts
from bertsmith.corpus.source import Source

_LARGEST = 64 << 20
_ARTICLE, _FILE, _CATEGORY = "0", "6", "14"
_LEFT_OUT = {
    *("ref", "references", "table", "gallery", "math", "chem", "ce", "code", "syntaxhighlight", "source", "pre"),
    *("timeline", "score", "imagemap", "hiero", "graph", "mapframe", "style", "script", "section", "templatestyles"),
}
_VARIANTS = re.compile(r"-\{([^{}]*)\}-")
_VARIANT = re.compile(r"(zh[a-z-]*)\s*:\s*([^;]*)")
_MAGIC = re.compile(r"__[A-Z]+__")
# What a template in brackets leaves behind.
_EMPTY_BRACKETS = re.compile(r"(?<!\s)\s*[(（][\s,;，；、]*[)）]")
_BEGINNING = re.compile(r"([(（])[\s,;，；、]+")
_GAPS, _BEFORE_STOP = re.compile(" {2,}"), re.compile(r" +(?=[,.](?:\s|$))")
_TABLE_REST = ("|", "{|", "}}")
_LETTER = re.compile(r"[^\W\d_]")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[a-z-]+)?")


@dataclass
class _Site:
    """What a dump says about its wiki: the address of its pages, and the names of what is no prose in a link."""

    address: str = ""
    media: set[str] = field(default_factory=lambda: {"file", "image", "category", "media"})


def read_dump(source: Source, tally: Tally) -> Iterator[Document]:
    """One document an article, each line of text a paragraph; headings, tables, templates and references are left out.

    Of pages with several revisions, the last counts.

    Args:
        source: where the dump comes from.
        tally: counts redirects, pages that are no articles, and articles without prose.

    Raises:
        ConfigError: mwparserfromhell is not installed.
        DataError: the XML is damaged or cut off; names line and column.
    """
    parser = require("mwparserfromhell", f"reading {source.name}")
    site = _Site()
    for page in _pages(source, site, tally):
        where = f"{source.name}, page {page['id']}"
        if page["ns"] != _ARTICLE:
            tally.add("wiki_no_article", where)
        elif "redirect" in page:
            tally.add("wiki_redirect", where)
        elif page.get("model", "wikitext") != "wikitext":
            tally.add("wiki_no_wikitext", where)
        else:
            try:
                text = _plain(parser.parse(page["text"]).nodes, site, parser.nodes)
            except (parser.parser.ParserError, RecursionError):
                tally.add("wiki_page_not_parsed", where)
                continue
            meta = {"title": page["title"], "url": f"{site.address}?curid={page['id']}" if site.address else ""}
            empty = True
            for document in in_parts(_paragraphs(text), page["id"], source.name, meta):
                empty = False
                yield document
            if empty:
                tally.add("wiki_page_without_prose", where)


def _pages(source: Source, site: _Site, tally: Tally) -> Iterator[dict[str, str]]:
    """The pages, with their fields by name; `site` is filled from the dump's head."""
    parser: Any = ElementTree.XMLPullParser(("start", "end"))
    root: Any = None
    page: dict[str, str] = {}
    size = 0
    try:
        for chunk in source.chunks(tally):
            size += len(chunk)
            parser.feed(chunk)
            for event, element in parser.read_events():
                name = element.tag.rpartition("}")[2]
                if root is None:
                    root = element
                    if name != "mediawiki":
                        tally.add("xml_no_mediawiki_dump", source.name)
                        return
                if event == "start":
                    continue
                if name == "siteinfo":
                    _learn(element, site)
                elif name == "revision":
                    page |= _fields(element, ("text", "model"))
                    element.clear()
                    size = 0
                elif name == "page":
                    page |= _fields(element, ("title", "ns", "id", "redirect"))
                    yield {"title": "", "ns": _ARTICLE, "id": "", "text": ""} | page
                    page = {}
                    root.clear()
                    size = 0
            if size > _LARGEST:
                raise DataError(f"{source.name}: a page of more than {_LARGEST >> 20} MB; is this a dump of a wiki?")
        if root is None and not size:
            tally.add("empty_file", source.name)
            return
        parser.close()
    except ElementTree.ParseError as error:
        raise DataError(f"{source.name}: is damaged or cut off: {error}; copy or download it again") from error


def _fields(element: ElementTree.Element, names: Iterable[str]) -> dict[str, str]:
    found = ((child.tag.rpartition("}")[2], child.text or "") for child in element)
    return {name: text for name, text in found if name in names}


def _learn(element: ElementTree.Element, site: _Site) -> None:
    for child in element.iter():
        name = child.tag.rpartition("}")[2]
        if name == "base" and child.text:
            site.address = child.text.rpartition("/")[0]
        elif name == "namespace" and child.get("key") in (_FILE, _CATEGORY) and child.text:
            site.media.add(child.text.lower())


def _plain(nodes: Iterable[Any], site: _Site, kinds: Any) -> str:
    """The words of parsed wikitext."""
    pieces: list[str] = []
    for node in nodes:
        if isinstance(node, kinds.Text):
            pieces.append(str(node))
        elif isinstance(node, kinds.Template):
            pieces.append(words_of(node, lambda value: _plain(value.nodes, site, kinds)))
        elif isinstance(node, kinds.HTMLEntity):
            pieces.append(node.normalize())
        elif isinstance(node, kinds.Heading):
            pieces.append("\n")
        elif isinstance(node, kinds.ExternalLink):
            pieces.append(_plain(node.title.nodes, site, kinds) if node.title is not None else "")
        elif isinstance(node, kinds.Wikilink):
            pieces.append(_link(node, site, kinds))
        elif isinstance(node, kinds.Tag):
            name = str(node.tag).strip().lower()
            if name == "br":
                pieces.append("\n")
            elif name not in _LEFT_OUT and node.contents is not None:
                pieces.append(_plain(node.contents.nodes, site, kinds))
    return "".join(pieces)


def _link(node: Any, site: _Site, kinds: Any) -> str:
    target = str(node.title).strip()
    prefix = target.partition(":")[0].strip().lower() if ":" in target else ""
    if prefix in site.media or (node.text is None and _LANGUAGE.fullmatch(prefix)):
        return ""
    if node.text is not None:
        return _plain(node.text.nodes, site, kinds)
    return target.removeprefix(":")


def _paragraphs(text: str) -> Iterator[str]:
    text = _EMPTY_BRACKETS.sub("", _MAGIC.sub("", _VARIANTS.sub(_variant, text)))
    for line in _BEGINNING.sub(r"\1", text).replace("'''", "").split("\n"):
        line = _BEFORE_STOP.sub("", _GAPS.sub(" ", line)).strip(" \t:;*#")
        if _LETTER.search(line) and not line.startswith(_TABLE_REST):
            yield line


def _variant(match: re.Match[str]) -> str:
    """Of `-{zh-hans:A; zh-hant:B}-` what stands for simplified characters, else the first; `-{A}-` is A.

    Flags that declare a rule for other places show nothing here; A declares and shows, codes of scripts choose.
    """
    flags, mark, rest = match[1].rpartition("|")
    if mark and not all(flag in ("", "R", "A") or flag.startswith("ZH") for flag in _flags(flags)):
        return ""
    forms = dict(_VARIANT.findall(rest))
    if not forms:
        return rest
    return str(
        next((forms[name] for name in ("zh-hans", "zh-cn") if name in forms), next(iter(forms.values())))
    ).strip()


def _flags(text: str) -> list[str]:
    return [flag.strip().upper() for flag in text.split(";")]
