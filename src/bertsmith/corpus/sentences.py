"""Cut English, Chinese and mixed text into sentences: one regular expression proposes, cheap checks decide.

Linear in the length of the text, whatever the text: a check looks back and ahead a fixed number of characters. Nothing
but whitespace is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bertsmith.corpus import sentence_words as words
from bertsmith.corpus.document import Document

MAX_SENTENCE = 2000
"""Characters; a longer sentence is cut at whitespace, else after a comma, else anywhere."""

CJK = (
    "\u2e80-\u2fdf\u3003-\u3007\u3021-\u30ff\u3105-\u31bf\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Ideographs, kana, bopomofo and hangul, as the inside of a regular expression's character class."""

_OPENERS = "\"'“‘«(\\[{「『（《〈【〔"
_WIDE_STOPS = "。！？｡"
_EMOJI = "\u2600-\u27bf\ufe0f\U0001f300-\U0001faff"
# What may stand between a stop and the next sentence: closing quotes and brackets, footnotes, emoji. A second straight
# quote would open the next quotation.
_TAIL = (
    rf"(?:['”’»)\]}}」』）》〉】〕]|(?<!\")\"|\"(?=\s))*+"
    rf"(?:\[\d{{1,3}}(?:[,–-]\d{{1,3}}){{0,3}}+\])*+[¹²³⁰-⁹{_EMOJI}]*+"
)
# The number of a footnote, raised in print: "It is true.1 But".
_RAISED = r"(?<=[a-z]{3}[a-z)]\.)\d{1,2}(?:[,–-]\d{1,2}){0,3}+(?=\s)"
_PARTICLES = "了啦哦吧呢哟喔呀嘛"

# A run of stops, in one of four places: a wide stop anywhere; a Western stop before whitespace or wide text; a Western
# stop between a small and a capital letter; a tilde after a particle, with which chats end sentences. Every quantifier
# is possessive and a run is entered only at its start, so no character is scanned more than a fixed number of times.
_CANDIDATE = re.compile(
    rf"[.!?…{_WIDE_STOPS}～~](?:(?<=[{_WIDE_STOPS}])[{_WIDE_STOPS}.!?…]*+{_TAIL}"
    rf"|(?<=[.!?…])(?<![.!?…].)(?:[.!?…]*+{_TAIL}(?:(?=[\s{CJK}「『（《〈【“‘])|{_RAISED})"
    r"|(?<=[a-z][a-z].)(?=[A-Z][a-z]*+[ ,'’]))"
    rf"|(?<=[{_PARTICLES}][～~])[～~]*+{_TAIL}(?=[\s{CJK}]))"
)
_NEXT = re.compile(rf"\s*+[{_OPENERS}]{{0,3}}+(?:([^\W\d_]+(?:['’]t\b)?)(\.?)|(\S))?")
_PREVIOUS = re.compile(rf"[^\s\"“‘«(\[{{「『（《〈【〔—–/{CJK}]*$")
_WORD_BEFORE = re.compile(r"([^\W\d_]+) $")
_PARAGRAPH = re.compile(r"\n[^\S\n]*+\n\s*+")
# A single newline that ends a line: after wide text, or before a bullet or a list number.
_LINE_END = re.compile(
    rf"(?<=[{CJK}{_WIDE_STOPS}…”’」』）》】〕］：；])[^\S\n]*+\n\s*+"
    r"|\n\s*+(?=(?:[-*•·‣]|\(?\d{1,3}[.)]|\(?[A-Za-z]\))[^\S\n])"
)
_WIDE_WRAP = re.compile(r"(?<=[，、])[^\S\n]*+\n\s*+")
# Markers that may also begin a wrapped line; they are believed in a paragraph that begins with one of the same kind.
_MARKERS = tuple(rf"{kind}[^\S\n]" for kind in (r"\(?(?:[A-Za-z]|[ivxIVX]{1,5})[.)]", r"\d{1,3}(?:\.\d{1,3})+", "[–—]"))
_LISTS = tuple((re.compile(rf"\s*+{marker}"), re.compile(rf"\n\s*+(?={marker})")) for marker in _MARKERS)
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]{1,2}")
_ITEM = re.compile(r"\(?(?:\d{1,3}|[ivxlIVXL]{1,5}|[A-Za-z])")
_NUMBER = re.compile(r"[IVXLC]+|[ivxlc]+")
_PHRASE = re.compile(r"\w*$")
_THEN = re.compile(r" ([a-z]+)\b")
_NAMED = re.compile(r"(?:,|&|\b[A-Z][\w.'’-]*) $")
_AFTER_SMALL = re.compile(r"([a-z]+),? (?:the )?$")
_OWNED = re.compile(r"\b(?:an?|his|her|their|my|your) $")
_TIMED = re.compile(r"\b(?i:the|an?|his|her|its|their|our|my|this|every|each) [\d:.]+ $")
_OPENS = {"”": "“", "’": "‘", "」": "「", "』": "『", '"': '"', "'": "'", "）": "（", ")": "(", "》": "《", "〉": "〈"}
_REACH = 300
"""Characters; an opening quote further back is not looked for."""
_WORD = 24
"""Characters; how far back a word before a stop is looked for."""
_LEAD = 40
"""Characters; what stands before an abbreviation, as far as it is looked at."""
_TITLE = 60
"""Characters; the longest title in 《》 in which a stop is looked for."""


