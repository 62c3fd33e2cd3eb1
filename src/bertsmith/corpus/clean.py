"""Cleaning: documents in, documents that are prose out; every rule has a name, can be switched, counts and shows.

Nothing is remembered from one document to the next, so documents may be shared out as one likes. What needs all of
them, lines that stand in many, has its second half in `without_lines`.

Sources: see `quality` for the heuristics; `page_line` and `repeated_line` follow C4 (arXiv:1910.10683) and Gopher
(arXiv:2112.11446).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError
from bertsmith.core.extras import require
from bertsmith.corpus.boilerplate import MIN_WORDS, line_key
from bertsmith.corpus.document import Document
from bertsmith.corpus.findings import Findings
from bertsmith.corpus.language import BY_SCRIPT, language
from bertsmith.corpus.mend import Form, Script, in_form, in_script, without_html, without_unseen
from bertsmith.corpus.privacy import MIN_KEY, PrivacyConfig, redact
from bertsmith.corpus.quality import CHARACTERS, WORDS, ChineseLimits, EnglishLimits, Facts, facts, fault
from bertsmith.corpus.shingles import repetition
from bertsmith.corpus.wordlist import WordList

KEY = "BERTSMITH_PRIVACY_KEY"
"""The environment variable with the key for hashes of personal data."""
BATCH = 1 << 18
"""Characters of documents that are looked at together."""

RELAX = {
    "too_short": "corpus.clean.min_words=1",
    "other_language": "corpus.clean.languages=[]",
    "word_list": "corpus.clean.word_list_hits=1000000",
    "toxic": "corpus.clean.toxic_score=1",
    "only_boilerplate": "corpus.clean.boilerplate=0",
    "boilerplate_line": "corpus.clean.boilerplate=0",
    "repeated_line": "corpus.clean.repeated_lines=false",
    "page_line": "corpus.clean.page_lines=false",
    "too_many_symbols": "corpus.clean.english.max_symbols=1 (chinese.max_symbols)",
    "too_few_letters": "corpus.clean.english.min_letters=0 (chinese.min_letters)",
    "too_few_marks": "corpus.clean.english.min_marks=0 (chinese.min_marks)",
    "odd_word_length": "corpus.clean.english.max_word_length=100",
    "too_few_stop_words": "corpus.clean.english.min_stop_words=0 (chinese.min_stop_words)",
    "too_much_repetition": "corpus.clean.english.max_repetition=1 (chinese.max_repetition)",
    "too_many_ellipses": "corpus.clean.english.max_ellipses=1 (chinese.max_ellipses)",
    "too_many_bullets": "corpus.clean.english.max_bullets=1 (chinese.max_bullets)",
    "duplicate": "corpus.dedup.mode=off",
    "near_duplicate": "corpus.dedup.mode=off",
}
"""What to set so that a rule leaves nothing out."""

_BEFORE = 60
_PAGE_LONGEST, _PAGE_LONGEST_WIDE = 200, 60
# All that is narrower than Chinese.
_NARROW = re.compile("[^\u2e80-\uffff\U00020000-\U0003ffff]+")
_PAGE_INSIDE = re.compile(
    r"\b(?:uses?|use of|accept(?: all)?) cookies\b|\bcookie (?:policy|settings|preferences)\b"
    r"|\b(?:enable|turn on) javascript\b|\bjavascript (?:is|must be|seems to be) (?:disabled|enabled|turned off)\b"
    r"|\ball rights reserved\b|\blorem ipsum\b|\bskip to (?:main )?content\b"
    r"|\bsubscribe to (?:our|the|my) (?:newsletter|channel|mailing list)\b|\bsign up for (?:our|the) newsletter\b"
    r"|\b(?:log|sign) ?in (?:or (?:register|sign up) )?to (?:post|comment|reply|leave)\b|\bleave a (?:reply|comment)$"
    "|版权所有|未经.{0,12}(?:许可|授权|同意|允许).{0,12}(?:转载|复制|使用)|公网安备|(?:ICP|icp)[备备證证]"
    "|扫(?:一扫|描).{0,12}二维码|关注.{0,12}(?:公众号|公眾號)",
    re.IGNORECASE,
)
# What the expression above finds holds one of these, and they take a tenth of its time.
_PAGE_WORDS = (
    "cookie", "javascript", " reserved", " ipsum", "skip to ", "subscribe to ", "newsletter",
    " to post", " to comment", " to reply", " to leave", "leave a ",
)  # fmt: skip
_PAGE_WORDS_WIDE = (*_PAGE_WORDS, "版权所有", "未经", "公网安备", "icp", "二维码", "公众号", "公眾號")
_PAGE_START = re.compile(
    r"(?:read|show|see|learn|load) more\b.{0,20}$|share (?:this|on)\b.{0,60}$"
    r"|(?:click here|back to top|follow us)\b"
    r"|(?:home|previous|next|menu|search|login|register|contact us|about us|print|email)(?:\s*[|/»›>·•]\s*\S.*)?$"
    "|责任编辑|編輯：|(?:上|下)一篇|分享(?:到|至)"
    "|(?:首页|返回首页|返回顶部|回到顶部|查看更多|点击查看|阅读全文|展开全文|更多|登录|注册|登入|註冊)\\W{0,4}$",
    re.IGNORECASE,
)
_BLANK_LINES = re.compile(r"\n\s*\n\s*")


class CleanConfig(Config):
    """What is mended in documents, and which are left out."""

    mode: Literal["off", "mend", "filter"] = Field(
        "mend", description="mend: only characters, no prose is lost; filter: leave out lines and documents, too"
    )
    html: bool = Field(True, description="take out tags, scripts and comments, write entities as characters")
    unseen: bool = Field(True, description="take out control, zero-width and private characters")
    unicode: Form = Field("nfc", description="Unicode normal form: keep, nfc, nfkc")
    chinese_script: Script = Field("keep", description="simplified or traditional characters for all (extra clean)")
    personal_data: bool = Field(False, description="replace personal data and secrets, as privacy says")
    privacy: PrivacyConfig = Field(default_factory=PrivacyConfig)
    page_lines: bool = Field(True, description="filter: leave out lines such as cookie notices and share buttons")
    repeated_lines: bool = Field(True, description="filter: leave out a line of five words that its document has above")
    boilerplate: int = Field(
        20, ge=0, description="filter: leave out a line of five words that stands in so many documents; 0: none"
    )
    min_words: int = Field(5, ge=0, description="filter: shortest document; a Han character is a word")
    languages: tuple[str, ...] = Field((), description="filter: ISO 639-1 codes of what stays, such as ['en', 'zh']")
    quality: bool = Field(True, description="filter: leave out documents that are no prose, by the limits below")
    judged_from: int = Field(50, ge=1, description="filter: words that a document must have to be judged by limits")
    english: EnglishLimits = Field(default_factory=EnglishLimits)
    chinese: ChineseLimits = Field(default_factory=ChineseLimits)
    word_list: str | None = Field(None, description="filter: leave out documents with words of this file, one a line")
    word_list_hits: int = Field(3, ge=1, description="filter: so many of them")
    toxic: str | None = Field(
        None, description="filter: leave out documents that this classifier calls toxic; a bundle"
    )
    toxic_labels: tuple[str, ...] = Field((), description="which of its labels count; by default those called toxic")
    toxic_score: float = Field(0.5, gt=0, le=1, description="probability from which a passage is toxic")
    toxic_share: float = Field(0.2, gt=0, le=1, description="filter: from this share of toxic passages on")
    toxic_passages: int = Field(8, ge=0, description="passages of a document that are judged; 0: all")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("word_list", "toxic"):
            if getattr(self, name) and not self.filters:
                raise ValueError(f"{name} leaves out documents, and mode={self.mode} does not; set mode=filter")
        return self

    @property
    def filters(self) -> bool:
        """Whether lines and documents may be left out."""
        return self.mode == "filter"


class Cleaner:
    """Applies the rules of a config to documents, and keeps account.

    Args:
        config: which rules.

    Raises:
        ConfigError: a rule needs a package that is not installed, or a key that is not in the environment.
        DataError: the word list cannot be used.
    """

    def __init__(self, config: CleanConfig) -> None:
        self.config = config
        self.findings = Findings()
        self._words = WordList(Path(config.word_list)) if config.filters and config.word_list else None
        self._key = os.environ.get(KEY, "").encode()
        self._mending = _mending(config, self._key)
        self._language = partial(_language, by_script=set(config.languages) <= BY_SCRIPT)

    def clean(self, documents: Iterable[Document]) -> Iterator[tuple[Document, set[int]]]:
        """The documents that stay, in order, each with the hashes of its lines that could be boilerplate.

        Args:
            documents: from the readers.
        """
        batch: list[tuple[Document, list[str], str]] = []
        size = 0
        for document in documents:
            self.findings.documents += 1
            self.findings.characters += len(document.text)
            if not self.config.filters:
                if mended := self._mended(document):
                    yield self._kept(mended), set()
                continue
            if mended := self._mended(document):
                batch.append(self._without_lines(mended))
                size += len(mended.text)
            if size >= BATCH:
                yield from self._judged(batch)
                batch, size = [], 0
        yield from self._judged(batch)

    def _kept(self, document: Document) -> Document:
        self.findings.kept_documents += 1
        self.findings.kept_characters += len(document.text)
        return document

    def _mended(self, document: Document) -> Document | None:
        text = document.text
        changes: list[tuple[str, int, int]] = []
        for reason, mend in self._mending:
            mended = mend(text)
            if mended != text:
                changes.append((reason, _difference(text, mended), max(0, len(text) - len(mended))))
                text = mended
        if not changes:
            return document
        for reason, place, lost in changes:
            # Shown as it is in the end, so that no sample has personal data that is taken out.
            self.findings.add(reason, "mended", document, text[max(0, place - _BEFORE) :], lost)
        if not text.strip():
            self.findings.add("nothing_left", "documents", document, document.text, len(text))
            return None
        return replace(document, text=text)

    def _without_lines(self, document: Document) -> tuple[Document, list[str], str]:
        """The document without its lines that are no prose, the lines that stay, and the text as it was."""
        config = self.config
        kept: list[str] = []
        gone = False
        above: set[str] = set()
        for raw in document.text.split("\n"):
            line = raw.strip()
            reason = ""
            if not line:
                pass
            elif config.page_lines and _is_page_line(line):
                reason = "page_line"
            elif config.repeated_lines and line in above and _words(line) >= MIN_WORDS:
                reason = "repeated_line"
            if reason:
                self.findings.add(reason, "lines", document, line, len(raw))
                gone = True
            else:
                above.add(line)
                kept.append(raw)
        lines = [line for line in map(str.strip, kept) if line]
        return (replace(document, text=_joined(kept)) if gone else document), lines, document.text

    def _judged(self, batch: list[tuple[Document, list[str], str]]) -> Iterator[tuple[Document, set[int]]]:
        config = self.config
        texts = [document.text for document, _, _ in batch]
        counted = [facts(text) for text in texts]
        some = [place for place, seen in enumerate(counted) if config.quality and seen.words >= config.judged_from]
        shares = dict(zip(some, repetition([texts[place] for place in some], WORDS, CHARACTERS).tolist(), strict=True))
        for place, (document, lines, before) in enumerate(batch):
            why = self._why_not(document.text, lines, counted[place], shares.get(place))
            if why:
                self.findings.add(why[0], "documents", document, before, len(document.text), why[1])
                continue
            keys = {line_key(line) for line in lines if _words(line) >= MIN_WORDS} if config.boilerplate else set()
            yield self._kept(document), keys

    def _why_not(self, text: str, lines: list[str], seen: Facts, repeated: float | None) -> tuple[str, str] | None:
        config = self.config
        if seen.words < config.min_words:
            return "too_short", f"{seen.words} words"
        if config.languages and (code := self._language(text, seen)) not in config.languages:
            return "other_language", code
        if repeated is not None and (found := fault(text, lines, seen, repeated, config.english, config.chinese)):
            return found
        if self._words and (hits := self._words.hits(text)) >= config.word_list_hits:
            return "word_list", f"{hits} hits"
        return None


def without_lines(
    documents: Iterable[tuple[int, Document]], boilerplate: Collection[int], config: CleanConfig, findings: Findings
) -> Iterator[tuple[int, Document]]:
    """Documents without the lines that stand in many of them; one of which too little stays is left out.

    Args:
        documents: numbered, as `Cleaner.clean` gave them.
        boilerplate: hashes of the lines.
        config: of the cleaner.
        findings: receives `boilerplate_line`, and `only_boilerplate` where less than the shortest document is left.
    """
    for number, document in documents:
        if not boilerplate:
            yield number, document
            continue
        kept = []
        lost = 0
        for line in document.text.split("\n"):
            if len(line) > MIN_WORDS and line_key(line.strip()) in boilerplate:
                findings.add("boilerplate_line", "lines", document, line.strip(), len(line))
                lost += len(line)
            else:
                kept.append(line)
        if not lost:
            yield number, document
            continue
        rest = replace(document, text=_joined(kept))
        if (words := facts(rest.text).words) < max(1, config.min_words):
            findings.take_back(len(document.text))
            findings.add("only_boilerplate", "documents", rest, document.text, len(rest.text), f"{words} words left")
        else:
            findings.kept_characters -= len(document.text) - len(rest.text)
            yield number, rest


def _language(text: str, seen: Facts, by_script: bool) -> str:
    return language(text, seen.counts, by_script=by_script)


def nothing_left(findings: Findings, others: dict[str, int]) -> str:
    """Why nothing is left of all documents, and which setting keeps more.

    Args:
        findings: of all documents.
        others: documents left out by anything else, by reason.
    """
    gone = findings.left_out() | others
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in gone.items())
    advice = [f"--set {RELAX[reason]}" for reason in gone if reason in RELAX][:2]
    advice = advice or ["--set corpus.clean.mode=off"]
    return (
        f"cleaning left nothing of {findings.documents:,} documents ({reasons}); "
        f"to keep what the first rule leaves out, {' and '.join(advice)}; "
        "to keep all, --set corpus.clean.mode=mend --set corpus.dedup.mode=off"
    )


def _mending(config: CleanConfig, key: bytes) -> list[tuple[str, Callable[[str], str]]]:
    """The name and the function of each rule that changes characters, in the order in which they are applied."""
    if config.mode == "off":
        return []
    if config.chinese_script != "keep":
        require("opencc", f"corpus.clean.chinese_script={config.chinese_script}")
    if config.filters and not set(config.languages) <= BY_SCRIPT:
        require("py3langid", "telling languages apart (corpus.clean.languages)")
    ways = {config.privacy.way(kind) for kind in config.privacy.kinds}
    if config.personal_data and "hash" in ways and len(key) < MIN_KEY:
        raise ConfigError(
            f"hashing personal data (corpus.clean.privacy.how) needs a secret key of at least {MIN_KEY} bytes; "
            f"set the environment variable {KEY}"
        )
    rules: list[tuple[bool, str, Callable[[str], str]]] = [
        (config.html, "html_remains", without_html),
        (config.unseen, "unseen_characters", without_unseen),
        (config.unicode != "keep", "unicode_form", lambda text: in_form(text, config.unicode)),
        (config.chinese_script != "keep", "chinese_script", lambda text: in_script(text, config.chinese_script)),
        (config.personal_data, "personal_data", lambda text: redact(text, config.privacy, key=key).text),
    ]
    return [(reason, mend) for wanted, reason, mend in rules if wanted]


def _is_page_line(line: str) -> bool:
    longest, words = (_PAGE_LONGEST, _PAGE_WORDS) if line.isascii() else (_PAGE_LONGEST_WIDE, _PAGE_WORDS_WIDE)
    if len(line) > longest:
        return False
    if _PAGE_START.match(line):
        return True
    small = line.lower()
    return any(map(small.__contains__, words)) and _PAGE_INSIDE.search(line) is not None


def _difference(first: str, second: str) -> int:
    """The first place at which two texts differ."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _words(line: str) -> int:
    """Words of a line's first hundred characters, by spaces; where there are none, half of the characters."""
    line = line[:100]
    words = len(line.split())
    return words if line.isascii() else max(words, len(_NARROW.sub("", line)) // 2)


def _joined(lines: list[str]) -> str:
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()
