"""Runs that cannot go well, or cannot go on as they were begun: what is said, and what is refused."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bertsmith.core.events import read_metrics

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


def test_a_reader_that_goes_away_does_not_end_the_run(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    rest = ["--steps", "30", "--threads", "1", *words_of(tiny, train__evaluations=10)]
    words = [sys.executable, "-m", "bertsmith.cli.main", "pretrain", str(small_text), "--out", str(tmp_run), *rest]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        assert process.wait(timeout=120) == 0
    assert (tmp_run / "bundle").exists()


def test_a_closed_terminal_saves_the_run(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    rest = ["--steps", "100000", "--threads", "1", *words_of(tiny)]
    words = [sys.executable, "-m", "bertsmith.cli.main", "pretrain", str(small_text), "--out", str(tmp_run), *rest]
    # Whoever runs the tests may ignore the signal, as nohup does, and a child would too.
    heeded = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, preexec_fn=heeded) as process:
        until = time.monotonic() + 120
        while not any(line["step"] > 3 for line in read_metrics(tmp_run)):
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        try:
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
    assert list((tmp_run / "checkpoints").glob("step-*"))


def test_steps_that_were_not_saved_are_not_replaced_in_silence(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], command_line: Command
) -> None:
    rest = ["--threads", "1", *words_of(tiny)]
    words = [sys.executable, "-m", "bertsmith.cli.main", "pretrain", str(small_text), "--out", str(tmp_run), *rest]
    with subprocess.Popen([*words, "--steps", "100000"], stderr=subprocess.DEVNULL) as process:
        while not any(line["step"] > 3 for line in read_metrics(tmp_run)):
            time.sleep(0.05)
        process.kill()
    again = command_line("pretrain", small_text, "--out", tmp_run, "--steps", 2, *rest)
    assert again.returncode == 0, again.stderr
    assert re.search(r"took \d+ steps and saved none; it is begun anew", again.stderr)
