"""One run in a folder at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertsmith.core.errors import ConfigError
from bertsmith.core.files import disk_errors


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the system lets go of it even when the process is killed.

    Args:
        folder: the run folder; made when absent.

    Raises:
        ConfigError: another process holds it; names the process.
    """
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # of a file system that makes no folders, such as /proc
            raise ConfigError(f"{folder}: cannot write here ({error.strerror}); choose another folder") from error
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 32).decode().strip() or "unknown"
            raise ConfigError(
                f"{folder}: process {owner} is already working in this folder; wait for it to end, "
                "or choose another folder with --out"
            ) from None
        with disk_errors(folder):
            os.ftruncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether a process is working in a run folder now; leaves no trace there.

    Args:
        folder: the run folder; one without a lock file, or whose lock file may not be read, counts as free.
    """
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
