"""`bertsmith demo`, with everything small: each step, stopping and going on, text of one's own, bad text."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ["--packages", "numpy,click,packaging", "--tag-steps", "4", "--seeds", "1,2"]


@pytest.fixture(scope="module")
def sets(tiny: dict[str, object]) -> list[str]:
    """`--set` for a model that takes milliseconds a step."""
    smaller = tiny | {
        "model.max_position_embeddings": 256,
        "vocab.size": 1000,
        "train.evaluations": 3,
        "train.steps": 40,
    }
    return [word for key, value in smaller.items() for word in ("--set", f"{key}={value}")]


def commands(shown: str) -> list[list[str]]:
    """What the last screen says to try next."""
    lines = shown.split("what to try next\n")[1].splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def of_this_program(words: list[str]) -> list[str]:
    """The words of a command after the program's name."""
    verbs = {"predict", "evaluate", "pretrain", "finetune", "demo"}
    return words[next(i for i, word in enumerate(words) if word in verbs) :]


def test_code_words_from_text_to_answer_and_again(command_line: Run, sets: list[str], tmp_path: Path) -> None:
    arguments = ["demo", *SMALL, *sets, "--sentence", "Give ``None`` to close_all() at the end."]
    done = command_line(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "runs" / "demo"
    for title in ("1 of 4: text", "2 of 4: pretraining", "3 of 4", "4 of 4: an answer"):
        assert title in done.stderr
    assert "hidden words right" in done.stderr
    for arm in ("pretrained", "random"):
        f1 = json.loads((out / f"tagger-{arm}" / "scores.json").read_text())["test"]["f1"]
        assert len(f1["each"]) == 2
        assert f"{100 * f1['mean']:.1f} ± {100 * f1['sd']:.1f}" in done.stdout
    assert "points of F1" in done.stdout
    assert "to close_all" in re.sub(r"[][]| CODE", "", done.stdout)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 3
    assert not re.search(r"(?:src|href)=\"http", page)

    config = (out / "tagger-random" / "seed-1" / "config.toml").read_text()
    assert 'init = "random"' in config
    written = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    assert len(written) == 7
    again = command_line(*arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == written

    for words in commands(done.stdout)[:3]:
        tried = command_line(*of_this_program(words), cwd=tmp_path)
        assert tried.returncode == 0, (words, tried.stderr)
        assert tried.stdout


def test_text_of_ones_own_ends_beside_ngrams(
    command_line: Run, sets: list[str], small_text: Path, tmp_path: Path
) -> None:
    options = ["--text", small_text, *sets]
    done = command_line("demo", *options, "--set", "vocab.size=200", "--out", "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shares = dict(re.findall(r"(most frequent piece|trigram|BERT)[^%\n]*?([\d.]+)%", done.stdout))
    assert set(shares) == {"most frequent piece", "trigram", "BERT"}
    assert float(shares["trigram"]) > float(shares["most frequent piece"])
    last = [json.loads(line) for line in (tmp_path / "d/pretraining/metrics.jsonl").read_text().splitlines()][-1]
    assert float(shares["BERT"]) == pytest.approx(100 * last["eval/mlm_accuracy"], abs=0.051)
    assert "<svg" in (tmp_path / "d" / "report.html").read_text(encoding="utf-8")
    for words in commands(done.stdout)[:2]:
        tried = command_line(*of_this_program(words), cwd=tmp_path)
        assert tried.returncode == 0, (words, tried.stderr)


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(sets: list[str], small_text: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "bertsmith.cli.main",
        "demo",
        "--text",
        str(small_text),
        "--out",
        "d",
    ]
    words += [*sets, "--set", "vocab.size=200", "--set", "train.steps=150"]
    process = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if re.match(r"step \d+/\d+", line):
            process.send_signal(signal.SIGINT)
            break
    said += process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130, said
    assert "the same command goes on from here" in said
    assert "Traceback" not in said
    assert list((tmp_path / "d" / "pretraining" / "checkpoints").iterdir())
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stderr
    assert "trigram" in done.stdout


@pytest.mark.parametrize(
    ("files", "complaint"), [(None, "no such file or folder"), ({}, "no text"), ({"a.txt": ""}, "no text")]
)
def test_bad_text_is_refused_before_anything_is_made(
    command_line: Run, tmp_path: Path, files: dict[str, str] | None, complaint: str
) -> None:
    if files is not None:
        (tmp_path / "mine").mkdir()
        for name, content in files.items():
            (tmp_path / "mine" / name).write_text(content)
    done = command_line("demo", "--text", "mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "mine" in done.stderr
    assert complaint in done.stderr
    assert not (tmp_path / "runs").exists()


def test_seeds_that_are_no_numbers_are_refused(command_line: Run, tmp_path: Path) -> None:
    done = command_line("demo", "--seeds", "one", cwd=tmp_path)
    assert (done.returncode, "--seeds one: write them like 1,2,3" in done.stderr) == (2, True)
