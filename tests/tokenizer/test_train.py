from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.train import VocabConfig, script, train_wordpiece, unk_report

ENGLISH = ["the cat sat on the mat.", "the dogs sat on the cats, playing!", "Playing dogs and cats play on."] * 20
CHINESE = ["我爱北京天安门。", "北京是中国的首都，我爱北京。", "龘"] * 3


def train(texts: list[str], **settings: object) -> tuple[Tokenizer, list[str]]:
    said: list[str] = []
    return train_wordpiece(iter(texts), VocabConfig.model_validate(settings), say=said.append), said


def test_the_vocabulary_has_special_tokens_alphabet_and_frequent_pieces() -> None:
    tokenizer, said = train(ENGLISH, size=90)
    assert tuple(tokenizer.tokens[:5]) == SPECIAL_TOKENS
    assert tokenizer.vocab_size <= 90
    assert {"c", "##c" if "##c" in tokenizer.tokens else "##a", "cat", "the", "playing"} <= set(tokenizer.tokens)
    assert tokenizer.decode(tokenizer.encode_ids(["The cats playing"])[0][0]) == "the cats playing"
    assert all("sample" not in line for line in said)


def test_a_text_that_supports_fewer_pieces_says_so() -> None:
    tokenizer, said = train(ENGLISH, size=5000)
    assert tokenizer.vocab_size < 5000
    assert said == [
        f"vocabulary: the text supports only {tokenizer.vocab_size} of the 5,000 pieces asked for; all are kept"
    ]


def test_every_han_character_is_its_own_piece_and_never_a_continuation() -> None:
    tokenizer, _ = train(CHINESE, size=100)
    assert set("我爱北京天安门是中国的首都龘，。") <= set(tokenizer.tokens)
    assert not [token for token in tokenizer.tokens if len(token) > 1 and token not in SPECIAL_TOKENS]


def test_characters_too_rare_are_no_pieces() -> None:
    tokenizer, _ = train([*ENGLISH, "catЖ 龘"], size=90)
    assert not {"ж", "##ж", "龘"} & set(tokenizer.tokens)
    assert {"龘", "##ж"} <= set(train([*ENGLISH, "catЖ 龘"], size=90, min_frequency=1)[0].tokens)


def test_case_and_accents_follow_the_config() -> None:
    texts = ["École École élan"] * 5
    assert {"e", "ecole"} <= set(train(texts, size=60)[0].tokens)
    assert {"é", "école"} <= set(train(texts, size=60, strip_accents=False)[0].tokens)
    assert {"É", "École"} <= set(train(texts, size=60, lowercase=False)[0].tokens)
    tokenizer, _ = train(texts, size=60, lowercase=False)
    assert tokenizer.decode(tokenizer.encode_ids(["École"])[0][0]) == "École"


def test_rare_characters_give_way_when_the_alphabet_is_too_large_and_it_is_said() -> None:
    rare = [chr(0x4E00 + number) * 2 for number in range(40)]
    tokenizer, said = train([*["常用的字" * 1000], *rare], size=29)
    assert set("常用的字") <= set(tokenizer.tokens)
    assert tokenizer.vocab_size == 29
    assert said[0].startswith(
        "vocabulary: 20 rare characters do not fit 29 pieces and become [UNK] (0.98% of the text)"
    )
    assert "49 pieces would hold them all" in said[0]


def test_a_size_that_leaves_much_unknown_is_refused_with_the_size_to_ask_for() -> None:
    with pytest.raises(
        ConfigError, match=r"size=20: .* different characters.* ask for at least (\d+) pieces"
    ) as refused:
        train(CHINESE, size=20)
    wanted = int(str(refused.value).split("at least ")[1].split()[0])
    assert train(CHINESE, size=wanted)[0].vocab_size == wanted


@pytest.mark.parametrize("texts", [[], [""], ["  \n\t\x00"]])
def test_no_text_is_refused(texts: list[str]) -> None:
    with pytest.raises(DataError, match="no text to train a vocabulary on"):
        train(texts)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="no character occurs 9 times"):
        train(["few words"], min_frequency=9)


def test_a_lone_surrogate_does_not_stop_training() -> None:
    assert "cat" in train([*ENGLISH, "\ud800 cat"], size=90)[0].tokens


