"""Files that are there whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bertsmith.core.errors import BundleError

REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


def without_nan(value: Any) -> Any:
    """The same nested value with None for numbers that are not finite, for which JSON has no word."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list | tuple) else value


def as_json(value: Any) -> bytes:
    """JSON as files of runs and bundles hold it: indented, null for what is no number."""
    return (json.dumps(without_nan(value), ensure_ascii=False, indent=2, default=str) + "\n").encode()


def sha256_file(path: str | Path) -> str:
    """The sha256 sum of a file as hexadecimal text; reads it in pieces. Of a folder, that of its files' names and sums.

    Args:
        path: the file or folder.
    """
    if (folder := Path(path)).is_dir():
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        lines = [f"{sha256_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn what a disk can refuse (full, read-only, no permission) into a `BundleError` that says what to do.

    Args:
        path: what is being written; named in the message.

    Raises:
        BundleError: the file system refused.
    """
    try:
        yield
    except Exception as error:
        # safetensors reports the operating system's errors in an exception of its own, by text
        number = error.errno if isinstance(error, OSError) else None
        full = number in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)
        if full:
            free = shutil.disk_usage(_existing(Path(path))).free / 1e6
            raise BundleError(
                f"{path}: the disk is full ({free:,.1f} MB free); what was there before is untouched. "
                "Free some space or choose another folder, then run the same command again; where steps of a run were "
                "saved, with --resume"
            ) from error
        if number in REFUSALS and _concerns(error, Path(path)):
            reason = os.strerror(number)
            raise BundleError(f"{path}: cannot write here ({reason}); choose another folder") from error
        raise


def _concerns(error: BaseException, path: Path) -> bool:
    """Whether an error is about the place being written, not about some input read meanwhile."""
    named = getattr(error, "filename", None)
    return (
        named is None
        or path.absolute().is_relative_to(Path(named).absolute())
        or (Path(named).absolute().is_relative_to(path.absolute().parent))
    )


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: str | Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all; a file that was there stays until the new one is safe on disk.

    Args:
        path: the file; its folder is made when absent.
        data: the content.
        durable: whether it is to survive a loss of power, and not only the end of this process.

    Raises:
        BundleError: the disk is full, or writing is not allowed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync(path.parent)


@contextmanager
def atomic_folder(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Fill a folder that appears whole or not at all, in place of one that may be there already.

    Args:
        path: the folder to end with.
        durable: as for `atomic_write`.

    Yields:
        A temporary folder beside it; what is in there when the block ends without an error becomes `path`.

    Raises:
        BundleError: the disk is full, or writing is not allowed. The old folder is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = _displaced(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary.mkdir()
        try:
            yield temporary
            for root, _, names in os.walk(temporary) if durable else ():
                for name in names:
                    _sync(Path(root, name))
                _sync(Path(root))
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except BaseException:
                if old.exists():
                    old.rename(path)
                raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if durable:
            _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def settled(path: Path) -> Path:
    """Where a folder written by `atomic_folder` is now: its name, or where it was put aside when a crash hit the swap.

    Args:
        path: the folder's name.
    """
    return _displaced(path) if not path.exists() and _displaced(path).exists() else path


def _displaced(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sweep(path: Path) -> None:
    """Remove what a killed process left behind; bring back a folder that it had put aside."""
    old = _displaced(path)
    if old.exists():
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)
    for stale in path.parent.glob(f".{path.name}.*.tmp"):
        owner = stale.name.split(".")[-2]
        if owner == str(os.getpid()) or (owner.isdigit() and not _alive(int(owner))):
            with suppress(OSError):
                shutil.rmtree(stale)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
