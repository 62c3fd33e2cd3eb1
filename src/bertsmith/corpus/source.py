"""A Source: bytes with a name, whether they lie in a file or come from elsewhere; decompressed by suffix."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from bertsmith.core.errors import DataError
from bertsmith.core.extras import install_command, present
from bertsmith.corpus.document import Tally

COMPRESSED = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
"""Suffixes read as they come, with the command that writes the plain text."""

CHUNK = 1 << 18
"""Bytes; how much is held at a time."""

_SHORT = {".tgz": (".tar", ".gz"), ".tbz2": (".tar", ".bz2"), ".txz": (".tar", ".xz")}
_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of some documents come from.

    Attributes:
        name: what messages and identifiers call it; its suffixes tell the format and the compression.
        open: gives the bytes as they are stored, from the beginning.
        path: the file, where these bytes are a file of their own.
        columns: what the user named: the column of the text, then the column of the title.
        size: bytes as they are stored, where something other than a file of one's own says so; else 0.
        version: changes when these bytes do, where their store tells.
        part: only the lines that begin from one byte up to another; of a file of its own that is not compressed.
    """

    name: str
    open: Callable[[], BinaryIO]
    path: Path | None = None
    columns: tuple[str, ...] = ()
    size: int = 0
    version: str = ""
    part: tuple[int, int] | None = None

    @property
    def compression(self) -> str:
        """One of the suffixes in `COMPRESSED`, or nothing."""
        return _suffixes(self.name)[1]

    @property
    def kind(self) -> str:
        """The suffix that tells the format, below a compression suffix: `.csv` for `a.csv.gz`."""
        return _suffixes(self.name)[0]

    def chunks(self, tally: Tally) -> Iterator[bytes]:
        """The decompressed bytes, at most about 256 KB at a time.

        A file is read up to the size that it has when it is opened; if it has changed meanwhile, that is counted in
        `tally` as `file_changed_while_read`.

        Raises:
            DataError: it cannot be opened, is cut off or damaged; what came before was yielded.
        """
        with self._opened() as raw:
            before = _state(raw)
            done = 0
            if self.part is None:
                stored = _decompressed(raw, self.compression, before[0])
            else:
                stored = _lines(raw, self.part, before[0] or 0)
            try:
                for chunk in stored:
                    done += len(chunk)
                    yield chunk
            except _BROKEN as error:
                raise DataError(self._damage(error, raw, done, before[0])) from error
            if _state(raw) != before:
                tally.add("file_changed_while_read", self.name)

    @contextmanager
    def sought(self, tally: Tally, limit: int) -> Iterator[BinaryIO]:
        """The decompressed bytes as a file that can be sought in, copied to a temporary one where need be.

        Args:
            tally: as for `chunks`.
            limit: bytes; the most that is copied.

        Raises:
            DataError: it cannot be read, or is larger than `limit`.
        """
        if not self.compression:
            with self._opened() as raw:
                if raw.seekable():
                    yield raw
                    return
        with _room_for_a_copy(self.name), tempfile.TemporaryFile(prefix="bertsmith-") as copy:
            for chunk in self.chunks(tally):
                copy.write(chunk)
                if copy.tell() > limit:
                    raise DataError(f"{self.name}: unpacks to more than {limit >> 20:,} MB; unpack it into a file")
            copy.seek(0)
            yield cast(BinaryIO, copy)

    def whole(self, tally: Tally, limit: int) -> bytes | None:
        """All decompressed bytes, for formats that have no beginning without an end; None if more than `limit`.

        `tally` is as for `chunks`.
        """
        pieces: list[bytes] = []
        size = 0
        for chunk in self.chunks(tally):
            pieces.append(chunk)
            size += len(chunk)
            if size > limit:
                return None
        return b"".join(pieces)

    def _opened(self) -> BinaryIO:
        try:
            return self.open()
        except FileNotFoundError as error:
            raise DataError(f"{self.name}: is no longer there; it was when the inputs were listed") from error
        except OSError as error:
            raise DataError(
                f"{self.name}: cannot be read: {error.strerror}; check its permissions"
                if error.strerror
                else f"{self.name}: {error}"
            ) from error

    def _damage(self, error: BaseException, raw: BinaryIO, done: int, size: int | None) -> str:
        if not self.compression:
            return f"{self.name}: cannot be read after byte {done:,}: {error}"
        state = "is cut off" if isinstance(error, EOFError) else f"is damaged ({error})"
        place = f"byte {raw.tell():,}" + (f" of {size:,}" if size else "")
        advice = "copy or download it again"
        if self.path:
            plain = self.path.with_suffix("")
            rescued = plain.with_stem(f"{plain.stem}-readable").name
            advice += f", or use what is readable: {COMPRESSED[self.compression]} '{self.path}' > '{rescued}'"
        return f"{self.name}: {state} at {place}, after {done:,} bytes of text; {advice}"

    def lines_before(self) -> int:
        """How many lines of the file there are before its `part`."""
        if self.part is None:
            return 0
        with self._opened() as raw:
            return _lines_before(self.name, os.fstat(raw.fileno()).st_ino, raw, _line_at(raw, self.part[0]))


