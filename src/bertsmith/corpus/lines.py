"""Bytes to lines: decoded with repairs counted, and memory bounded whatever the file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.encodings import UTF8, Guess, damage, guess, transcoded
from bertsmith.corpus.source import CHUNK, COMPRESSED, Source, file_source

__all__ = ["COMPRESSED", "Line", "read_lines"]


_ZEROS = 1000
"""Among so many bytes at the beginning of a text there is at most one NUL."""


class Line(NamedTuple):
    """A line without its newline; `whole` is False when it is only a piece and the line goes on in the next item."""

    number: int
    text: str
    whole: bool


def read_lines(source: Source | Path, tally: Tally) -> Iterator[Line]:
    """The lines of a possibly compressed text file; a line longer than 256 KB comes in pieces.

    UTF-16 with a mark, GB18030 and Big5 are recognised by the first 256 KB that are not plain ASCII, and counted as
    `read_as_utf16` and so on; see `encodings.guess`. What is invalid becomes U+FFFD and is counted as `invalid_utf8`,
    once a line; NUL bytes are removed and counted as `nul_bytes`. A byte order mark is removed. LF, CRLF and CR end
    lines.

    Args:
        source: the file, or where else the bytes come from.
        tally: counts what was mended.

    Raises:
        DataError: the file is binary, in an unknown encoding, cut off or damaged; the lines before that were yielded.
    """
    source = file_source(source) if isinstance(source, Path) else source
    name = source.name
    encoding = UTF8

    def unicode(chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks in UTF-8; the first one that is not plain ASCII tells what encoding all are in."""
        nonlocal encoding
        for number, chunk in enumerate(chunks):
            if number == 0 or not chunk.isascii():
                encoding = _encoding(name, chunk[:CHUNK], tally, begins=number == 0)
            if encoding is not UTF8:
                yield from transcoded(chain([chunk], chunks), encoding.codec)
                return
            yield chunk
            if not chunk.isascii():
                yield from chunks

    chunks = source.chunks(tally) if source.part else unicode(_joined(source.chunks(tally)))
    mark = b"\xef\xbb\xbf" if source.part is None or source.part[0] == 0 else b""
    number, rest = 1 + source.lines_before(), b""
    for chunk in chunks:
        rest += chunk.removeprefix(mark)
        mark = b""
        # CR before the end may be half of a CRLF, so it waits.
        end = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, len(rest) - 1)) + 1
        if end:
            block, rest = rest[:end], rest[end:]
            for text in _decode(block, number, name, encoding, tally).split("\n")[:-1]:
                yield Line(number, text, True)
                number += 1
        while len(rest) >= CHUNK + 4:
            cut = CHUNK
            while rest[cut] & 0xC0 == 0x80 and cut > CHUNK - 4:
                cut -= 1
            yield Line(number, _decode(rest[:cut], number, name, encoding, tally), False)
            rest = rest[cut:]
    if rest:
        for text in _decode(rest, number, name, encoding, tally).removesuffix("\n").split("\n"):
            yield Line(number, text, True)
            number += 1


def has_plain_lines(source: Source) -> bool:
    """Whether a file that is not compressed begins like UTF-8 text with newlines.

    Args:
        source: a file of its own.

    Raises:
        DataError: it cannot be opened.
    """
    head = next(source.chunks(Tally()), b"")
    return guess(head) is UTF8 and b"\0" not in head and b"\n" in head


def _joined(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Small chunks put together, so that the first one has enough to tell the encoding by."""
    held: list[bytes] = []
    try:
        for chunk in chunks:
            held.append(chunk)
            if sum(map(len, held)) >= CHUNK:
                yield b"".join(held)
                held.clear()
    except DataError:
        if held:
            yield b"".join(held)  # what came before the damage
        raise
    if held:
        yield b"".join(held)


def _decode(block: bytes, number: int, name: str, encoding: Guess, tally: Tally) -> str:
    """Text of a block that starts at line `number`, with every line end made a newline."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\0" in block:
        for offset, line in enumerate(block.split(b"\n")):
            if b"\0" in line:
                tally.add("nul_bytes", f"{name}:{number + offset}", line.count(b"\0"))
        block = block.replace(b"\0", b"")
    try:
        return block.decode()
    except UnicodeDecodeError:
        for offset, line in enumerate(block.split(b"\n")):
            try:
                line.decode()
            except UnicodeDecodeError:
                tally.add(f"invalid_{encoding.label}", f"{name}:{number + offset}")
        return block.decode(errors="replace")


def _encoding(name: str, head: bytes, tally: Tally, *, begins: bool) -> Guess:
    """How to read a file that begins or goes on with `head`; refuses what is no text, and says what is not UTF-8."""
    found = guess(head)
    zeros = head.count(0) if begins and (found is None or found is UTF8) else 0
    if zeros * _ZEROS > len(head):
        raise DataError(
            f"{name}: is binary, not text (a NUL byte at position {head.index(0)}); leave it out of the input"
        )
    if found is None:
        invalid = damage(head)
        if invalid * 20 > len(head):
            raise DataError(
                f"{name}: is not UTF-8 text, nor GB18030 or Big5: {invalid:,} of the first {len(head):,} bytes cannot "
                "be decoded; if it is text in another encoding convert it with iconv, else leave it out of the input"
            )
        return UTF8
    if found is not UTF8:
        tally.add(f"read_as_{found.label}", f"{name}, confidence {found.confidence:.1%}")
    return found
