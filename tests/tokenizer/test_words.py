from __future__ import annotations

from collections import Counter

import pytest

from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.words import count_words

TEXTS = [
    "Don't stop: the CAFÉ is open!",
    "我在北京，the café。",
    "  \t\n ",
    "a\u200bb \ud800 c",
    "don't\u00a0don't",
]


def test_words_are_those_that_the_tokenizer_cuts_into_pieces(toy_tokenizer: Tokenizer) -> None:
    assert count_words(TEXTS, toy_tokenizer) == Counter(
        {
            "don": 3,
            "'": 3,
            "t": 3,
            "stop": 1,
            ":": 1,
            "the": 2,
            "cafe": 2,
            "is": 1,
            "open": 1,
            "!": 1,
            **dict.fromkeys("我在北京，。", 1),
            "ab": 1,
            "c": 1,
        }
    )


@pytest.mark.parametrize("text", TEXTS)
def test_there_are_as_many_as_the_encoder_has(toy_tokenizer: Tokenizer, text: str) -> None:
    (pieces,) = toy_tokenizer.encode([text])
    assert count_words([text], toy_tokenizer).total() == len(set(pieces.words.tolist()))