def file_source(path: Path, columns: tuple[str, ...] = ()) -> Source:
    """A file as a Source.

    Args:
        path: the file.
        columns: what the user named of its columns.
    """
    return Source(str(path), partial(_open, path), path, columns)


@cache
def standard_input() -> Source:
    """Standard input as a Source: copied to a temporary file first, for text is read more than once.

    Raises:
        DataError: it is a terminal.
    """
    if sys.stdin.isatty():
        raise DataError("-: standard input is a terminal; pipe text into it: cat FILES | bertsmith ... -")
    # Lives as long as the process, which then deletes it.
    with _room_for_a_copy("-"):
        copy = tempfile.NamedTemporaryFile(prefix="bertsmith-")  # noqa: SIM115
        shutil.copyfileobj(sys.stdin.buffer, copy, CHUNK)
        copy.flush()
    return Source("standard input", lambda: cast(BinaryIO, open(copy.name, "rb")))


@contextmanager
def _room_for_a_copy(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"{name}: a copy of it is needed to read it, and {tempfile.gettempdir()} is full; free some space, or let "
            "TMPDIR name a folder with more"
        ) from error


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


@lru_cache
def _suffixes(name: str) -> tuple[str, str]:
    """Format and compression, in small letters."""
    if "://" in name:
        name = name.partition("?")[0]
    # Not pathlib's suffix, which takes most of the time where files are tiny.
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    suffix = suffix.lower()
    if suffix in _SHORT:
        return _SHORT[suffix]
    compression = suffix if suffix in COMPRESSED else ""
    kind = os.path.splitext(stem)[1].lower() if compression else suffix  # noqa: PTH122
    # A part of a dump of Wikipedia is called pages-articles1.xml-p1p41242.bz2.
    return ".xml" if kind.startswith(".xml-p") else kind.rstrip("."), compression


def _state(raw: BinaryIO) -> tuple[int | None, int | None]:
    """Size and time of the last change of a file; nothing of a stream."""
    try:
        found = os.fstat(raw.fileno())
    except (AttributeError, OSError):
        return None, None
    return found.st_size, found.st_mtime_ns


def _line_at(raw: BinaryIO, place: int) -> int:
    """Where the first line begins that does not begin before `place`; the end of the file where there is none."""
    if not place:
        return 0
    at = raw.seek(place - 1)
    while chunk := raw.read(CHUNK):
        if (found := chunk.find(b"\n")) >= 0:
            return at + found + 1
        at += len(chunk)
    return at


def _lines(raw: BinaryIO, part: tuple[int, int], size: int) -> Iterator[bytes]:
    end = min(size, _line_at(raw, part[1])) if part[1] < size else size
    left = end - raw.seek(_line_at(raw, part[0]))
    while left > 0 and (chunk := raw.read(min(CHUNK, left))):
        yield chunk
        left -= len(chunk)


_counted: dict[str, tuple[int, int, int]] = {}
"""By name of a file: its inode, a place in it at which a line begins, and how many lines there are before."""


def _lines_before(name: str, inode: int, raw: BinaryIO, place: int) -> int:
    """Lines before a `place` at which one begins; those of parts in turn are counted on from one to the next."""
    known = _counted.get(name)
    at, lines = known[1:] if known and known[0] == inode and known[1] <= place else (0, 0)
    raw.seek(at)
    last = b""
    while at < place and (chunk := raw.read(min(CHUNK, place - at))):
        both = last + chunk
        last = both[-1:] if both.endswith(b"\r") else b""  # half of a CRLF, perhaps
        whole = both.removesuffix(b"\r")
        lines += chunk.count(b"\n") + whole.count(b"\r") - whole.count(b"\r\n")
        at += len(chunk)
    _counted.clear()
    _counted[name] = inode, place, lines
    return lines


def _decompressed(raw: BinaryIO, suffix: str, size: int | None) -> Iterator[bytes]:
    if suffix == ".zst":
        yield from _zstandard(raw)
    elif suffix in _OPENERS:
        with _OPENERS[suffix](raw) as stream:
            # read1, because read would throw away what came before a break.
            while chunk := stream.read1(CHUNK):
                yield chunk
    else:
        # A file that something appends to has no end of its own. One without a size, as in /proc, has none to keep to.
        left = size or None
        while chunk := raw.read(CHUNK if left is None else min(CHUNK, left)):
            yield chunk
            left = None if left is None else left - len(chunk)


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
        for begin in range(0, len(text), CHUNK):
            yield text[begin : begin + CHUNK]
        pending = frame.unused_data if frame.eof else b""
        if frame.eof:
            frame = None
        pending = pending or raw.read(1 << 12)
    if frame is not None:
        raise EOFError
