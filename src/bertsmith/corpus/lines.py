"""Bytes to lines: decoded with repairs counted, and memory bounded whatever the file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.encodings import UTF8, Guess, damage, guess, transcoded
from bertsmith.corpus.source import CHUNK, COMPRESSED, Source, file_source

__all__ = ["COMPRESSED", "Line", "read_lines"]


class Line(NamedTuple):
    """A line without its newline; `whole` is False when it is only a piece and the line goes on in the next item."""

    number: int
    text: str
    whole: bool


def read_lines(source: Source | Path, tally: Tally) -> Iterator[Line]:
    """The lines of a possibly compressed text file; a line longer than 256 KB comes in pieces.

    UTF-16 with a mark, GB18030 and Big5 are recognised and counted as `read_as_utf16` and so on; see `encodings.guess`.
    What is invalid becomes U+FFFD and is counted as `invalid_utf8`, once a line; NUL bytes are removed and counted as
    `nul_bytes`. A byte order mark is removed. LF, CRLF and CR end lines.

    Args:
        source: the file, or where else the bytes come from.
        tally: counts what was mended.

    Raises:
        DataError: the file is binary, in an unknown encoding, cut off or damaged; the lines before that were yielded.
    """
    source = file_source(source) if isinstance(source, Path) else source
    name = source.name
    chunks = source.chunks(tally)
    number, rest = 1 + source.lines_before(), b""
    while len(rest) < 4 and (chunk := next(chunks, None)) is not None:
        rest += chunk
    encoding = _encoding(name, rest[:CHUNK], tally) if source.part is None else UTF8
    decode = partial(_decode, name=name, reason=f"invalid_{encoding.label}", tally=tally)
    if source.part is None or source.part[0] == 0:
        rest = rest.removeprefix(b"\xef\xbb\xbf")
    chunks = chain([rest], chunks)
    if encoding is not UTF8:
        chunks = transcoded(chunks, encoding.codec)
    rest = b""
    for chunk in chunks:
        rest += chunk
        # CR before the end may be half of a CRLF, so it waits.
        end = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, len(rest) - 1)) + 1
        if end:
            block, rest = rest[:end], rest[end:]
            for text in decode(block, number).split("\n")[:-1]:
                yield Line(number, text, True)
                number += 1
        while len(rest) >= CHUNK + 4:
            cut = CHUNK
            while rest[cut] & 0xC0 == 0x80 and cut > CHUNK - 4:
                cut -= 1
            yield Line(number, decode(rest[:cut], number), False)
            rest = rest[cut:]
    if rest:
        for text in decode(rest, number).removesuffix("\n").split("\n"):
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


def _decode(block: bytes, number: int, name: str, reason: str, tally: Tally) -> str:
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
                tally.add(reason, f"{name}:{number + offset}")
        return block.decode(errors="replace")


def _encoding(name: str, head: bytes, tally: Tally) -> Guess:
    """How to read a file that begins with `head`; refuses what is no text, and says what is not UTF-8."""
    found = guess(head)
    if (found is None or found is UTF8) and b"\0" in head:
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
