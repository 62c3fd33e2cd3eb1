"""Archives: their members as Sources, one after another; nothing is unpacked to a place that a name could choose."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, cast

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.source import Source

_FREE, _RATIO, _MOST = 64 << 20, 200, 1 << 40
"""Bytes that any archive may unpack to; times its own size beyond that; bytes that none may unpack to."""

_COPY = 16 << 30
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, UnicodeDecodeError)
"""What the standard library raises where an archive is damaged, NotImplementedError among them."""


def zip_members(source: Source, tally: Tally) -> Iterator[Source]:
    """The files in a ZIP archive, in its order.

    Args:
        source: the archive.
        tally: counts members that are links, encrypted, or named to lie outside of the archive.

    Raises:
        DataError: it is no ZIP archive, is damaged, or unpacks to suspiciously much.
    """
    with source.sought(tally, _COPY) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (*DAMAGE, ValueError) as error:
            raise DataError(f"{source.name}: is no ZIP archive, or is cut off ({error}); copy it again") from error
        meter = Meter(source.name, file.seek(0, io.SEEK_END))
        with archive:
            for info in archive.infolist():
                member = f"{source.name}/{info.filename}"
                if info.is_dir():
                    continue
                if _leads_out(info.filename):
                    tally.add("archive_member_leads_out", member)
                elif _hidden(info.filename):
                    continue
                elif stat.S_ISLNK(info.external_attr >> 16):
                    tally.add("archive_link_or_device", member)
                elif info.flag_bits & 1:
                    tally.add("archive_member_encrypted", member)
                else:
                    yield Source(member, partial(_open_zipped, archive, info, meter), None, source.columns)


def tar_members(source: Source, tally: Tally) -> Iterator[Source]:
    """The files in a tar archive, compressed or not, in its order; each must be read before the next is asked for.

    Args:
        source: the archive.
        tally: counts members that are links or devices, or named to lie outside of the archive.

    Raises:
        DataError: it is no tar archive, is damaged, or unpacks to suspiciously much.
    """
    size = source.path.stat().st_size if source.path else source.size
    stream = _Metered(_Joined(source.chunks(tally)), Meter(source.name, size))
    try:
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as archive:
            while (info := archive.next()) is not None:
                # The list of what was seen would grow with the archive.
                archive.members.clear()  # type: ignore[attr-defined]
                member = f"{source.name}/{info.name}"
                if info.isdir():
                    continue
                if _leads_out(info.name):
                    tally.add("archive_member_leads_out", member)
                elif _hidden(info.name):
                    continue
                elif not info.isfile():
                    tally.add("archive_link_or_device", member)
                else:
                    yield Source(member, partial(_open_tarred, archive, info), None, source.columns)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{source.name}: is no tar archive, or is cut off after {stream.tell():,} unpacked bytes ({error}); "
            "copy it again"
        ) from error


def _leads_out(name: str) -> bool:
    """Whether a member claims a place outside of the folder that it would be unpacked to."""
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ".." in plain.split("/") or plain[1:2] == ":"


def _hidden(name: str) -> bool:
    parts = [part for part in PurePosixPath(name).parts if part not in (".", "..")]
    return any(part.startswith(".") for part in parts) or parts[:1] == ["__MACOSX"]


def _open_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, meter: Meter) -> BinaryIO:
    try:
        return cast(BinaryIO, _Metered(archive.open(info), meter))
    except DAMAGE as error:
        raise DataError(f"{meter.name}/{info.filename}: cannot be unpacked: {error}; unpack it by hand") from error


def _open_tarred(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    return cast(BinaryIO, _Metered(cast(IO[bytes], archive.extractfile(info)), None))


class Meter:
    """Adds up what an archive unpacks to, and stops it."""

    def __init__(self, name: str, packed: int) -> None:
        self.name, self._packed, self._unpacked = name, packed, 0

    def add(self, count: int) -> None:
        """Note that `count` more bytes have come out; raises a DataError when they are suspiciously many."""
        self._unpacked += count
        if self._unpacked > max(_FREE, min(_RATIO * self._packed, _MOST)):
            raise DataError(
                f"{self.name}: {self._packed:,} bytes unpack to more than {self._unpacked - count:,}, as a zip bomb "
                "would; leave it out, or unpack it yourself if you trust it"
            )


class _Metered(io.RawIOBase):
    """A stream whose bytes are counted and whose damage is an OSError."""

    def __init__(self, stream: IO[bytes] | io.RawIOBase, meter: Meter | None) -> None:
        self._stream, self._meter, self._done = stream, meter, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer)) or b""
        except DAMAGE as error:
            raise OSError(str(error)) from error
        if self._meter:
            self._meter.add(len(data))
        buffer[: len(data)] = data
        self._done += len(data)
        return len(data)

    def tell(self) -> int:
        return self._done

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Joined(io.RawIOBase):
    """Chunks as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
