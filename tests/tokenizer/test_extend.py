"""New pieces at the end of a vocabulary, and which words deserve one."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, models

from bertsmith.core.errors import ConfigError
from bertsmith.tokenizer.extend import domain_terms, extend, old_pieces
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer

OLD = ["The film was good, not great.", "Anna works in London, cardi", "我在北京很好", "ZEBRA? 4711!"]


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode([text])[0].ids.tolist()


def test_a_new_word_is_one_piece_and_old_text_is_as_before(toy_tokenizer: Tokenizer) -> None:
    longer = extend(toy_tokenizer, ["cardiology", "STENT", "café", "##itis", "心"])
    size = toy_tokenizer.vocab_size
    assert longer.tokens == [*toy_tokenizer.tokens, "cardiology", "stent", "cafe", "##itis", "心"]
    assert [ids(longer, text) for text in OLD] == [ids(toy_tokenizer, text) for text in OLD]
    assert ids(longer, "Cardiology stent Café 心") == [size, size + 1, size + 2, size + 4]
    assert [longer.tokens[i] for i in ids(longer, "stents stentitis")] == ["stent", "##s", "stent", "##itis"]
    assert longer.settings == toy_tokenizer.settings
    assert toy_tokenizer.vocab_size == size, "the old one is not changed"


def test_an_extended_vocabulary_is_saved_and_extended_again(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    longer = extend(extend(toy_tokenizer, ["stent"]), ["cardiology"])
    for name, content in longer.files().items():
        (tmp_path / name).write_bytes(content)
    for source in (tmp_path, tmp_path / "vocab.txt"):
        assert Tokenizer.load(source).hash == longer.hash
    assert longer.hash == extend(toy_tokenizer, ["stent", "cardiology"]).hash


def test_tokens_added_beside_the_table_keep_their_ids(toy_tokenizer: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(toy_tokenizer.files()["tokenizer.json"].decode())
    backend.add_special_tokens([AddedToken("[ENT]", special=True)])
    old = Tokenizer(backend)
    longer = extend(old, ["stent", "cardiology"])
    assert longer.tokens == [*old.tokens, "stent", "cardiology"]
    assert longer.encode(["[ENT] stent"], specials=True)[0].ids.tolist() == [old.vocab_size - 1, old.vocab_size]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["film"], r"'film': the vocabulary has the piece 'film' already"),
        (["Film"], r"'Film': the vocabulary has the piece 'film' already"),
        (["##s"], r"has the piece '##s' already"),
        (["stent", "Stent"], r"'Stent' and 'stent' are the same piece"),
        (["heart attack"], r"'heart attack' is 2 words"),
        (["don't"], r"is 3 words"),
        (["高血压"], r"'高血压' is 3 words for this tokenizer, so it can never be one piece"),
        ([" "], r"is 0 words"),
        (["a" * 101], r"longer than the words that this tokenizer reads"),
    ],
)
def test_what_can_be_no_new_piece_is_refused(toy_tokenizer: Tokenizer, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extend(toy_tokenizer, words)


def test_another_kind_of_vocabulary_is_refused() -> None:
    plain = Tokenizer(tokenizers.Tokenizer(models.WordLevel({t: n for n, t in enumerate(SPECIAL_TOKENS)}, "[UNK]")))
    with pytest.raises(ConfigError, match=r"only BERT's WordPiece vocabularies can be changed, not WordLevel"):
        extend(plain, ["stent"])


def test_terms_are_frequent_words_in_many_pieces(toy_tokenizer: Tokenizer) -> None:
    texts = [
        *["Stent! The stent is good."] * 4,
        *["Aorta and the film, 12345678, ab"] * 6,
        *["Ödem 心 心"] * 5,
        "rare rarer rarest",
    ]
    assert domain_terms(texts, toy_tokenizer, 10) == ["心", "stent", "and", "aorta", "odem"]
    assert domain_terms(reversed(texts), toy_tokenizer, 2) == ["心", "stent"]
    assert "rarest" in domain_terms(texts, toy_tokenizer, 10, min_frequency=1)
    longer = extend(toy_tokenizer, domain_terms(texts, toy_tokenizer, 10))
    assert domain_terms(texts, longer, 10) == []


def test_old_pieces_are_how_the_old_vocabulary_wrote_the_new_ones(toy_tokenizer: Tokenizer) -> None:
    longer = extend(toy_tokenizer, ["goodie", "心", "##itis", "##öß"])
    number = toy_tokenizer.tokens.index
    size = toy_tokenizer.vocab_size
    assert old_pieces(toy_tokenizer, longer) == {
        size: [number("good"), number("##i"), number("##e")],
        size + 1: [toy_tokenizer.unk_id],
        size + 2: [number(f"##{letter}") for letter in "itis"],
        size + 3: [toy_tokenizer.unk_id],
    }
    assert old_pieces(longer, longer) == {}
    with pytest.raises(ConfigError, match="does not begin with the pieces of the old one"):
        old_pieces(longer, toy_tokenizer)
