"""Decompression and decoding: damage is named, nothing before it is lost, memory stays bounded."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus import source
from bertsmith.corpus.document import Tally
from bertsmith.corpus.lines import read_lines


def _zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(data))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": _zstd,
}
TEXT = "".join(f"Line {number} 中文 {number * 7919 % 10007}.\n" for number in range(40_000)).encode()


def _texts(path: Path, tally: Tally | None = None) -> list[str]:
    return [line.text for line in read_lines(path, tally or Tally())]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_of_one_or_several_streams(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    half = len(TEXT) // 2
    path.write_bytes(COMPRESS[suffix](TEXT[:half]) + COMPRESS[suffix](TEXT[half:]))
    assert _texts(path) == TEXT.decode().splitlines()


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_file_cut_off_gives_what_is_readable_then_an_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    whole = COMPRESS[suffix](TEXT)
    path.write_bytes(whole[: len(whole) * 3 // 4])
    found: list[str] = []
    with pytest.raises(
        DataError, match=rf"a\.txt\{suffix}: is cut off at byte [\d,]+ of .*copy or download it again.*-dc"
    ):
        found.extend(line.text for line in read_lines(path, Tally()))
    # An iterator that fails inside extend has delivered all items before.
    expected = TEXT.decode().splitlines()
    assert found == expected[: len(found)]
    if suffix != ".bz2":  # bzip2 blocks of 900 KB are readable whole or not at all
        assert len(found) > len(expected) // 2


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_damaged_file_names_the_place(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    whole = bytearray(COMPRESS[suffix](TEXT))
    whole[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"(is damaged|is cut off).* at byte"):
        _texts(path)


def test_a_compressed_suffix_on_plain_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_text("plain")
    with pytest.raises(DataError, match="is damaged"):
        _texts(path)


def test_zst_without_zstandard_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(b"x")
    monkeypatch.setattr(source, "present", lambda _: False)
    with pytest.raises(DataError, match=r"a\.txt\.zst.*zstandard.*bertsmith\[fast\]"):
        _texts(path)


def test_invalid_utf8_is_replaced_counted_and_placed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n" * 9 + b"b\xffad \xfe\n" + b"fine\n" * 9 + b"caf\xe9")
    tally = Tally()
    found = _texts(path, tally)
    assert (found[9], found[-1]) == ("b\ufffdad \ufffd", "caf\ufffd")
    assert tally.counts == {"invalid_utf8": 2}
    assert tally.first == {"invalid_utf8": f"{path}:10"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7fELF\x02\x01\x00\x00" * 50, "is binary, not text.*position 6"),
        (bytes(range(1, 256)) * 20, "is not UTF-8 text, nor GB18030 or Big5: .* cannot be decoded.*iconv"),
        ("Él está aquí, señor; ¿qué pasó?".encode("cp1252") * 20, "is not UTF-8 text, nor GB18030 or Big5"),
        ("Hello".encode("utf-16-le"), "is binary, not text.*position 1"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        _texts(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_byte_order_mark_and_line_ends(tmp_path: Path, end: str, last: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(("\ufeffone" + end + end + "two" + (end if last else "")).encode())
    assert list(read_lines(path, Tally())) == [(1, "one", True), (2, "", True), (3, "two", True)]


@pytest.mark.parametrize("size", [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1_000_003])
def test_line_ends_and_characters_across_chunks(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * (size - 4) + "中\r\n二\r\n".encode())
    pieces = list(read_lines(path, Tally()))
    assert "".join(line.text for line in pieces if line.number == 1) == "x" * (size - 4) + "中"
    assert pieces[-1] == (2, "二", True)
    assert [line.whole for line in pieces[:-1]] == [False] * (len(pieces) - 2) + [True]


def test_files_of_a_few_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for data, found in ((b"", []), (b"\n", [""]), (b"a", ["a"]), (b"\xef\xbb\xbf", []), (b"a\nb", ["a", "b"])):
        path.write_bytes(data)
        assert _texts(path) == found
