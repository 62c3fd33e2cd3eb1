from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from bertsmith.core.errors import BundleError
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = [
    *SPECIAL_TOKENS,
    *LETTERS,
    *("##" + letter for letter in LETTERS),
    *",.!?[]-'",
    *("play", "##ing", "##ed", "the", "sep", "mask", "cafe"),
    *("中", "国", "人", "👍", "##🏽"),
]
UNCASED = Tokenizer.from_tokens(VOCABULARY, lowercase=True)


def pieces_of(text: str, tokenizer: Tokenizer = UNCASED, *, specials: bool = False) -> list[str]:
    return [tokenizer.tokens[i] for i in tokenizer.encode([text], specials=specials)[0].ids]


def spans_of(text: str) -> list[str]:
    pieces = UNCASED.encode([text])[0]
    return [text[start:end] for start, end in zip(pieces.starts, pieces.ends, strict=True)]


def write_vocabulary(path: Path, tokens: list[str], config: dict[str, object] | None = None) -> Path:
    path.write_bytes("".join(token + "\n" for token in tokens).encode())
    if config is not None:
        (path.parent / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_words_are_cut_into_the_longest_pieces() -> None:
    assert pieces_of("The playing") == ["the", "play", "##ing"]


def test_special_tokens_written_in_a_text_are_text() -> None:
    assert pieces_of("[SEP] [MASK]") == ["[", "sep", "]", "[", "mask", "]"]
    assert pieces_of("the [MASK]", specials=True) == ["the", "[MASK]"]
    forbidden = [UNCASED.tokens.index(token) for token in SPECIAL_TOKENS if token != "[UNK]"]
    text = " ".join(SPECIAL_TOKENS) + "[CLS][SEP]"
    assert not np.isin(UNCASED.encode_ids([text])[0][0], forbidden).any()


def test_offsets_point_into_the_original_text() -> None:
    assert spans_of("Café  ÉTÉ") == ["Café", "É", "T", "É"]
    assert spans_of("cafe\u0301\u0302, e\u0301t the") == ["cafe\u0301\u0302", ",", "e\u0301", "t", "the"]
    assert spans_of("中国👍🏽 the") == ["中", "国", "👍", "🏽", "the"]
    assert spans_of("the\x00 \ufffdplay\x07ed!") == ["the", "play", "ed", "!"]


def test_a_word_that_no_pieces_can_write_is_unknown_as_a_whole() -> None:
    assert pieces_of("playЖ the") == ["[UNK]", "the"]
    assert spans_of("playЖ the") == ["playЖ", "the"]


def test_words_count_punctuation_and_han_characters() -> None:
    assert UNCASED.encode(["playing, 中国"])[0].words.tolist() == [0, 0, 1, 2, 3]


def test_a_recognised_mask_is_a_word_of_its_own() -> None:
    pieces = UNCASED.encode(["playing [MASK] [MASK]ed the"], specials=True)[0]
    assert pieces.words.tolist() == [0, 0, 1, 2, 3, 3, 4]


@settings(deadline=None)
@given(st.lists(st.text(max_size=30) | st.text("aeplying中国人, -[]#", max_size=30), max_size=5))
def test_the_fast_path_gives_the_same_ids_and_word_starts(texts: list[str]) -> None:
    fast = UNCASED.encode_ids(texts)
    assert len(fast) == len(texts)
    for (ids, word_starts), pieces, text in zip(fast, UNCASED.encode(texts), texts, strict=True):
        assert ids.tolist() == pieces.ids.tolist()
        assert word_starts.tolist() == (np.diff(pieces.words, prepend=-1) != 0).tolist()
        assert (pieces.starts < pieces.ends).all()
        assert (pieces.ends <= len(text)).all()


def test_blank_texts_have_no_pieces() -> None:
    assert [len(ids) for ids, _ in UNCASED.encode_ids(["", "the", " \n\t"])] == [0, 1, 0]
    assert [len(pieces) for pieces in UNCASED.encode(["", "the"])] == [0, 1]
    assert UNCASED.encode_ids([]) == []


def test_a_lone_surrogate_is_ignored_and_moves_nothing() -> None:
    pieces = UNCASED.encode(["\ud83dthe end"])[0]
    assert (pieces.starts[0], pieces.ends[0]) == (1, 4)
    assert UNCASED.encode_ids(["\ud83dthe"])[0][0].tolist() == UNCASED.encode_ids(["the"])[0][0].tolist()


def test_decoding_joins_pieces_and_keeps_special_tokens() -> None:
    ids = UNCASED.encode_ids(["the playing"])[0][0]
    assert UNCASED.decode([UNCASED.cls_id, *ids, UNCASED.mask_id]) == "[CLS] the playing [MASK]"


def test_case_of_a_bare_vocabulary_is_guessed_from_its_pieces(tmp_path: Path) -> None:
    uncased = Tokenizer.load(write_vocabulary(tmp_path / "lower.txt", [*VOCABULARY, "[unused1]", "<S>"]))
    cased = Tokenizer.load(write_vocabulary(tmp_path / "cased.txt", [*VOCABULARY, "The"]))
    assert pieces_of("The", uncased) == ["the"]
    assert pieces_of("The", cased) == ["The"]


def test_settings_beside_a_vocabulary_decide_its_case(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocab.txt", VOCABULARY, {"do_lower_case": False})
    assert pieces_of("The the", Tokenizer.load(tmp_path)) == ["[UNK]", "the"]
    write_vocabulary(tmp_path / "vocab.txt", VOCABULARY, {"do_lower_case": True, "strip_accents": False})
    assert pieces_of("Café", Tokenizer.load(tmp_path)) == ["[UNK]"]


def test_lines_may_end_in_crlf_and_hold_odd_separators(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*VOCABULARY, "\u2028", "\x85"]).encode())
    assert Tokenizer.load(path).tokens == [*VOCABULARY, "\u2028", "\x85"]


