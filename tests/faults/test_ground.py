"""Runs that cannot go well, or cannot go on as they were begun: what is said, and what is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


def words_of(tiny: dict[str, object], **changes: object) -> list[str]:
    values = tiny | {key.replace("__", "."): value for key, value in changes.items()}
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def test_a_run_that_loses_its_way_says_so(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], command_line: Command
) -> None:
    rest = words_of(tiny, train__lr=1e3, train__evaluations=1)
    done = command_line("pretrain", small_text, "--out", tmp_run, "--steps", 20, "--threads", 1, *rest)
    assert done.returncode == 0, done.stderr
    assert re.search(r"step 20: held-out MLM loss is \S+, and it was \S+ before the first step", done.stderr)
    assert "lower train.lr" in done.stderr


def test_less_text_than_an_update_takes_is_said(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], command_line: Command
) -> None:
    rest = words_of(tiny, train__batch_tokens="10M")
    done = command_line("pretrain", small_text, "--out", tmp_run, "--steps", 2, "--threads", 1, *rest)
    assert done.returncode == 0, done.stderr
    assert "no more than one update takes (train.batch_tokens=10,000,000)" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("config", r"model\.intermediate_size: 64 before, 96 now"),
        ("store", r"store: [0-9a-f]{64} before, [0-9a-f]{64} now"),
        ("vocab", "made with another vocabulary than this one"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command, change: str, said: str
) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    rest = ["--steps", 6, "--checkpoint-every", "2steps", "--threads", 1, *words_of(tiny)]
    assert command_line("pretrain", small_text, "--out", out, *rest).returncode == 0
    shutil.rmtree(out / "bundle")
    if change == "config":
        settings = out / "config.toml"
        settings.write_text(settings.read_text().replace("intermediate_size = 64", "intermediate_size = 96"))
    else:
        words = [] if change == "vocab" else ["--vocab", out / "vocab"]
        size = ["--set", "vocab.size=150"] if change == "vocab" else []
        assert command_line("pretrain", small_text / "en.txt", "--out", other, *words, *rest, *size).returncode == 0
        shutil.rmtree(out / change)
        shutil.copytree(other / change, out / change)
    again = command_line("pretrain", "--out", out, "--resume")
    assert again.returncode == 2
    assert re.search(said, again.stderr)
    assert "Traceback" not in again.stderr
