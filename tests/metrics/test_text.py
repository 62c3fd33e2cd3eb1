"""Scores of written text, beside sacrebleu and rouge-score."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from bertsmith.core.errors import DataError
from bertsmith.metrics.text import HAN, Tokenizer, bleu, bleu_words, is_chinese, rouge, rouge_l, rouge_n, rouge_words

TOKENIZERS: list[Tokenizer] = ["13a", "zh"]
PIECES = [
    *["the", "a", "cat", "dog", "sat", "mat", "of", "on", "12", "3.5", "1,000", "e.g.", "don't", "U.S.", "-"],
    *"我们在北京上海，。！「」〇",
    *["&quot;", "&amp;lt;", "<skipped>", "a-\nb", "\n", "\t", "\u2009", "\u3000", "ﬃ", "é", "für", "İ", "𠀀", "\u2f9f"],
    *["x" * 30, "(", ")", "[", "]", "~", "`", "'", '"', "/", "$5.-", "9-5", ".", ",", "...", "…", "☃", "", " "],
]


def drawn(seed: int, most: int = 14) -> str:
    draw = random.Random(seed)
    return draw.choice(["", " "]).join(draw.choice(PIECES) for _ in range(draw.randrange(most)))


def near(text: str, seed: int) -> str:
    """The text with a few words left out, doubled or put elsewhere, so that something matches."""
    draw = random.Random(seed)
    words = re.split(r"(?<= )", text)
    for _ in range(draw.randrange(4)):
        if words:
            place = draw.randrange(len(words))
            words[place : place + 1] = draw.choice([[], [words[place]] * 2, [draw.choice(PIECES) + " "]])
    return "".join(words)


CORPORA = 1000


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_bleu_is_sacrebleus(tokenizer: Tokenizer) -> None:
    theirs = BLEU(tokenize=tokenizer)
    above = 0
    for number in range(CORPORA):
        draw = random.Random(number)
        size, several = draw.randint(1, 3), draw.randint(1, 2)
        golds = [[drawn(number * 1000 + row * 10 + n, 20) for n in range(several)] for row in range(size)]
        texts = [near(draw.choice(row), number + n) if draw.random() < 0.9 else "" for n, row in enumerate(golds)]
        wanted = theirs.corpus_score(texts, [list(column) for column in zip(*golds, strict=True)]).score
        above += wanted > 1
        assert 100 * bleu(golds, texts, tokenizer) == pytest.approx(wanted, abs=1e-9), (golds, texts)
    assert above > CORPORA / 3  # so that not only zeros were compared


THEIRS = {tokenizer: BLEU(tokenize=tokenizer).tokenizer for tokenizer in TOKENIZERS}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@settings(deadline=None)
@given(text=st.text(max_size=40) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_words_are_sacrebleus(tokenizer: Tokenizer, text: str) -> None:
    assert " ".join(bleu_words(text, tokenizer)) == THEIRS[tokenizer](text.rstrip())


def test_rouge_is_rouge_scores() -> None:
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for number in range(CORPORA):
        golds = [re.sub(f"[{HAN}]", " ", drawn(number * 10 + n, 25)) for n in range(1 + number % 3)]
        text = re.sub(f"[{HAN}]", "", near(golds[0], number))
        wanted = {name: score.fmeasure for name, score in theirs.score_multi(golds, text).items()}
        assert rouge([golds], [text]) == pytest.approx(wanted, abs=1e-12), (golds, text)


def test_chinese_is_counted_by_character() -> None:
    class Characters:
        """What rouge-score is given to read Chinese with."""

        def tokenize(self, text: str) -> list[str]:
            return [character for character in text if re.match(f"[{HAN}]", character)]

    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Characters())
    for number in range(CORPORA):
        draw = random.Random(number)
        gold = "".join(draw.choice("我们在北京上海工作，。") for _ in range(draw.randrange(30)))
        text = near(gold, number)[: draw.randrange(30)]
        text = "".join(character for character in text if character in gold)
        wanted = {name: score.fmeasure for name, score in theirs.score(gold, text).items()}
        assert rouge([[gold]], [text]) == pytest.approx(wanted, abs=1e-12), (gold, text)


def test_figures_by_hand() -> None:
    gold, text = rouge_words("The cat sat on the mat."), rouge_words("the cat on a mat")
    assert rouge_n(gold, text, 1) == pytest.approx(2 * 4 / (6 + 5))
    assert rouge_n(gold, text, 2) == pytest.approx(2 * 1 / (5 + 4))
    assert rouge_l(gold, text) == pytest.approx(2 * 4 / 11)
    assert bleu([["a b c d e"]], ["a b c d e"]) == pytest.approx(1)
    assert rouge([["我在北京"], ["x"]], ["我在上海", "x"])["rouge1"] == pytest.approx((0.5 + 1) / 2)


def test_nothing_cannot_be_scored() -> None:
    for score in (bleu, rouge):
        with pytest.raises(DataError):
            score([], [])
        with pytest.raises(DataError):
            score([["a"]], ["a", "b"])


def test_chinese_is_told_from_english() -> None:
    assert is_chinese(["我在 Beijing 工作"])
    assert not is_chinese(["the word 我 in English text"])
    assert not is_chinese([])
