from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bertsmith.core.bundle import Bundle, write_bundle
from bertsmith.core.errors import BundleError
from bertsmith.core.files import atomic_folder, atomic_write, settled, sha256_file, without_nan


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB; skips where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only a user who may mount can make a small disk; the same fault is also tested without one")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def write(path: Path, size: int) -> Bundle:
    return write_bundle(path, config={"size": size}, tensors={"a": torch.ones(size)}, files={}, meta={})


def test_a_full_disk_leaves_the_old_bundle_whole(tiny_disk: Path) -> None:
    write(tiny_disk / "bundle", 1000)
    with pytest.raises(BundleError, match=r"the disk is full .* choose another folder"):
        write(tiny_disk / "bundle", 1_000_000)
    assert Bundle.open(tiny_disk / "bundle").config == {"size": 1000}
    assert os.listdir(tiny_disk) == ["bundle"]
    with pytest.raises(BundleError, match="the disk is full"):
        atomic_write(tiny_disk / "bundle" / "config.json", b"x" * 1_000_000)
    Bundle.open(tiny_disk / "bundle")


def test_a_disk_that_fills_up_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "bundle", 3)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="the disk is full"):
        write(tmp_path / "bundle", 4)
    with pytest.raises(BundleError, match="the disk is full"):
        atomic_write(tmp_path / "note", b"new")
    monkeypatch.undo()
    assert Bundle.open(tmp_path / "bundle").config == {"size": 3}
    assert os.listdir(tmp_path) == ["bundle"]


def test_writing_below_a_file_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot write here"):
        atomic_write(tmp_path / "file" / "inner", b"")
    with pytest.raises(BundleError, match="cannot write here"), atomic_folder(tmp_path / "file" / "inner" / "deep"):
        pass


def test_an_error_of_another_place_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_folder(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/else.txt")
    assert os.listdir(tmp_path) == []


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from bertsmith.core.files import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "out")], check=False)
    assert [name.endswith(".tmp") for name in os.listdir(tmp_path)] == [True]
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("x")
    assert os.listdir(tmp_path) == ["out"]


def test_a_crash_in_the_middle_of_the_swap_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path / "bundle", 3)
    (tmp_path / "bundle").rename(tmp_path / ".bundle.old")  # the state between the two renames
    assert Bundle.open(tmp_path / "bundle").config == {"size": 3}
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "bundle"):
        raise RuntimeError
    assert settled(tmp_path / "bundle") == tmp_path / "bundle"
    assert Bundle.open(tmp_path / "bundle").config == {"size": 3}
    assert os.listdir(tmp_path) == ["bundle"]


def test_what_is_no_number_in_json_is_null() -> None:
    found = without_nan({"a": [1.0, math.nan, (math.inf, "x")], "b": {"c": -math.inf, "d": 3}})
    assert found == {"a": [1.0, None, [None, "x"]], "b": {"c": None, "d": 3}}


def test_the_sum_of_a_folder_is_that_of_its_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.txt").write_text("1")
    first = sha256_file(tmp_path / "a")
    (tmp_path / "a" / "b" / "one.txt").write_text("2")
    second = sha256_file(tmp_path / "a")
    (tmp_path / "a" / "b" / "one.txt").rename(tmp_path / "a" / "two.txt")
    assert len({first, second, sha256_file(tmp_path / "a")}) == 3