def test_a_saved_tokenizer_loads_equal(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "bundle", UNCASED.files())
    loaded, from_vocabulary = Tokenizer.load(folder), Tokenizer.load(folder / "vocab.txt")
    assert loaded.hash == from_vocabulary.hash == UNCASED.hash
    assert loaded.files() == UNCASED.files()
    assert pieces_of("[SEP] playing", loaded) == ["[", "sep", "]", "play", "##ing"]


def test_the_hash_tells_case_and_pieces_apart() -> None:
    cased = Tokenizer.from_tokens(VOCABULARY, lowercase=False)
    longer = Tokenizer.from_tokens([*VOCABULARY, "more"], lowercase=True)
    assert len({UNCASED.hash, cased.hash, longer.hash}) == 3


def test_padding_truncation_and_template_of_a_published_file_are_ignored(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(UNCASED.files()["tokenizer.json"].decode())
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    assert pieces_of("the the the the the the", tokenizer) == ["the"] * 6
    assert len(tokenizer.encode_ids(["the"])[0][0]) == 1


def test_settings_of_a_bert_folder_overrule_its_json_as_in_transformers(tmp_path: Path) -> None:
    files = UNCASED.files()
    cased = {**json.loads(files["tokenizer_config.json"]), "do_lower_case": False}
    write_files(tmp_path, {**files, "tokenizer_config.json": json.dumps(cased).encode()})
    assert pieces_of("The the", Tokenizer.load(tmp_path)) == ["[UNK]", "the"]
    write_files(tmp_path, UNCASED.files("modernbert"))
    assert pieces_of("The the", Tokenizer.load(tmp_path)) == ["the", "the"]


def test_special_tokens_that_a_file_holds_as_ordinary_pieces_are_still_recognised() -> None:
    backend = tokenizers.Tokenizer(
        models.WordPiece(dict(zip(VOCABULARY, range(1000), strict=False)), unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert pieces_of("the [MASK]", Tokenizer(backend), specials=True) == ["the", "[MASK]"]


def test_a_byte_level_tokenizer_of_a_published_modernbert_works(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the play the player played"] * 9, trainer)
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path)
    ids, word_starts = tokenizer.encode_ids(["the player, [SEP]"])[0]
    assert tokenizer.sep_id not in ids
    assert word_starts.sum() == 6  # the, player, comma, opening bracket, SEP, closing bracket
    assert set(tokenizer.files("modernbert")) == {"tokenizer.json", "tokenizer_config.json"}


def test_a_tokenizer_can_be_sent_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(UNCASED))
    assert copy.hash == UNCASED.hash
    assert pieces_of("playing [SEP]", copy) == pieces_of("playing [SEP]")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"vocab\.txt: the file is empty"),
        (b"[PAD]\n[UNK]\n[CLS]\n[MASK]\nthe\n", r"vocab\.txt: the vocabulary has no \[SEP\]; add it"),
        (b"the\nplay\n", r"no \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]; add them"),
        (b"[PAD]\nthe\nplay\nthe\n", r"vocab\.txt:4: piece 'the' is already on line 2"),
        (b"[PAD]\n\nthe\n", r"vocab\.txt:2: empty line"),
        (b"[PAD]\nthe\n\xff\n", r"vocab\.txt:3: not valid UTF-8"),
    ],
)
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        Tokenizer.load(tmp_path / "vocab.txt")


def test_a_missing_path_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file or folder"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"neither tokenizer\.json nor vocab\.txt"):
        Tokenizer.load(tmp_path)


def test_a_damaged_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(UNCASED.files()["tokenizer.json"][:-100])
    with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    write_vocabulary(tmp_path / "vocab.txt", VOCABULARY)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true,\n}')
    with pytest.raises(BundleError, match=r"tokenizer_config\.json:2: not valid JSON"):
        Tokenizer.load(tmp_path)


def test_ids_with_holes_are_refused() -> None:
    vocabulary = {token: 2 * number for number, token in enumerate(VOCABULARY)}
    with pytest.raises(BundleError, match="not consecutive"):
        Tokenizer(tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")))
