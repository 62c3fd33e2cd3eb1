"""Scores of answers to questions: exact match and F1 as the scripts of SQuAD 1.1, SQuAD 2.0 and CMRC 2018 count them.

Each scorer takes the right answers of one question and the answer given, and returns exact match (0 or 1) and F1 (0 to
1), each the best over the right answers. An empty text means that there is no answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

Scorer: TypeAlias = Callable[[Sequence[str], str], tuple[float, float]]

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

# What CMRC's script leaves out before it compares. It names the ellipsis as a pair, which no single character equals.
_CMRC_IGNORED = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_HAN = re.compile("([\u4e00-\u9fa5])")
_SENTENCE_END = re.compile(r"(?<=[?!])\s+|(?<=\w\w\.)(?<!\.\w\w\.)\s+")
# Treebank words, as far as the characters above do not hide them.
_TREEBANK = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([«‘„])", r" \1 "),
        (r'^"', " `` "),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` "),
        (r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
        (r"([^.])\.([\])}>\"'» ]*)\s*$", r"\1 . \2 "),
        (r",(\D)", r" , \1"),
        (r",$", " , "),
        (r"(\.{2,})", r" \1 "),
        (r"([;@#$%&?!\u2012-\u2015])", r" \1 "),
        (r"([^'])' ", r"\1 ' "),
        (r"([\][(){}<>])", r" \1 "),
        (r"^|$", " "),
        (r"»", " » "),
        (r"''|\"", " '' "),
        (r"\s+", " "),
        (r"([^' ])('[smd]|') ", r"\1 \2 "),
        (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
        (r"\b(can)(not)\b|\b(d)('ye)\b|\b(gim)(me)\b|\b(gon)(na)\b|\b(got)(ta)\b|\b(lem)(me)\b", None),
        (r"\b(more)('n)\b|\b(wan)(na)(?=\s)", None),
        (r" ('t)(is|was)\b", r" \1 \2 "),
    )
]


def squad1(right: Sequence[str], given: str) -> tuple[float, float]:
    """Exact match and F1 of words in common, as SQuAD 1.1 counts: case, ASCII punctuation and articles do not matter.

    Args:
        right: the right answers, at least one.
        given: the answer to judge.

    Source: Rajpurkar et al. 2016, section 6.1 (arXiv:1606.05250).
    """
    mine = normalise(given)
    theirs = [normalise(text) for text in right]
    return float(mine in theirs), max(_overlap(text.split(), mine.split()) for text in theirs)


def squad2(right: Sequence[str], given: str) -> tuple[float, float]:
    """As SQuAD 2.0 counts: like 1.1, and where either text is empty both scores are 1 if both are, else 0.

    Args:
        right: the right answers; none, or none that holds a word, means that there is no answer.
        given: the answer to judge; empty: none.

    Source: Rajpurkar et al. 2018 (arXiv:1806.03822).
    """
    mine = normalise(given)
    theirs = [text for text in map(normalise, right) if text] or [""]
    if not mine or theirs == [""]:
        return float(mine in theirs), float(mine in theirs)
    return float(mine in theirs), max(_overlap(text.split(), mine.split()) for text in theirs)


def cmrc(right: Sequence[str], given: str) -> tuple[float, float]:
    """As CMRC 2018 counts: F1 of the longest run in common, of Han characters and of words of other scripts.

    Args:
        right: the right answers; none: there is no answer, and then both scores are 1 if `given` is empty, else 0.
        given: the answer to judge.

    Source: Cui et al. 2019 (arXiv:1810.07366). Differs: the script asks nltk's trained model where sentences of other
    scripts end, here a rule says so; it decides whether a full stop after an abbreviation is a word.
    """
    if not right:
        return float(not given), float(not given)
    mine, pieces = _cmrc_plain(given), cmrc_pieces(given)
    best = 0.0
    for text in right:
        theirs = cmrc_pieces(text)
        if run := _longest_run(theirs, pieces):
            best = max(best, 2 * run / (len(theirs) + len(pieces)))
    return float(any(_cmrc_plain(text) == mine for text in right)), best


SCORERS: dict[str, Scorer] = {"squad1": squad1, "squad2": squad2, "cmrc": cmrc}


def best_threshold(scores: Sequence[float], odds: Sequence[float], answerable: Sequence[bool]) -> tuple[float, float]:
    """The threshold above which an answer is best withheld.

    Args:
        scores: of each answer if it is given, 0 to 1.
        odds: how much more the model believes in no answer than in its best one; a larger value is withheld first.
        answerable: whether each question has an answer; if not, withholding scores 1, otherwise 0.

    Returns:
        The mean score at the best threshold, and that threshold: answers whose odds are larger are withheld.

    Source: the search of SQuAD 2.0's script. Differs: questions with equal odds stay together, which no threshold can
    part, and the threshold lies midway between two questions' odds.
    """
    order = sorted(range(len(odds)), key=odds.__getitem__)
    if not order:
        return 0.0, 0.0
    score = float(len(answerable) - sum(answerable))  # all withheld
    best, threshold = score, odds[order[0]] - 1.0
    for number, index in enumerate(order):
        score += scores[index] - (not answerable[index])
        here = odds[index]
        following = odds[order[number + 1]] if number + 1 < len(order) else here + 2.0
        if score > best and following > here:
            best, threshold = score, (here + following) / 2
    return best / len(order), threshold


def normalise(text: str) -> str:
    """A text as SQuAD compares it: small letters, without ASCII punctuation, without articles, spaces made one."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def cmrc_pieces(text: str) -> list[str]:
    """The Han characters and the words of other scripts that CMRC's F1 compares."""
    pieces: list[str] = []
    for part in _HAN.split(text.lower().strip().translate(_CMRC_IGNORED)):
        if _HAN.fullmatch(part):
            pieces.append(part)
        else:
            pieces += [word for sentence in _SENTENCE_END.split(part.strip()) for word in _words(sentence)]
    return pieces


def _cmrc_plain(text: str) -> str:
    return text.lower().strip().translate(_CMRC_IGNORED)


def _words(text: str) -> list[str]:
    for pattern, replacement in _TREEBANK:
        if replacement is None:
            text = pattern.sub(lambda found: " {} {} ".format(*filter(None, found.groups())), text)
        else:
            text = pattern.sub(replacement, text)
    return text.split()


def _overlap(right: Sequence[str], given: Sequence[str]) -> float:
    """F1 of two bags of words; 0 without a word in common."""
    common = (Counter(right) & Counter(given)).total()
    return 2 * common / (len(right) + len(given)) if common else 0.0


def _longest_run(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest stretch that two sequences have in common."""
    longest, before = 0, [0] * (len(other) + 1)
    for piece in one:
        now = [0] * (len(other) + 1)
        for place, their in enumerate(other):
            if piece == their:
                now[place + 1] = before[place] + 1
        longest, before = max(longest, max(now)), now
    return longest
