"""Exact match and F1 of answers, against a second reading of what the scripts of SQuAD and CMRC do."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer

from bertsmith.metrics.answers import best_threshold, cmrc, cmrc_pieces, normalise, squad1, squad2

CASES = 1000
ENGLISH = "the The a an A AN theatre banana cat cat's CAT 12.5 $5 U.S. x_y a-an ß İ — “q” . ... !? 'tis"
CHINESE = "我 在 北京 上海市 《三国》 2018年 ，。 １２ \u3000 \t e\u0301"
WORDS = [*ENGLISH.split(), *CHINESE.split(" "), ""]
MARKS = "我 你 他 。 ， 《 》 … · （ ） ～ - : _ * ^ / \\ ~ ` + = a B the can't cannot it's gimme gonna » « „ ‘ é 佛 䶮"
OTHERS = "o'clock 'tis 'twas 12.5 3,000 U.S. mr. $5 50% (x) [y] {z} <w> \"q\" 'q' ... ; @ & # ? ! , ."
MIXED = [*MARKS.split(), *OTHERS.split(), " ", "wanna go", "x. y", "stop! go"]


def drawn(seed: int, words: Sequence[str], joints: Sequence[str]) -> list[tuple[list[str], str]]:
    """Right answers and a given one: unrelated, equal, cut, lengthened."""
    rng = random.Random(seed)

    def text() -> str:
        return rng.choice(joints).join(rng.choice(words) for _ in range(rng.randint(0, 5)))

    cases = []
    for _ in range(CASES):
        right = [text() for _ in range(rng.randint(1, 4))]
        near = [right[0], right[-1][1:], f"the {right[0]}", right[0].upper() + "。", right[0] + text()]
        answer = rng.choice([text(), *near, ""])
        cases.append((right, answer))
    return cases


def plain(text: str) -> list[str]:
    """SQuAD's words, character by character instead of by patterns."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    spaced = "".join(character if character.isalnum() or character == "_" else f"\0{character}\0" for character in kept)
    without = [" " if part in ("a", "an", "the") else part for part in spaced.split("\0")]
    return "".join(without).split()


def reading(right: Sequence[str], given: str, *, version: int) -> tuple[float, float]:
    """What the scripts of SQuAD say, told by multisets taken apart one word at a time."""
    if version == 2:
        right = [text for text in right if plain(text)] or [""]
    exact, best = 0.0, 0.0
    for text in right:
        gold, guess = plain(text), plain(given)
        exact = max(exact, float(gold == guess))
        left, common = list(gold), 0
        for word in guess:
            if word in left:
                left.remove(word)
                common += 1
        if version == 2 and not (gold and guess):
            best = max(best, float(gold == guess))
        elif common:
            precision, recall = common / len(guess), common / len(gold)
            best = max(best, 2 * precision * recall / (precision + recall))
    return exact, best


@pytest.mark.parametrize(("scorer", "version"), [(squad1, 1), (squad2, 2)])
def test_squad_equals_a_second_reading(scorer: Callable[..., tuple[float, float]], version: int) -> None:
    for right, answer in drawn(version, WORDS, ["", " ", "  "]):
        assert scorer(right, answer) == pytest.approx(reading(right, answer, version=version)), (right, answer)


@pytest.mark.parametrize(
    ("right", "given", "one", "two"),
    [
        (["The Norman dynasty."], "norman  Dynasty", (1, 1), (1, 1)),
        (["Denver Broncos"], "the Broncos", (0, 2 / 3), (0, 2 / 3)),
        (["a cat", "two cats"], "cats", (0, 2 / 3), (0, 2 / 3)),
        (["the"], "", (1, 0), (1, 1)),  # an answer that is nothing but an article
        (["the", "cat"], "a", (1, 0), (0, 0)),  # of which 2.0 takes no notice beside another
        ([""], "", (1, 0), (1, 1)),
        ([""], "cat", (0, 0), (0, 0)),
        (["北京"], "北京市", (0, 0), (0, 0)),  # no spaces: one word
        (["a b b"], "b b b", (0, 0.8), (0, 0.8)),  # the article goes, then 2 of 2 and 2 of 3
    ],
)
def test_known_cases(right: list[str], given: str, one: tuple[float, float], two: tuple[float, float]) -> None:
    assert squad1(right, given) == pytest.approx(one)
    assert squad2(right, given) == pytest.approx(two)


def test_a_question_without_an_answer_wants_none() -> None:
    assert squad2([], "") == (1, 1)
    assert squad2([], "cat") == (0, 0)
    assert cmrc([], "") == (1, 1)
    assert cmrc([], "猫") == (0, 0)


