"""Encodings: recognised with a confidence that is said, and wrong bytes placed, whatever the chunks."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from bertsmith.corpus import encodings
from bertsmith.corpus.document import Tally
from bertsmith.corpus.encodings import UTF8, guess
from bertsmith.corpus.lines import read_lines

SIMPLIFIED = "潮水在中午以前涨了起来，淹没了码头下面的台阶。没有人把这个变化告诉渔民，所以三条船还系在墙边。\n"
TRADITIONAL = "潮水在中午以前漲了起來，淹沒了碼頭下面的台階。沒有人把這個變化告訴漁民，所以三條船還繫在牆邊。\n"


def _texts(path: Path, tally: Tally) -> str:
    return "".join(line.text + "\n" * line.whole for line in read_lines(path, tally))


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        ("gb18030", "read_as_gb18030"),
        ("gbk", "read_as_gb18030"),
        ("utf-16", "read_as_utf16"),
        ("utf-32", "read_as_utf32"),
    ],
)
def test_simplified_chinese(tmp_path: Path, codec: str, reason: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((SIMPLIFIED * 9000).encode(codec))
    tally = Tally()
    assert _texts(path, tally) == SIMPLIFIED * 9000
    assert tally.counts == {reason: 1}
    assert tally.first[reason].startswith(f"{path}, confidence ")


@pytest.mark.parametrize("codec", ["big5", "cp950", "gbk", "utf-16"])
def test_traditional_chinese(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.txt"
    text = TRADITIONAL.replace("台", "臺") * 40
    path.write_bytes(text.encode(codec))
    tally = Tally()
    assert _texts(path, tally) == text
    assert list(tally.counts) == [
        {"cp950": "read_as_big5", "gbk": "read_as_gb18030", "utf-16": "read_as_utf16"}.get(codec, "read_as_big5")
    ]


@pytest.mark.parametrize("codec", ["gb18030", "big5"])
def test_one_short_sentence(codec: str) -> None:
    found = guess("我們在這裡。".encode(codec))
    assert found is not None
    assert (found.label, found.confidence > 0.9) == (codec, True)


def test_a_few_chinese_words_in_much_english() -> None:
    text = "The file says so in English, and then it adds: " * 20 + "他说这是不对的，我们都知道。"
    found = guess(text.encode("gbk"))
    assert found is not None
    assert found.label == "gb18030"


@pytest.mark.parametrize(
    "data",
    [
        b"plain",
        "潮水".encode(),
        ("潮水" * 99).encode()[:-1],
        b"caf\xe9, na\xefve",
        b"",
    ],
)
def test_utf8_stays_utf8(data: bytes) -> None:
    assert guess(data) is UTF8


@pytest.mark.parametrize("codec", ["cp1252", "shift_jis", "euc-kr", "koi8-r"])
def test_other_encodings_are_not_taken_for_chinese(codec: str) -> None:
    text = {
        "cp1252": "Él está aquí, señor; ¿qué pasó? Où êtes-vous allés hier après-midi?",
        "shift_jis": "潮は正午の前に満ちて、港の下の段を覆った。誰も漁師に知らせなかった。",
        "euc-kr": "정오 전에 밀물이 들어와 항구의 아래 계단을 덮었다. 아무도 어부에게 알리지 않았다.",
        "koi8-r": "Прилив поднялся до полудня и накрыл нижние ступени гавани.",
    }[codec]
    assert guess(text.encode(codec) * 5) is None


def test_wrong_bytes_in_another_encoding_are_placed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    line = SIMPLIFIED.encode("gb18030")
    # The damage lies behind the sample by which the encoding is judged.
    path.write_bytes(line * 4000 + b"ab\xff\xffcd\n" + line)
    tally = Tally()
    found = _texts(path, tally).split("\n")
    assert (found[4000], found[4001]) == ("ab\ufffd\ufffdcd", SIMPLIFIED.strip())
    assert tally.counts == {"read_as_gb18030": 1, "invalid_gb18030": 1}
    assert tally.first["invalid_gb18030"] == f"{path}:4001"
    assert tally.files["invalid_gb18030"] == {str(path): 1}


def test_a_wrong_byte_does_not_hide_an_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("潮水".encode("gb18030") + b"\xff\n" + SIMPLIFIED.encode("gb18030") * 200)
    tally = Tally()
    assert _texts(path, tally) == "潮水\ufffd\n" + SIMPLIFIED * 200
    assert tally.counts == {"read_as_gb18030": 1, "invalid_gb18030": 1}


@pytest.mark.parametrize("lines", [1_000, 3_000, 20_000])
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_plain_text_before_it_does_not_hide_an_encoding(tmp_path: Path, lines: int, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    text = "The tide rose before noon.\n" * lines + SIMPLIFIED * 100
    data = text.encode("gb18030")
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix](data))
    tally = Tally()
    assert _texts(path, tally) == text
    assert tally.counts == {"read_as_gb18030": 1}


def test_half_a_character_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("word".encode("utf-16") + b"x")
    tally = Tally()
    assert _texts(path, tally) == "word\ufffd\n"
    assert tally.counts == {"read_as_utf16": 1, "invalid_utf16": 1}


def test_nul_bytes_behind_the_beginning_are_removed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good line\n" * 30_000 + b"b\0a\0d\n")
    tally = Tally()
    assert _texts(path, tally).endswith("line\nbad\n")
    assert tally.counts == {"nul_bytes": 2}
    assert tally.first == {"nul_bytes": f"{path}:30001"}


def test_a_single_nul_byte_makes_no_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"b\0ad\n" + b"good line\n" * 300)
    tally = Tally()
    assert _texts(path, tally).startswith("bad\ngood")
    assert tally.counts == {"nul_bytes": 1}


def test_chunks_cut_anywhere() -> None:
    data = SIMPLIFIED.encode("gb18030")
    for size in (1, 2, 3, 7):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        assert b"".join(encodings.transcoded(chunks, "gb18030")).decode() == SIMPLIFIED
