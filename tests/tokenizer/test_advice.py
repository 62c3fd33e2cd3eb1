from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from bertsmith.tokenizer import advice
from bertsmith.tokenizer.advice import Choice, Coverage, advised, alphabet_size, choices, measure, smaller
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.train import VocabConfig, train_wordpiece
from bertsmith.tokenizer.words import count_words


@pytest.fixture(scope="module")
def texts() -> Sequence[str]:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh北京", k=draw.randint(1, 7))) for _ in range(800)]
    return [" ".join(draw.choices(words, k=40)) for _ in range(300)]


def test_fertility_and_unknown_words_are_those_of_the_encoder(toy_tokenizer: Tokenizer) -> None:
    text = "The film was good, 龘 sad! sad sad 我 ж"
    measured = measure(toy_tokenizer, count_words([text], toy_tokenizer))
    (pieces,) = toy_tokenizer.encode([text])
    assert measured.whole == Coverage(words=12, pieces=len(pieces), unknown=2)
    assert measured.whole.fertility == len(pieces) / 12
    assert measured.scripts == {
        "latin": Coverage(7, 13, 0),
        "han": Coverage(2, 2, 1),
        "other": Coverage(2, 2, 0),
        "cyrillic": Coverage(1, 1, 1),
    }
    assert next(iter(measured.scripts)) == "latin"
    assert measured.unknown == {"龘": 1, "ж": 1}
    assert measured.cut == {"sad": 3}
    assert measured.occurrences.sum() == len(pieces)
    assert measured.occurrences[toy_tokenizer.tokens.index("##a")] == 3


def test_nothing_to_measure_is_no_division_by_zero() -> None:
    assert (Coverage().fertility, Coverage().unknown_rate) == (0.0, 0.0)


@pytest.mark.parametrize("size", [60, 120, 300])
def test_a_smaller_vocabulary_is_the_beginning_of_a_larger_one(texts: Sequence[str], size: int) -> None:
    large = train_wordpiece(texts, VocabConfig(size=600))
    trained = train_wordpiece(texts, VocabConfig(size=size))
    cut = smaller(large, size)
    assert cut.hash == trained.hash
    assert cut.files() == trained.files()


def test_the_alphabet_is_what_every_size_needs(texts: Sequence[str]) -> None:
    trained = train_wordpiece(texts, VocabConfig(size=300))
    assert alphabet_size(trained) == 5 + 8 + 2 + 8
    assert alphabet_size(smaller(trained, 23)) == 23


def test_larger_sizes_have_fewer_pieces_a_word_and_rarer_ones(
    texts: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "SIZES", (10, 50, 100, 200, 9000))
    trained = train_wordpiece(texts, VocabConfig(size=400))
    words = count_words(texts, trained)
    found = choices(trained, words)
    assert [choice.size for choice in found] == [10, 50, 100, 200, 400]
    lacking, *found = found
    assert not lacking.whole_alphabet
    assert lacking.coverage.unknown_rate > 0.5
    assert {choice.coverage.unknown for choice in found} == {0}
    assert advised([lacking, *found]).size >= 50
    fertility = [choice.coverage.fertility for choice in found]
    assert fertility == sorted(fertility, reverse=True)
    assert found[0].learnable > found[-1].learnable
    assert found[1].coverage == measure(train_wordpiece(texts, VocabConfig(size=100)), words).whole
    assert choices(trained, words, scale=1000.0)[0].learnable == 1.0


def test_sizes_just_above_the_alphabet_are_compared(texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "SIZES", (30, 200))
    monkeypatch.setattr(advice, "STEPS", (10, 40, 900))
    trained = train_wordpiece(texts, VocabConfig(size=400))
    assert [one.size for one in choices(trained, count_words(texts, trained))] == [30, 40, 70, 200, 400]


def choice(size: int, pieces: int, learnable: float) -> Choice:
    return Choice(size, Coverage(100, pieces, 0), learnable)


@pytest.mark.parametrize(
    ("found", "size"),
    [
        ([choice(10, 200, 0.5)], 10),
        ([choice(10, 200, 0.9), choice(20, 150, 0.85), choice(30, 120, 0.7)], 20),
        ([choice(10, 200, 0.9), choice(20, 199, 0.9), choice(30, 120, 0.9)], 10),
        ([choice(10, 200, 0.1), choice(20, 150, 0.1)], 10),
        ([choice(10, 200, 1.0), choice(20, 150, 1.0)], 20),
    ],
)
def test_the_advice_weighs_length_against_rare_pieces(found: list[Choice], size: int) -> None:
    assert advised(found).size == size
