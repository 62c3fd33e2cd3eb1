"""Text behind a URL: object stores and web servers by fsspec, read in pieces; a URL with credentials is refused."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, urlsplit

from bertsmith.core.errors import BertsmithError, ConfigError, DataError
from bertsmith.core.extras import install_command, require
from bertsmith.corpus.document import Tally
from bertsmith.corpus.source import CHUNK, Source

_URL = re.compile(r"[a-z][a-z0-9+.-]*(?:://|::)", re.IGNORECASE)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_SECRETS = {"auth", "authorization", "credential", "credentials", "key", "passwd", "password", "pwd"}
_SECRETS |= {"secret", "sig", "signature", "token"}
_NO_PASSWORD = ("git", "github")
"""Schemes in whose URLs a colon before an @ parts other things than a name and a password."""
_WEB = ("http", "https")
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")
_PAUSES = (0.5, 3.0)
"""Seconds before a piece that did not come is asked for again."""


def is_url(name: str) -> bool:
    """Whether an input is meant as a URL of fsspec's: `s3://bucket/text`, `https://…`, `simplecache::s3://…`."""
    return _URL.match(name) is not None


def find_remote(url: str, columns: tuple[str, ...], kinds: Collection[str], known: str, tally: Tally) -> list[Source]:
    """All files that a URL means: one, those below a folder, sorted and without hidden ones, or those of a glob.

    Args:
        url: as fsspec writes them; its credentials come from the environment or from files, never from the URL.
        columns: what the user named of the tables among them.
        kinds: the suffixes that can be read.
        known: what can be read, for messages.
        tally: counts what is passed over.

    Raises:
        ConfigError: fsspec, or the package for this kind of URL, is not installed; the URL holds credentials.
        DataError: nothing is there that can be read, or the server refuses or does not answer.
    """
    refuse_credentials(url)
    with _told(url):
        fs, path = _file_system(url)
        fs.invalidate_cache()
        web = url.lower().startswith(tuple(f"{scheme}:" for scheme in _WEB))
        if "*" in path or "[" in path:
            found, listing = fs.glob(path, detail=True), True
        elif web and path.endswith("/"):
            raise DataError(
                f"{url}: folders of a web server are not searched; name its files, or use a glob: {url}*.txt"
            )
        elif (info := fs.info(path))["type"] == "directory":
            found, listing = fs.find(path, detail=True), True
        else:
            found, listing = {path: info}, False
    sources: list[Source] = []
    for place, facts in sorted(found.items()):
        source = _source(url if not listing else fs.unstrip_protocol(place), columns, facts)
        if listing and (facts["type"] == "directory" or _hidden(place, path)):
            continue
        if source.kind in kinds:
            sources.append(source)
        elif listing:
            tally.add("unknown_kind_of_file", source.name)
        else:
            raise DataError(f"{url}: unknown kind of file '{source.kind}'; give {known}")
    if not sources:
        raise DataError(f"{url}: no text file is there ({len(found)} others); give {known}")
    return sources


def remote_source(url: str, columns: tuple[str, ...] = ()) -> Source:
    """A file behind a URL as a Source; nothing is asked of the server yet.

    Args:
        url: of one file.
        columns: what the user named of its columns.
    """
    return _source(url, columns, {})


def refuse_credentials(url: str) -> None:
    """Refuse a URL that holds a password, a key or a signature, for reports and manifests name where text is from.

    Args:
        url: may be chained; a name that is no URL passes.

    Raises:
        ConfigError: it does; names what it is, and not its value.
    """
    for part in url.split("::") if is_url(url) else ():
        parts = urlsplit(part)
        found = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _is_secret(name)]
        user = parts.netloc.rpartition("@")[0]
        if user and parts.scheme not in _NO_PASSWORD and (":" in user or parts.scheme in _WEB):
            found.append("what stands before the @")
        if found:
            shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
            raise ConfigError(
                f"{shown}: this URL holds credentials ({', '.join(found)}), which manifests and reports would repeat; "
                "put them into the environment (such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), into ~/.aws, "
                "~/.netrc or fsspec's configuration, or pipe the text: curl URL | bertsmith … -"
            )


def _is_secret(name: str) -> bool:
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(words & _SECRETS) or name.lower() in ("apikey", "accesskey", "awsaccesskeyid", "accesstoken")


def _hidden(place: str, base: str) -> bool:
    return any(part.startswith(".") for part in place.removeprefix(base).split("/"))


def _source(name: str, columns: tuple[str, ...], facts: Mapping[str, Any]) -> Source:
    version = next((str(facts[key]) for key in _VERSIONS if facts.get(key)), "")
    return Source(name, partial(_open, name), None, columns, facts.get("size") or 0, version)


def _file_system(url: str) -> tuple[Any, str]:
    fsspec = require("fsspec", f"reading {url}")
    options: dict[str, Any] = {}
    if "::" not in url and urlsplit(url).scheme in _WEB:
        conf = fsspec.config.conf
        if not any("client_kwargs" in conf.get(scheme, {}) for scheme in _WEB):
            # Proxies from the environment, and passwords from ~/.netrc.
            options["client_kwargs"] = {"trust_env": True}
    fs, path = fsspec.core.url_to_fs(url, **options)
    return fs, path


def _open(url: str) -> BinaryIO:
    try:
        with _told(url):
            fs, path = _file_system(url)
            return cast(BinaryIO, io.BufferedReader(_Pieces(fs.open(path, "rb")), CHUNK))
    except DataError as error:
        raise OSError(str(error).removeprefix(f"{url}: ")) from error


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Each store has errors of its own; one sentence for all of them."""
    try:
        yield
    except BertsmithError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"{url}: {error}; {install_command('remote')} brings what http and s3 need, other stores need theirs"
        ) from error
    except Exception as error:
        # The one for a web server says that there is no such file, whatever happened; its cause knows.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        what = "no such file or folder" if isinstance(cause, FileNotFoundError) else "cannot be read"
        detail = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
        raise DataError(
            f"{url}: {what} ({detail}); check the address, the network, and that the environment holds the "
            "credentials that the store wants"
        ) from error


def _seeks(file: Any) -> bool:
    """Whether one can go to any place; a web server that knows no ranges has a file that says so and cannot."""
    try:
        file.seek(0, io.SEEK_END)
        file.seek(0)
    except (OSError, ValueError):
        return False
    return bool(file.seekable())


class _Pieces(io.RawIOBase):
    """A file of fsspec's: a piece that does not come is asked for again, and its errors are OSErrors."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._ranges = _seeks(file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._ranges

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        data = self._piece(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _piece(self, size: int) -> bytes:
        place = self._file.tell() if self._ranges else 0
        for pause in (*_PAUSES, None):
            try:
                data: bytes = self._file.read(size)
            except Exception as error:
                if pause is None or not self._ranges:
                    raise OSError(f"{type(error).__name__}: {error}") from error
                time.sleep(pause)
                self._file.seek(place)
            else:
                if not data and self._ranges and place < (self._file.size or 0):
                    raise OSError(f"the store gave nothing from byte {place:,} on")
                return data
        raise AssertionError

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
