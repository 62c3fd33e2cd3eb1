"""Scores of written text against references: BLEU as sacreBLEU counts it, ROUGE as rouge-score does.

A text is read as sacreBLEU's `13a` or `zh` tokenizer reads it for BLEU, and for ROUGE as small words of a-z and 0-9; a
Chinese character is a word of its own, which rouge-score leaves out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from bertsmith.metrics.classification import check_pairs

Tokenizer: TypeAlias = Literal["13a", "zh"]
Words: TypeAlias = Sequence[str]
ORDER = 4
HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters, as the inside of a regular expression's class."""

_WORD = re.compile(rf"[a-z0-9]+|[{HAN}]")
# Where the two tokenizers put spaces, in this order: marks but - . , ' then points and commas that stand in no number.
_MARKS = re.compile(r"([{-~\[-` -&(-+:-@/])")
_POINTS = (
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
# The characters that `zh` sets apart. Its table writes the ranges of extension B with four digits, so that in truth
# U+2001 to U+2A6D and U+2F81 to U+2FA1 are; scores are compared with published ones, so it is the same here.
_WIDE = re.compile(
    "([\u3400-\u4db5\u4e00-\u9fa5\u9fa6-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\u2001-\u2a6d\u2f81-\u2fa1"
    "\uff00-\uffef\u2e80-\u2eff\u3000-\u303f\u31c0-\u31ef\u2f00-\u2fdf\u2ff0-\u2fff\u3100-\u312f\u31a0-\u31bf"
    "\ufe10-\ufe1f\ufe30-\ufe4f\u2600-\u26ff\u2700-\u27bf\u3200-\u32ff\u3300-\u33ff])"
)


def bleu_words(text: str, tokenizer: Tokenizer = "13a") -> list[str]:
    """The words of a text as sacreBLEU counts them.

    Args:
        text: any string.
        tokenizer: `13a` (mteval-v13a, as WMT uses it), or `zh`, in which each Chinese character is a word.
    """
    if tokenizer == "zh":
        text = _WIDE.sub(r" \1 ", text.strip())
    else:
        text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
        for written, meant in _ENTITIES:
            text = text.replace(written, meant)
        text = f" {text} "
    text = _MARKS.sub(r" \1 ", text)
    for pattern, replacement in _POINTS:
        text = pattern.sub(replacement, text)
    return text.split()


def bleu(references: Sequence[Sequence[str]], texts: Sequence[str], tokenizer: Tokenizer = "13a") -> float:
    """Corpus BLEU, 0 to 1: sacreBLEU's score by 100.

    Args:
        references: one or more for each text.
        texts: what was written.
        tokenizer: see `bleu_words`.

    Raises:
        DataError: numbers differ, or there is nothing.

    Source: Papineni et al. 2002; Post 2018 (arXiv:1804.08771): four orders, exponential smoothing, closest length.
    """
    check_pairs(references, texts)
    right, total = [0] * ORDER, [0] * ORDER
    length = closest = 0
    for golds, text in zip(references, texts, strict=True):
        words = bleu_words(text, tokenizer)
        others = [bleu_words(gold, tokenizer) for gold in golds]
        length += len(words)
        closest += min(map(len, others), key=lambda size: (abs(size - len(words)), size))
        for order in range(1, ORDER + 1):
            own = ngrams(words, order)
            allowed: Counter[tuple[str, ...]] = Counter()
            for other in others:
                allowed |= ngrams(other, order)
            right[order - 1] += (own & allowed).total()
            total[order - 1] += own.total()
    if not any(right) or not all(total):
        return 0.0
    logs, smooth = 0.0, 1.0
    for hits, count in zip(right, total, strict=True):
        smooth = smooth if hits else smooth * 2
        logs += math.log(hits / count if hits else 1 / (smooth * count))
    brevity = min(0.0, 1 - closest / length)
    return math.exp(brevity + logs / ORDER)


def rouge_words(text: str) -> list[str]:
    """The words of a text as ROUGE counts them, without stemming; a Chinese character is one."""
    return _WORD.findall(text.lower())


def rouge_n(reference: Words, words: Words, order: int) -> float:
    """F1 of n-grams, 0 to 1.

    Args:
        reference: its words.
        words: what was written.
        order: n.

    Source: Lin 2004, section 2.
    """
    gold, own = ngrams(reference, order), ngrams(words, order)
    return _f1((gold & own).total(), gold.total(), own.total())


def rouge_l(reference: Words, words: Words) -> float:
    """F1 of the longest common subsequence, 0 to 1.

    Args:
        reference: its words.
        words: what was written.

    Source: Lin 2004, section 3.1; Hyyrö 2004 for the length of the subsequence by whole numbers as rows of bits.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(reference):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(reference)) - 1
    row = everything
    for word in words:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & everything
    return _f1(len(reference) - row.bit_count(), len(reference), len(words))


def rouge(references: Sequence[Sequence[str]], texts: Sequence[str]) -> dict[str, float]:
    """Means of `rouge1`, `rouge2` and `rougeL`, F1 from 0 to 1; of several references the best one counts, each time.

    Args:
        references: one or more for each text.
        texts: what was written.

    Raises:
        DataError: numbers differ, or there is nothing.
    """
    check_pairs(references, texts)
    sums = [0.0, 0.0, 0.0]
    for golds, text in zip(references, texts, strict=True):
        own = rouge_words(text)
        each = [(rouge_n(gold, own, 1), rouge_n(gold, own, 2), rouge_l(gold, own)) for gold in map(rouge_words, golds)]
        sums = [total + max(values) for total, values in zip(sums, zip(*each, strict=True), strict=True)]
    return dict(zip(("rouge1", "rouge2", "rougeL"), (total / len(texts) for total in sums), strict=True))


def is_chinese(texts: Iterable[str]) -> bool:
    """Whether more than a third of what is not white space is Chinese characters."""
    text = "".join("".join(texts).split())
    return 3 * len(re.findall(f"[{HAN}]", text)) > len(text)


def ngrams(words: Words, order: int) -> Counter[tuple[str, ...]]:
    """How often each run of `order` words stands there."""
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def _f1(hits: int, gold: int, own: int) -> float:
    return 2 * hits / (gold + own) if hits else 0.0
