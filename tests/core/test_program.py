"""How the program is called in commands that are shown."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bertsmith.core.program import program, quoted


def environment(folder: Path, monkeypatch: pytest.MonkeyPatch, *files: str) -> Path:
    """An environment with some programs, in which Python pretends to run."""
    (folder / "bin").mkdir(parents=True)
    for name in files:
        (folder / "bin" / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))
    return folder / "bin"


def test_by_name_where_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment(tmp_path / "env", monkeypatch, "python", "bertsmith")))
    assert program() == "bertsmith"


def test_by_path_where_it_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bin_folder = environment(tmp_path / "my env", monkeypatch, "python", "bertsmith")
    assert shlex.split(program()) == [str(bin_folder / "bertsmith")]
    monkeypatch.chdir(tmp_path)
    assert program() == "'my env/bin/bertsmith'"


def test_by_python_where_there_is_no_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bin_folder = environment(tmp_path / "env", monkeypatch, "python")
    assert program() == f"{bin_folder / 'python'} -m bertsmith"


def test_a_path_is_short_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (quoted(tmp_path / "a b"), quoted(Path("/elsewhere"))) == ("'a b'", "/elsewhere")


def test_python_runs_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "bertsmith", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
