"""The faster encoder gives the same ids, or is not asked."""

from __future__ import annotations

import lzma
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.sentences import document_sentences
from bertsmith.tokenizer import fast, load
from bertsmith.tokenizer.load import Tokenizer

pytest.importorskip("tokie")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "WORTH_CHECKING", 1)


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[tuple[list[int], list[bool]]]:
    return [(one.tolist(), starts.tolist()) for one, starts in tokenizer.encode_ids(texts)]


@pytest.mark.parametrize(("language", "name"), [("en", "bert-base-uncased"), ("zh", "bert-base-chinese")])
def test_real_text_has_the_same_ids(data_dir: Path, tmp_path: Path, eager: None, language: str, name: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(lzma.decompress((data_dir / "vocab" / f"{name}.txt.xz").read_bytes()))
    tokenizer, plain = Tokenizer.load(tmp_path), Tokenizer.load(tmp_path)
    documents = read([str(data_dir / "corpus" / f"{language}wiki.txt.xz")], Tally())
    texts = [text for _, document in zip(range(40), documents, strict=False) for text in document_sentences(document)]
    texts += ["[SEP] is text", "", "e\u0301 \u0378", "a\ud800b", "x" * 101]
    assert tokenizer._fast is not None
    assert tokenizer._fast.takes(texts).sum() > 0.9 * len(texts)
    assert [one for one, _ in ids(tokenizer, texts)] == [pieces.ids.tolist() for pieces in plain.encode(texts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "WORTH_CHECKING", 10**9)
        assert ids(tokenizer, texts) == ids(plain, texts)


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_text_has_the_same_ids(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "WORTH_CHECKING", 1)
        found = ids(TOKENIZER, texts)
    assert [one for one, _ in found] == [pieces.ids.tolist() for pieces in TOKENIZER.encode(texts)]


TOKENIZER = Tokenizer.from_tokens(
    [*load.SPECIAL_TOKENS, *"abcdexyz0123", *(f"##{sign}" for sign in "abcdexyz0123"), *".,!?'-", "the", *"中国人"],
    lowercase=True,
)


def test_special_tokens_that_are_written_out_are_words() -> None:
    encoder = TOKENIZER._fast
    assert encoder is not None
    assert encoder.takes(["a plain text, 中国", "", "a\xa0b"]).all()
    texts = ["a [MASK]", "e\u0301", "\u0e01", "\x7f", "\ufffd", "😀", "\ud800"]
    assert not encoder.takes(texts).any()
    assert encoder.takes([]).tolist() == []


@pytest.mark.parametrize("lowercase", [False, True])
def test_characters_that_passed_alone_pass_together(lowercase: bool) -> None:
    tokenizer = Tokenizer.from_tokens(TOKENIZER.tokens, lowercase=lowercase)
    encoder = tokenizer._fast
    assert encoder is not None
    chance = random.Random(0)
    candidates = [chr(code) for first, last in fast._RANGES for code in range(ord(first), ord(last) + 1)]
    texts = ["".join(chance.choices([*candidates, *("abc 12中" * 4000)], k=chance.randint(1, 30))) for _ in range(5000)]
    taken = encoder.takes(texts)
    assert taken.mean() > 0.9
    some = [text for text, passed in zip(texts, taken, strict=True) if passed]
    for one, reference in zip(encoder.encode(some), tokenizer._flat(some), strict=True):
        assert (one == reference).all()


def test_a_character_that_differs_is_left_to_the_reference() -> None:
    tokenizer = Tokenizer.from_tokens(TOKENIZER.tokens, lowercase=True)

    def reference(texts: Sequence[str]) -> fast.Flat:
        return tokenizer._flat([text.replace("é", "") for text in texts])

    encoder = fast.FastEncoder(tokenizer._json, reference, load.SPECIAL_TOKENS)
    assert encoder.takes(["abc", "é", "国é", "国"]).tolist() == [True, False, False, True]


def test_few_texts_are_not_worth_the_check() -> None:
    tokenizer = Tokenizer.from_tokens(TOKENIZER.tokens, lowercase=True)
    tokenizer.encode_ids(["the"] * 10)
    assert "_fast" not in vars(tokenizer)


def test_an_encoder_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch, eager: None) -> None:
    encode = fast.FastEncoder.encode

    def wrong(self: fast.FastEncoder, texts: list[str]) -> Any:
        flat, lengths = encode(self, texts)
        flat = flat.copy()
        flat[flat == TOKENIZER.tokens.index("##x")] = 1
        return flat, lengths

    monkeypatch.setattr(fast.FastEncoder, "encode", wrong)
    tokenizer = Tokenizer.from_tokens(TOKENIZER.tokens, lowercase=True)
    assert tokenizer._fast is None
    assert ids(tokenizer, ["xx a"])[0][0] == TOKENIZER.encode(["xx a"])[0].ids.tolist()


def test_without_tokie_everything_is_the_same(monkeypatch: pytest.MonkeyPatch, eager: None) -> None:
    monkeypatch.setattr(fast, "present", lambda module: False)
    tokenizer = Tokenizer.from_tokens(TOKENIZER.tokens, lowercase=True)
    assert tokenizer._fast is None
    assert ids(tokenizer, ["the xx, 中国"])[0][0] == TOKENIZER.encode(["the xx, 中国"])[0].ids.tolist()