def test_articles_go_wherever_a_word_ends() -> None:
    assert normalise("The-a an 'the' Theatre,  an") == "thea theatre"


IGNORED = ["-", ":", "_", "*", "^", "/", "\\", "~", "`", "+", "="]
IGNORED += [
    "，",
    "。",
    "：",
    "？",
    "！",
    "“",
    "”",
    "；",
    "’",
    "《",
    "》",
    "……",
    "·",
    "、",
    "「",
    "」",
    "（",
    "）",
    "－",
    "～",
    "『",
    "』",
]


def cmrc_reading(right: Sequence[str], given: str, words: Callable[[str], list[str]]) -> tuple[float, float]:
    """What CMRC's script says: pieces gathered one character at a time, runs found by trying all of them."""

    def pieces(text: str) -> list[str]:
        found, other = [], ""
        for character in text.lower().strip():
            if character in IGNORED:
                continue
            if "\u4e00" <= character <= "\u9fa5":
                found += [*words(other), character]
                other = ""
            else:
                other += character
        return found + words(other)

    def bare(text: str) -> str:
        return "".join(character for character in text.lower().strip() if character not in IGNORED)

    best = 0.0
    guess = pieces(given)
    stretches = {tuple(guess[i:j]) for i in range(len(guess)) for j in range(i + 1, len(guess) + 1)}
    for text in right:
        gold = pieces(text)
        runs = [j - i for i in range(len(gold)) for j in range(i + 1, len(gold) + 1) if tuple(gold[i:j]) in stretches]
        if runs:
            precision, recall = max(runs) / len(guess), max(runs) / len(gold)
            best = max(best, 2 * precision * recall / (precision + recall))
    return float(any(bare(text) == bare(given) for text in right)), best


@pytest.mark.parametrize("seed", range(3))
def test_cmrc_equals_a_second_reading(seed: int) -> None:
    treebank = NLTKWordTokenizer()

    def words(text: str) -> list[str]:
        # nltk's own sentences need a model that its package does not bring; a stop after two letters or more, a
        # question mark and an exclamation mark end one.
        sentences = re.split(r"(?<=[?!])\s+|(?<=[^.]\w\w\.)\s+|(?<=^\w\w\.)\s+", text.strip())
        return [word for sentence in sentences for word in treebank.tokenize(sentence)]

    for right, answer in drawn(seed, MIXED, ["", " "]):
        assert cmrc(right, answer) == pytest.approx(cmrc_reading(right, answer, words)), (right, answer)


@pytest.mark.parametrize(
    ("right", "given", "expected"),
    [
        (["光荣和ω-force"], "光荣和ω-force", (1, 1)),
        (["光荣和ω-force"], "《光荣》和ω－FORCE。", (1, 1)),
        (["北京大学"], "北京", (0, 2 / 3)),
        (["北京大学"], "大学北京", (0, 0.5)),  # the longest run, not all characters in common
        (["1949年10月1日", "十月一日"], "10月1日", (0, 0.8)),
        (["北京"], "", (0, 0)),
        (["。"], "，", (1, 0)),
        (["New York City"], "york", (0, 0.5)),
    ],
)
def test_known_chinese_cases(right: list[str], given: str, expected: tuple[float, float]) -> None:
    assert cmrc(right, given) == pytest.approx(expected)


def test_pieces_are_han_characters_and_words() -> None:
    assert cmrc_pieces("2018年，《Can't stop. Go!》") == ["2018", "年", "ca", "n't", "stop", ".", "go", "!"]


Rows = st.lists(st.tuples(st.floats(0, 1), st.integers(-5, 5), st.booleans()), min_size=1, max_size=30)


@settings(deadline=None)
@given(Rows)
def test_no_threshold_is_better_than_the_one_found(rows: list[tuple[float, int, bool]]) -> None:
    scores = [score if has else 0.0 for score, _, has in rows]
    odds, has_answer = [float(odd) for _, odd, _ in rows], [has for _, _, has in rows]

    def at(threshold: float) -> float:
        total = sum(float(not h) if o > threshold else s for s, o, h in zip(scores, odds, has_answer, strict=True))
        return total / len(rows)

    best, threshold = best_threshold(scores, odds, has_answer)
    assert at(threshold) == pytest.approx(best)
    assert best == pytest.approx(max(at(half / 2) for half in range(-13, 14)))


def test_a_threshold_of_nothing() -> None:
    assert best_threshold([], [], []) == (0.0, 0.0)
