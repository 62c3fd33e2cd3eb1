from __future__ import annotations

import pytest
import tokenizers
from tokenizers import models

from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.readable import Readable


def shown(tokenizer: Tokenizer, text: str) -> str:
    return Readable(tokenizer).text(tokenizer.encode([text])[0].ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The film was good, not bad!", "the film was good, not bad!"),
        ("Anna's film (is) great.", "anna's film (is) great."),
        ("well-known: 3.14", "well-known: 3. 14"),
        ("我在北京 很好。film", "我在北京很好[UNK] film"),
        ("龘 a", "[UNK] a"),
        ("", ""),
    ],
)
def test_pieces_are_joined_as_one_would_write_them(toy_tokenizer: Tokenizer, text: str, expected: str) -> None:
    assert shown(toy_tokenizer, text) == expected


@pytest.mark.parametrize("text", ["The  FILM was good,not bad!", "Anna 's", "我 在北京 a film", "a-b @ c:d", "é"])
def test_what_a_person_types_has_the_same_form(toy_tokenizer: Tokenizer, text: str) -> None:
    assert Readable(toy_tokenizer).normal(text) == shown(toy_tokenizer, text)


def test_characters_that_cannot_be_in_the_text_are_named(toy_tokenizer: Tokenizer) -> None:
    readable = Readable(toy_tokenizer)
    assert readable.unknown("the 龘龘 film ж") == "龘ж"
    assert readable.unknown("the film") == ""
    assert readable.folds_case


def test_another_kind_of_vocabulary_reads_as_it_decodes() -> None:
    words = {token: number for number, token in enumerate([*SPECIAL_TOKENS, "good"])}
    plain = Tokenizer(tokenizers.Tokenizer(models.WordLevel(words, "[UNK]")))
    assert shown(plain, "good") == "good"
    assert Readable(plain).normal("Good  one") == "Good  one"