def _previous(text: str, begin: int, stop: int) -> str:
    """The word before `stop`, with its inner dots and apostrophes; looks back `_WORD` characters."""
    match = _PREVIOUS.search(text[max(begin, stop - _WORD) : stop])
    return match.group().lstrip("'") if match else ""


def _is_item(text: str, begin: int, before: int, previous: str) -> bool:
    """Whether `previous`, which begins at `before`, is the number of a list item that begins the sentence."""
    return before - begin < 8 and bool(_ITEM.fullmatch(previous)) and not text[begin:before].strip(" (")


def _ends_before_small(text: str, stop: int, end: int, previous: str, word: str) -> bool:
    """Whether a sentence ends before a word in small letters: careless writers do not capitalise.

    The stop is believed after an ordinary word, unless the next one shows that the sentence goes on.
    """
    mark = text[stop]
    if text[stop:end].strip("!?") not in ("", ".") or mark == "…" or not (previous.isalpha() and previous.islower()):
        return False
    if word in words.CONTINUING or (len(previous) < 5 and word in words.CONTINUING_AFTER_SHORT[mark == "."]):
        return False
    least = 3 if word.capitalize() in words.STARTERS else 4
    return len(previous) >= least and previous not in words.ABBREVIATIONS


def _ends_letter(text: str, begin: int, before: int, letter: str, word: str | None, dot: str) -> bool:
    """Whether a single letter and its stop end a sentence, as in "Plan B." but not in "J. Smith"."""
    if word in words.STARTERS and not dot:
        return letter != "I" or word not in ("A", "I")
    label = _WORD_BEFORE.search(text[max(begin, before - 16) : before])
    return label is not None and not dot and letter.isupper() and label[1].lower() in words.LABELLED


def _ends_abbreviated(text: str, begin: int, before: int, previous: str, following: re.Match[str]) -> bool:
    """Whether a sentence ends after the abbreviation `previous`, although the next word may be part of a name.

    A small word after that one shows a clause: "Acme Corp. Shares rose", but not "Acme Corp. Chairman Lee". How much it
    must show depends on what the abbreviation commonly stands before.
    """
    word, lowered = following[1], previous.lower()
    if not word[0].isupper() or (word.isupper() and len(word) > 1) or word in words.AFTER_TIME:
        return False
    if lowered == "etc":
        return True
    then = _THEN.match(text, following.end(1))
    lead = text[max(begin, before - _LEAD) : before]
    if then is None:
        return False
    if before - begin < _LEAD and "," not in lead:
        opening = _NEXT.match(text, begin)
        if opening and opening[1] in words.LEADING:
            return False
    if lowered in words.FIRMS:
        return bool(_NAMED.search(lead)) and word not in words.OFFICES and then[1] not in words.LINKING
    if lowered in words.TIMES:
        return lead[-2:-1].isdigit() and then[1] != "time" and not _TIMED.search(lead)
    if lowered in words.ERAS:
        return lead[-2:-1].isdigit() or lead.endswith("century ")
    if lowered == "al":
        return then[1] not in words.LINKING
    if then[1] not in words.CLAUSAL:
        return False
    if lowered in words.MEASURES:
        return lead[-2:-1].isdigit()
    if lowered in words.AFTER_NAME:
        return bool(_NAMED.search(lead)) and word not in words.NAMED_AFTER
    if lowered in words.DEGREES:
        return bool(_OWNED.search(lead))
    if lowered in words.PLACES or previous in words.PERHAPS_IF_CAPITAL or previous.count(".") > 2:
        small = _AFTER_SMALL.search(lead)
        placed = lead.endswith(", ") or (small is not None and small[1] in words.PLACING)
        return placed and word not in words.INSTITUTIONS
    return False


