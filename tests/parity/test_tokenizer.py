"""Ids equal to transformers' BertTokenizer, with the three published vocabularies."""

from __future__ import annotations

import json
import lzma
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from bertsmith.tokenizer.load import Tokenizer

PUBLISHED = {"bert-base-uncased": True, "bert-base-cased": False, "bert-base-chinese": True}

NASTY = [
    "",
    "Hello, world! It's 3.14 or 1,000; don't can't won't…",
    "éÉ Ångström naïve coöperate STRASSE ß ẞ",
    "cafe\u0301 a\u0308 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
    "汉字 and 日本語 mixed漢字in一起，对吧？「好」",
    "〇 々 仝 ㈱ ㎏ 𠀀𪜶 豈",
    "👍🏽 emoji 👨‍👩‍👧 🇨🇳 x❤️y",
    "a\x00b\x01c\x07d\u200be\ufffdf\u00adg\u200eh\ufeffi",
    "tab\tnew\nline\r\nform\x0cvertical\x0bnel\x85ls\u2028ps\u2029sep\x1c\x1d\x1e\x1f",
    "\u00a0nbsp\u3000ideographic\u2003em\u1680ogham",
    "ΣΑΣ ς Σίσυφος İstanbul ıI ﬁ ﬂ Ⅷ ½ ² ＡＢＣ１２",
    "한국어 테스트 한 ಕನ್ನಡ नमस्ते עִבְרִית العَرَبِيَّة ไทย",
    "x" * 100 + " " + "x" * 101 + " " + "中" * 120,
    "##foo ## # a##b [unused1] <S>",
    "`´¨^~ © ® ™ $ + < = > | € ¥ \\ / _ - – — “ ” ‘ ’",
    "\u0378 \ue000 \U000e0001 \U0010ffff \U0001f9ff",
    "http://example.org/a_b?c=d&e=%20#f me@example.org #tag @you",
]


@dataclass(frozen=True)
class Pair:
    ours: Tokenizer
    auto: Any
    python: Any


@pytest.fixture(scope="module", params=PUBLISHED)
def pair(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    lowercase = PUBLISHED[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "vocab.txt").write_bytes(lzma.decompress((data_dir / "vocab" / f"{request.param}.txt.xz").read_bytes()))
    ours = Tokenizer.load(folder / "vocab.txt")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    return Pair(
        ours, AutoTokenizer.from_pretrained(folder), BertTokenizerLegacy(folder / "vocab.txt", do_lower_case=lowercase)
    )


def theirs(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def check(pair: Pair, text: str) -> None:
    ids = pair.ours.encode([text], specials=True)[0].ids.tolist()
    assert ids == theirs(pair.auto, text)
    if "[" not in text:
        assert pair.ours.encode_ids([text])[0][0].tolist() == ids


def agrees_with_python(text: str) -> bool:
    """Whether the Python implementation means the same: no capital sigma, composed accents, assigned characters."""
    return (
        "Σ" not in text
        and unicodedata.is_normalized("NFC", text)
        and not any(unicodedata.category(character) in ("Cn", "Co") for character in text)
    )


@pytest.mark.parametrize("text", NASTY)
def test_nasty_texts(pair: Pair, text: str) -> None:
    check(pair, text)
    if agrees_with_python(text):
        assert pair.ours.encode_ids([text])[0][0].tolist() == theirs(pair.python, text)


SCRIPTS = st.text(
    st.characters(codec="utf-8")
    | st.sampled_from("abcdefgABCDEFG ,.'-")
    | st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)
    | st.characters(min_codepoint=0x1F300, max_codepoint=0x1FAFF)
    | st.characters(min_codepoint=0x00, max_codepoint=0x24F)
    | st.characters(min_codepoint=0x2000, max_codepoint=0x206F),
    max_size=60,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=SCRIPTS)
def test_any_text(pair: Pair, text: str) -> None:
    check(pair, text)


EUROPEAN = st.text(
    st.characters(max_codepoint=0x2AF, exclude_characters="[") | st.sampled_from("汉字，。  ab"), max_size=60
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=EUROPEAN)
def test_any_text_of_the_python_implementation(pair: Pair, text: str) -> None:
    assert pair.ours.encode_ids([text])[0][0].tolist() == theirs(pair.python, text)


def test_real_text(pair: Pair, data_dir: Path) -> None:
    for name in ("enwiki", "zhwiki"):
        with lzma.open(data_dir / "corpus" / f"{name}.txt.xz", "rt", encoding="utf-8") as lines:
            texts = [next(lines) for _ in range(300)]
        assert [ids.tolist() for ids, _ in pair.ours.encode_ids(texts)] == [theirs(pair.auto, text) for text in texts]


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_files_of_a_bundle_load_in_transformers(pair: Pair, tmp_path: Path, model_type: str) -> None:
    for name, content in pair.ours.files(model_type, max_length=512).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in NASTY:
        assert theirs(loaded, text) == pair.ours.encode([text], specials=True)[0].ids.tolist()
    encoded = loaded("Hello [MASK]", "你好, world")
    first = pair.ours.encode(["Hello [MASK]"], specials=True)[0].ids.tolist()
    second = pair.ours.encode(["你好, world"])[0].ids.tolist()
    assert encoded["input_ids"] == [pair.ours.cls_id, *first, pair.ours.sep_id, *second, pair.ours.sep_id]
    if model_type == "bert":
        assert encoded["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    else:
        assert "token_type_ids" not in encoded
    assert (loaded.mask_token_id, loaded.pad_token_id) == (pair.ours.mask_id, pair.ours.pad_id)
    assert loaded.model_max_length == 512
    loaded.save_pretrained(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").hash == pair.ours.hash