def test_a_cap_on_the_text_draws_from_all_of_it() -> None:
    texts = [f"{letter * 3} " * 100 for letter in "abcdefghijklmnopqrstuvwxyz" for _ in range(10)]
    (first, said), (second, _) = (train(texts, size=200, sample_bytes=20_000) for _ in range(2))
    assert first.tokens == second.tokens
    assert said[0].startswith("vocabulary: trained on a sample of 20,000 bytes out of 0.1 MB of text")
    letters = [token for token in first.tokens if len(token) == 1]
    assert len(letters) > 20
    assert {"a", "z"} <= set(letters) | {"b", "y"}


def test_one_text_longer_than_the_cap_is_cut() -> None:
    tokenizer, _ = train(["ab " * 100 + "cd " * 100], size=50, sample_bytes=300)
    assert "a" in tokenizer.tokens
    assert "c" not in tokenizer.tokens


def test_texts_are_read_once_and_lazily() -> None:
    read = 0

    def stream() -> Iterator[str]:
        nonlocal read
        for text in ENGLISH:
            read += 1
            yield text

    train_wordpiece(stream(), VocabConfig(size=60), say=lambda line: None)
    assert read == len(ENGLISH)


PROGRAM = """
import random
from bertsmith.tokenizer.train import VocabConfig, train_wordpiece
draw = random.Random(0)
words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyzéß北京", k=draw.randint(1, 9))) for _ in range(3000)]
texts = [" ".join(draw.choices(words, k=12)) for _ in range(1500)]
print(train_wordpiece(texts, VocabConfig(size=1500), say=print).hash)
"""


def test_the_vocabulary_is_the_same_in_every_process_and_with_any_number_of_threads() -> None:
    # 1,500 merges of random words are full of ties, which hash order would break differently in each process.
    hashes = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path), "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed},
        ).stdout
        for threads, seed in (("1", "1"), ("2", "2"), ("4", "3"))
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        (character, name)
        for name, characters in {
            "latin": "aßéＡ",
            "han": "中𠀀豈",
            "kana": "あカｶ",
            "hangul": "한",
            "cyrillic": "ж",
            "arabic": "ع",
            "digits": "7٣",
            "other": ",👍ת",
        }.items()
        for character in characters
    ],
)
def test_scripts(character: str, expected: str) -> None:
    assert script(character) == expected


def test_unknown_words_are_reported_by_script() -> None:
    tokenizer, _ = train([*ENGLISH, *CHINESE], size=120)
    report = unk_report(tokenizer, ["the cat, Жук 我爱吃", "한국 the"])
    assert report == {"latin": (3, 0), "han": (3, 1), "cyrillic": (1, 1), "hangul": (1, 1), "other": (1, 0)}
    assert list(report)[:2] == ["han", "latin"]


def test_size_reads_like_people_write_it() -> None:
    assert VocabConfig.model_validate({"size": "8k", "sample_bytes": "50M"}).size == 8000


def test_order_of_texts_does_not_change_the_vocabulary_when_all_are_read() -> None:
    shuffled = random.Random(0).sample(ENGLISH, len(ENGLISH))
    assert train(ENGLISH, size=90)[0].tokens == train(shuffled, size=90)[0].tokens


def test_long_texts_are_not_encoded_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, _ = train(ENGLISH, size=90)
    sizes: list[int] = []
    real = type(tokenizer).encode

    def noted(self: Tokenizer, texts: Sequence[str]) -> object:
        sizes.append(sum(map(len, texts)))
        return real(self, texts)

    monkeypatch.setattr(type(tokenizer), "encode", noted)
    unk_report(tokenizer, ["the cat sat " * 50_000] * 5)
    assert len(sizes) == 3
    assert max(sizes) <= 2 * 600_000


def test_words_that_become_unknown_teach_nothing_and_cost_no_time() -> None:
    """One line of 5 MB without a space; training takes time with the square of a word's length."""
    longest, longer = "xy" * 50, "qz" * 50 + "q"
    texts = [*ENGLISH, "x" * 5_000_000, f"{longest} {longer}.ab", f"{longest} {longer}-ab", "─" * 200 + "，ab"]
    learnt = train(texts, size=400)[0].tokens
    assert {"ab", "cat"} <= set(learnt)
    assert any("xyxy" in token for token in learnt)
    assert not any("qz" in token for token in learnt)


def test_a_rare_character_between_wide_punctuation_is_no_piece_either() -> None:
    tokens = train([*ENGLISH, "cat，" * 40 + "caƣt，" + "cat，" * 40], size=90)[0].tokens
    assert "cat" in tokens
    assert not any("ƣ" in token for token in tokens)