def _ends_plainly(text: str, begin: int, stop: int) -> bool:
    """Whether a full stop stands as most do: after an ordinary small word, before a space and a capital letter.

    All that `_ends` asks besides would say yes; it takes ten times as long.
    """
    before = text.rfind(" ", begin + 8, stop) + 1
    previous = text[before:stop]
    return (
        0 < before < stop - 1
        and stop - before <= _WORD
        and text[stop + 1 : stop + 2] == " "
        and "A" <= text[stop + 2 : stop + 3] <= "Z"
        and previous.isalpha()
        and previous.islower()
        and previous.isascii()
        and previous not in words.ABBREVIATIONS
    )


def _ends(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether the Western stop at `stop` (with its closers: up to `end`) ends the sentence that began at `begin`."""
    if end == stop + 1 and text[stop] == "." and _ends_plainly(text, begin, stop):
        return True
    following = _NEXT.match(text, end)
    word, dot, sign = following.groups() if following else (None, "", None)
    if word is None and sign is None:
        return True
    if following and sign is not None:
        place = following.start(3)
        spaced = sign in ".!?…" and text[place - 1].isspace() and not text.startswith("..", place)
        if spaced or sign in ",;:，；：、)）%":
            return False
    previous = _previous(text, begin, stop)
    if word is not None and word[0].islower() and word[0] < "\u2e80" and not word[1:2].isupper():
        return _ends_before_small(text, stop, end, previous, word)
    starter = (word in words.STARTERS or (word is not None and word[-2:] in ("'t", "’t"))) and not dot
    if text[stop] == "…" or (end > stop + 1 and text[stop + 1] in ".!?…"):
        # "I... I", "A ... Z" go on.
        pause = text[stop] == "…" or text.startswith("..", stop)
        return not pause or (previous != word and (starter or stop == begin or text[stop - 1] != " "))
    if text[stop] != ".":
        said = words.SAYING.match(text, end) if end > stop + 1 and text[end - 1] in "\"”'’»" else None
        quoted = said is not None and said[1] not in words.STARTERS and text[begin : begin + 3].strip()[:1] in "\"“'‘«"
        return not quoted
    if end > stop + 1:
        if text[end - 1] in "0123456789":
            return starter and previous.lower() not in words.ABBREVIATIONS
        if text[end - 1] in '"”' and text[end : end + 2].lstrip()[:1] in ('"', "“"):
            return True
    before = stop - len(previous)
    if _is_item(text, begin, before, previous):
        return False
    if previous[-1:].isalpha() and (len(previous) == 1 or (previous[-2] == "-" and not previous[-3:-2].isupper())):
        return _ends_letter(text, begin, before, previous, word, dot)
    lowered = previous.lower()
    if lowered in words.BEFORE_WORD:
        return False
    if lowered in words.BEFORE_NUMBER:
        return not (sign or "").isdigit() and not (word and _NUMBER.fullmatch(word) and word != "I")
    if lowered in words.PERHAPS or previous in words.PERHAPS_IF_CAPITAL or _ACRONYM.fullmatch(previous):
        if starter or dot or following is None or word is None:
            return starter
        return _ends_abbreviated(text, begin, before, previous, following)
    return True


def _ends_joined(text: str, begin: int, stop: int) -> bool:
    """Whether a sentence ends at a stop with a capital right after it: only before a word that is no name."""
    following = _NEXT.match(text, stop + 1)
    previous = _previous(text, begin, stop)
    return bool(following and following[1] in words.STARTERS and previous.isalpha() and previous.islower())


def _in_title(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether the stop stands inside 《》."""
    opened = text.rfind("《", max(begin, stop - _TITLE), stop)
    return opened >= 0 and text.rfind("》", opened, stop) < 0 and text.find("》", end - 1, end + _TITLE) >= 0


def _goes_on(text: str, end: int) -> bool:
    """Whether what was quoted up to `end` is taken up again after a few words, as in “不。”他摇摇头，“不去。”."""
    between = words.WIDE_BETWEEN.match(text, end)
    if between is None:
        return False
    closed = text.find(words.WIDE_CLOSERS[text[between.end() - 1]], between.end(), between.end() + _REACH)
    return closed < 0 or text[closed - 1] in "。！？…，!?—～"


def _ends_quotation(text: str, begin: int, stop: int, opened: int, end: int) -> bool:
    """Whether a quotation, opened at `opened` (-1: not in this sentence) and closed before `end`, ends the sentence."""
    following = text[end : end + 24].lstrip()
    if following[:1] in ("“", "「", "『", "‘", '"'):
        return True
    lead = text[max(begin, opened - 24) : opened].rstrip() if opened >= 0 else ""
    if lead[-1:] in ("：", ":"):
        return following[:1] not in words.WIDE_PARTICLES
    plain = text[stop] in "。｡."
    if following[:1] in words.WIDE_PARTICLES if plain else words.WIDE_CONTINUES.match(following):
        return False
    if not lead:
        return not (words.WIDE_SAYING.match(following) or _goes_on(text, end))
    if not lead[-1].isalnum() or lead[-1] in words.WIDE_INTRODUCERS:
        return True
    return plain and following[:1] not in words.WIDE_PREDICATES


def _ends_wide(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether a stop amid wide text ends the sentence: not in a title, a bracket or a quotation that is part of it."""
    if end == len(text):
        return True
    if text[end] in "，、；：,;:》。！？｡" or _in_title(text, begin, stop, end):
        return False
    last = text[end - 1]
    if last not in _OPENS:
        return True
    opened = text.rfind(_OPENS[last], max(begin, stop - _REACH), stop)
    if last in "）)":
        return text[stop] == "。" or text[begin : begin + 2].lstrip()[:1] == _OPENS[last]
    return _ends_quotation(text, begin, stop, opened, end)


def _pauses(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether an ellipsis before wide text is a pause in the sentence: a stutter, a list cut short, a hesitation."""
    found = _PHRASE.search(text, max(begin, stop - 12), stop)
    phrase = found.group() if found else ""
    if len(phrase) < 2 or phrase in words.WIDE_HESITATION or text[end] in "（(":
        return True
    listed = len(phrase) < 5 and text[max(begin, stop - len(phrase) - 1)] == "、"
    return listed or text.startswith(phrase, end) or text[end] == phrase[-1] or text[end] in words.WIDE_PARTICLES


def _ends_unspaced(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether a Western stop directly before wide text ends a sentence; after a name or a number often not."""
    if text[end] in _WIDE_STOPS or _in_title(text, begin, stop, end):
        return False
    if text[end - 1] in _OPENS:
        return _ends_wide(text, begin, stop, end)
    if text[stop] == "…" or text.startswith("..", stop):
        return not _pauses(text, begin, stop, end)
    if stop == begin or text[stop - 1] > "\u2e80" or text[stop - 1] in ")\"'”’":
        return True
    starter = text[end] in words.WIDE_STARTERS
    if text[stop] != ".":
        # A name inside a Chinese sentence may have such a mark: 他在Yahoo!工作.
        return starter or text[begin : begin + 3].lstrip()[:1].isascii()
    previous = _previous(text, begin, stop)
    if len(previous) > 1 and previous.isalpha():
        return previous.lower() not in words.ABBREVIATIONS
    before = stop - len(previous)
    known = previous.isdigit() or len(previous) == 1 or _ACRONYM.fullmatch(previous) is not None
    return starter and known and before > begin and text[before - 1].isalnum()


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """The (begin, end) of each sentence of one paragraph."""
    begin = counted = straight = 0
    for match in _CANDIDATE.finditer(text):
        stop, end = match.span()
        after = text[end : end + 1]
        if text[end - 1] == '"' and after and not after.isspace():
            # Without a space only their number tells whether a straight quote closes or opens.
            straight += text.count('"', counted, stop)
            counted = stop
            end -= straight % 2 == 0
            after = text[end]
        if text[stop] in _WIDE_STOPS:
            ends = _ends_wide(text, begin, stop, end)
        elif not after or after.isspace():
            ends = _ends(text, begin, stop, end)
        elif after.isascii() and after.isalpha():
            ends = _ends_joined(text, begin, stop)
        else:
            ends = _ends_unspaced(text, begin, stop, end)
        if ends:
            yield begin, end
            begin = end
    yield begin, len(text)


def _paragraphs(text: str) -> Iterator[str]:
    """The parts of a text that no sentence crosses, each on one line."""
    if "\n" not in text:
        yield text
        return
    for paragraph in _PARAGRAPH.split(text):
        lines = [paragraph]
        if "\n" in paragraph:
            if not paragraph.isascii():
                lines = [_WIDE_WRAP.sub("", paragraph)]
            ends = [newline for begins, newline in _LISTS if begins.match(paragraph)]
            for newline in (*ends, _LINE_END):
                lines = [line for part in lines for line in newline.split(part)]
        for line in lines:
            yield line.replace("\n", " ")


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
    for paragraph in _paragraphs(text):
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
