from __future__ import annotations

import pytest

from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.shrink import keep_pieces, needed_pieces

TEXTS = ["the film is good", "Anna lives in London!", "我在北京"]


@pytest.fixture(scope="module")
def smaller(toy_tokenizer: Tokenizer) -> Tokenizer:
    used = {int(i) for pieces in toy_tokenizer.encode(TEXTS) for i in pieces.ids}
    return keep_pieces(toy_tokenizer, needed_pieces(toy_tokenizer, used))


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.tokens[i] for i in tokenizer.encode([text])[0].ids]


def test_text_that_was_used_is_cut_as_before(toy_tokenizer: Tokenizer, smaller: Tokenizer) -> None:
    assert smaller.vocab_size < toy_tokenizer.vocab_size
    for text in TEXTS:
        assert words(smaller, text) == words(toy_tokenizer, text)


def test_other_words_can_still_be_written(smaller: Tokenizer) -> None:
    assert words(smaller, "boring") == ["b", "##o", "##r", "##i", "##n", "##g"]
    assert words(smaller, "好不错") == ["好", "不", "错"]
    assert smaller.unk_id not in smaller.encode(["boring paris"])[0].ids


def test_special_tokens_have_their_new_numbers(toy_tokenizer: Tokenizer, smaller: Tokenizer) -> None:
    assert [smaller.tokens[i] for i in (smaller.pad_id, smaller.unk_id, smaller.cls_id, smaller.sep_id)] == list(
        SPECIAL_TOKENS[:4]
    )
    moved = keep_pieces(toy_tokenizer, [*range(6, 30), 0, 1, 2, 3, 4])
    assert moved.tokens[moved.mask_id] == "[MASK]"
    assert moved.mask_id == 28


@pytest.mark.filterwarnings("ignore")
def test_transformers_gives_the_same_ids(smaller: Tokenizer, tmp_path: object) -> None:
    from pathlib import Path

    from transformers import AutoTokenizer

    folder = Path(str(tmp_path))
    for name, content in smaller.files().items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in [*TEXTS, "boring"]:
        ids = [smaller.cls_id, *smaller.encode([text])[0].ids.tolist(), smaller.sep_id]
        assert theirs(text)["input_ids"] == ids
