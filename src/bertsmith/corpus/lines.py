"""Bytes to lines: decompression by suffix, UTF-8 with repairs counted, and memory bounded whatever the file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bertsmith.core.errors import DataError
from bertsmith.core.extras import install_command, present
from bertsmith.corpus.document import Tally

COMPRESSED = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
"""Suffixes read as they come, with the command that writes the plain text."""

_CHUNK = 1 << 18
_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)


class Line(NamedTuple):
    """A line without its newline; `whole` is False when it is only a piece and the line goes on in the next item."""

    number: int
    text: str
    whole: bool


def read_lines(path: Path, tally: Tally) -> Iterator[Line]:
    """The lines of a possibly compressed text file; a line longer than 256 KB comes in pieces.

    Invalid UTF-8 becomes U+FFFD and is counted as `invalid_utf8`, once a line. A byte order mark is removed. LF, CRLF
    and CR end lines.

    Raises:
        DataError: the file is binary, in another encoding, cut off or damaged; the lines before that were yielded.
    """
    number, rest, first = 1, b"", True
    for chunk in _read_chunks(path):
        rest += chunk
        if first:
            if len(rest) < 4:
                continue
            _check_text(path, rest[:_CHUNK])
            rest, first = rest.removeprefix(b"\xef\xbb\xbf"), False
        # CR before the end may be half of a CRLF, so it waits.
        end = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, len(rest) - 1)) + 1
        if end:
            block, rest = rest[:end], rest[end:]
            lines = _decode(block, path, number, tally).split("\n")
            for text in lines[:-1]:
                yield Line(number, text, True)
                number += 1
        while len(rest) >= _CHUNK + 4:
            cut = _CHUNK
            while rest[cut] & 0xC0 == 0x80 and cut > _CHUNK - 4:
                cut -= 1
            yield Line(number, _decode(rest[:cut], path, number, tally), False)
            rest = rest[cut:]
    if first and rest:
        _check_text(path, rest)
        rest = rest.removeprefix(b"\xef\xbb\xbf")
    if rest:
        for text in _decode(rest, path, number, tally).removesuffix("\n").split("\n"):
            yield Line(number, text, True)
            number += 1


def _decode(block: bytes, path: Path, number: int, tally: Tally) -> str:
    """Text of a block that starts at line `number`, with every line end made a newline."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return block.decode()
    except UnicodeDecodeError:
        for offset, line in enumerate(block.split(b"\n")):
            try:
                line.decode()
            except UnicodeDecodeError:
                tally.add("invalid_utf8", f"{path}:{number + offset}")
        return block.decode(errors="replace")


def _check_text(path: Path, head: bytes) -> None:
    """Refuse what is no UTF-8 text, judging by the file's beginning."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: is UTF-16, not UTF-8; convert it with: iconv -f UTF-16 -t UTF-8 '{path}'")
    if b"\0" in head:
        raise DataError(
            f"{path}: is binary, not text (a NUL byte at position {head.index(0)}); leave it out of the input"
        )
    damage = head.decode(errors="replace").count("\ufffd") - head.count(b"\xef\xbf\xbd")
    if damage > 3 and damage * 20 > len(head):
        try:
            head[: len(head) - 4].decode("gb18030")
        except UnicodeDecodeError:
            advice = "if it is text in another encoding convert it with iconv, else leave it out of the input"
        else:
            advice = f"it may be GB18030, then convert it with: iconv -f GB18030 -t UTF-8 '{path}'"
        raise DataError(
            f"{path}: is not UTF-8 text: {damage:,} of the first {len(head):,} bytes cannot be decoded; {advice}"
        )


def _read_chunks(path: Path) -> Iterator[bytes]:
    """Decompressed bytes, at most about 256 KB at a time."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    suffix = path.suffix.lower()
    with raw:
        done = 0
        try:
            for chunk in _decompressed(raw, suffix):
                done += len(chunk)
                yield chunk
        except _BROKEN as error:
            if suffix not in COMPRESSED:
                raise DataError(f"{path}: cannot be read after byte {done:,}: {error}") from error
            state = "is cut off" if isinstance(error, EOFError) else f"is damaged ({error})"
            plain = path.with_suffix("")
            rescued = plain.with_stem(f"{plain.stem}-readable").name
            raise DataError(
                f"{path}: {state} at byte {raw.tell():,} of {path.stat().st_size:,}, after {done:,} bytes of text; "
                f"copy or download it again, or use what is readable: {COMPRESSED[suffix]} '{path}' > '{rescued}'"
            ) from error


def _decompressed(raw: BinaryIO, suffix: str) -> Iterator[bytes]:
    if suffix == ".zst":
        yield from _zstandard(raw)
    elif suffix in _OPENERS:
        with _OPENERS[suffix](raw) as stream:
            # read1, because read would throw away what came before a break.
            while chunk := stream.read1(_CHUNK):
                yield chunk
    else:
        while chunk := raw.read(_CHUNK):
            yield chunk


def _zstandard(raw: BinaryIO) -> Iterator[bytes]:
    if not present("zstandard"):
        raise DataError(f"{raw.name}: .zst files need the package zstandard: {install_command('fast')}")
    import zstandard

    # Small bites bound the memory, for decompressobj has no limit of its own;
    # stream_reader has, but does not tell when a file is cut off.
    frame = None
    pending = raw.read(1 << 12)
    while pending:
        frame = frame or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
        try:
            text = frame.decompress(pending)
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        for begin in range(0, len(text), _CHUNK):
            yield text[begin : begin + _CHUNK]
        pending = frame.unused_data if frame.eof else b""
        if frame.eof:
            frame = None
        pending = pending or raw.read(1 << 12)
    if frame is not None:
        raise EOFError
