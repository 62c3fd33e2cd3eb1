from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.segment import encode_in_words, rjieba_cut, word_starts

TOKENIZER = Tokenizer.from_tokens(
    [*SPECIAL_TOKENS, *"我爱北京天安门的。", "play", "##ing", "don", "'", "t"], lowercase=True
)


def flags(text: str, words: list[str] | None = None) -> list[int]:
    pieces = TOKENIZER.encode([text])[0]
    cut = None if words is None else lambda _: words
    return [int(flag) for flag in word_starts(pieces, text, cut)]


def test_english_words_start_where_no_continuation_is() -> None:
    assert flags("playing playing") == [1, 0, 1, 0]


def test_every_han_character_is_a_word_without_a_segmenter() -> None:
    assert flags("我爱北京") == [1, 1, 1, 1]


def test_a_segmenter_joins_han_characters() -> None:
    assert flags("我爱北京天安门。", ["我", "爱", "北京", "天安门", "。"]) == [1, 1, 1, 0, 1, 0, 0, 1]


def test_a_segmenter_joins_neither_across_gaps_nor_english() -> None:
    assert flags("北 京don't playing", ["北 京don't playing"]) == [1, 1, 1, 1, 1, 1, 0]
    assert flags("playing北京", ["play", "ing北", "京"]) == [1, 0, 1, 1]


def test_an_empty_text_has_no_words() -> None:
    assert flags("", []) == []


def test_a_segmenter_that_changes_the_text_is_refused() -> None:
    with pytest.raises(DataError, match="changed the text"):
        flags("我爱", ["我"])


def test_encoding_in_words_changes_nothing_but_the_words() -> None:
    texts = ["playing don't", "我爱北京天安门。", "", "北京playing", "我\ud83d爱", "我爱"]

    def by_two(text: str) -> list[str]:
        assert "我" in text or "北" in text, "texts without Han characters need no segmenter"
        return [text[at : at + 2] for at in range(0, len(text), 2)]

    ids, flags, lengths = encode_in_words(TOKENIZER, texts, by_two)
    plain = TOKENIZER.encode_ids(texts)
    borders = np.cumsum(lengths)[:-1]
    assert [part.tolist() for part in np.split(ids, borders)] == [ids.tolist() for ids, _ in plain]
    starts = [part.astype(int).tolist() for part in np.split(flags, borders)]
    assert starts[1] == [1, 0, 1, 0, 1, 0, 1, 1]
    assert starts[3] == [1, 0, 1, 0]
    assert starts[4:] == [[1, 1], [1, 0]]
    assert all(starts[number] == plain[number][1].tolist() for number in (0, 2))


def test_the_segmenter_of_the_extra_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", SimpleNamespace(cut=lambda text: [text]))
    assert list(rjieba_cut()("北京")) == ["北京"]


def test_a_missing_segmenter_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(ConfigError, match=r"bertsmith\[fast\]"):
        rjieba_cut()
