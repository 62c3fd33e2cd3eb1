"""Killed, interrupted, terminated: a run that goes on ends as if nothing had happened, to the bit."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.core.events import read_metrics

Command = Callable[..., subprocess.CompletedProcess[str]]
LABELLED = "text,label\n" + "".join(
    f"{n} {v} the {c} book,{n.lower()}\n" for n in ("Anna", "Bert") for v in ("reads", "writes") for c in ("red", "old")
)
ASKED = "\n".join(
    json.dumps(
        {"question": f"Where is {who}?", "context": f"{name} is in {place}.", "answers": [place] * (who == name)}
    )
    for who in ("Anna", "Bert")
    for name in ("Anna", "Bert")
    for place in ("Rome", "Paris", "London")
)


def words_of(tiny: dict[str, object], **changes: object) -> list[str]:
    values = tiny | {key.replace("__", "."): value for key, value in changes.items()}
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "bertsmith.cli.main", *arguments]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def reached(out: Path, step: int) -> Callable[[], bool]:
    return lambda: any(line["step"] >= step for line in read_metrics(out))


def when(process: subprocess.Popen[str], condition: Callable[[], bool], number: signal.Signals) -> tuple[int, str]:
    """Send a signal as soon as the condition holds; the exit code and what was said."""
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "the moment to stop never came"
        time.sleep(0.002)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    return process.returncode, error


def weights(out: Path) -> bytes:
    return (out / "bundle" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("precision", "threads", "changes"),
    [
        ("auto", 2, {"model__hidden_dropout": 0.1, "train__accumulation": 2}),
        ("fp32", 1, {}),
        ("fp32", 1, {"train__stages": '[{share=0.4, max_length=32, objective="causal"}, {share=0.6}]'}),
        pytest.param("auto", 2, {"train__compile": "loss"}, marks=pytest.mark.slow),
    ],
    ids=["auto", "fp32", "stages", "compiled"],
)
def test_a_killed_pretraining_ends_the_same(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command,
    precision: str, threads: int, changes: dict[str, object],
) -> None:  # fmt: skip
    rest = ["--steps", "40", "--checkpoint-every", "3steps", "--threads", str(threads)]
    rest += words_of(tiny, train__precision=precision, **changes)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = command_line("pretrain", small_text, "--out", whole, *rest)
    assert done.returncode == 0, done.stderr
    arguments = ["pretrain", str(small_text), "--out", str(broken), *rest]
    step = random.randrange(4, 37)
    code, _ = when(start(arguments), reached(broken, step), signal.SIGKILL)
    assert code == -signal.SIGKILL, f"killed after step {step}"
    assert not (broken / "bundle").exists()
    again = command_line("pretrain", "--resume", "--out", broken)
    assert again.returncode == 0, again.stderr
    assert "resumed at step" in again.stderr
    assert weights(broken) == weights(whole), f"killed after step {step}"
    mine, theirs = read_metrics(broken), read_metrics(whole)
    assert [line["step"] for line in mine] == list(range(41))
    assert [line.get("train/loss") for line in mine] == [line.get("train/loss") for line in theirs]


@pytest.mark.parametrize("task", ["classify", "answer"])
def test_a_killed_finetuning_ends_the_same(tiny_run: Path, tmp_path: Path, command_line: Command, task: str) -> None:
    data = tmp_path / ("rows.csv" if task == "classify" else "rows.jsonl")
    data.write_text(LABELLED if task == "classify" else ASKED)
    rest = ["--steps", "60", "--checkpoint-every", "3steps", "--threads", "1", "--set", "train.batch_size=4"]
    rest += ["--set", "task.max_length=32", "--set", "train.evaluations=20"]
    common = ["finetune", task, "--data", str(data), "--from", str(tiny_run)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = command_line(*common, "--out", whole, *rest)
    assert done.returncode == 0, done.stderr
    step = random.randrange(4, 50)
    code, _ = when(start([*common, "--out", str(broken), *rest]), reached(broken, step), signal.SIGKILL)
    assert code == -signal.SIGKILL, f"killed after step {step}"
    again = command_line(*common, "--resume", "--out", broken)
    assert again.returncode == 0, again.stderr
    assert weights(broken) == weights(whole), f"killed after step {step}"
    assert (broken / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()


def test_a_kill_between_seeds_loses_no_seed(tiny_run: Path, tmp_path: Path, command_line: Command) -> None:
    data = tmp_path / "rows.csv"
    data.write_text(LABELLED)
    out = tmp_path / "run"
    common = ["finetune", "classify", "--data", str(data), "--from", str(tiny_run), "--out", str(out)]
    rest = ["--seeds", "1,2", "--steps", "30", "--checkpoint-every", "3steps", "--set", "task.max_length=32"]
    code, _ = when(start([*common, *rest]), reached(out / "seed-2", 5), signal.SIGKILL)
    assert code == -signal.SIGKILL
    first = weights(out / "seed-1")
    again = command_line(*common, "--resume")
    assert again.returncode == 0, again.stderr
    assert "over 2 seeds" in again.stderr
    assert weights(out / "seed-1") == first


@pytest.fixture(scope="module")
def whole(
    small_text: Path, tiny: dict[str, object], tmp_path_factory: pytest.TempPathFactory, command_line: Command
) -> tuple[list[str], Path]:
    """What a run is asked, and the run that nobody stopped."""
    rest = ["--steps", "150", "--threads", "1", *words_of(tiny, train__evaluations=30)]
    out = tmp_path_factory.mktemp("whole") / "run"
    done = command_line("pretrain", small_text, "--out", out, *rest)
    assert done.returncode == 0, done.stderr
    return rest, out


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("vocabulary", signal.SIGINT),
        ("store", signal.SIGINT),
        ("training", signal.SIGINT),
        ("evaluation", signal.SIGINT),
        ("store", signal.SIGTERM),
        ("training", signal.SIGTERM),
    ],
)
def test_a_stop_in_any_phase_can_be_gone_on_from(
    small_text: Path, tmp_path: Path, whole: tuple[list[str], Path], command_line: Command,
    phase: str, number: signal.Signals,
) -> None:  # fmt: skip
    out = tmp_path / "a run"
    moments = {
        "vocabulary": lambda: (out / "run.json").exists() and '"threads"' in (out / "run.json").read_text(),
        "store": lambda: (out / "vocab" / "vocab.txt").exists(),
        "training": reached(out, 3),
        "evaluation": reached(out, 9),
    }
    process = start(["pretrain", str(small_text), "--out", str(out), *whole[0]])
    code, error = when(process, moments[phase], number)
    assert code == 130, error
    assert "Traceback" not in error
    line = next(line for line in error.splitlines() if "go on with: " in line)
    command = shlex.split(line.partition("go on with: ")[2])
    assert command[-4:] == ["pretrain", "--out", str(out), "--resume"]
    if phase in ("training", "evaluation"):
        assert list((out / "checkpoints").iterdir()), "the state is saved"
    again = command_line(*command[-4:])
    assert again.returncode == 0, again.stderr
    assert weights(out) == weights(whole[1])


def test_two_runs_in_one_folder(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command
) -> None:
    out = tmp_path / "run"
    arguments = ["pretrain", str(small_text), "--out", str(out), "--steps", "100000", *words_of(tiny)]
    first = start(arguments)
    try:
        until = time.monotonic() + 60
        while not reached(out, 1)():
            assert time.monotonic() < until
            time.sleep(0.01)
        second = command_line(*arguments)
        assert second.returncode == 2
        assert f"process {first.pid} is already working in this folder" in second.stderr
    finally:
        first.kill()
        first.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    """A file system of 6 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("making a small file system needs the rights to mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_says_so_and_the_run_goes_on(
    small_text: Path, small_disk: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command
) -> None:
    rest = ["--steps", "60", "--checkpoint-every", "3steps", "--threads", "1", *words_of(tiny)]
    done = command_line("pretrain", small_text, "--out", tmp_path / "whole", *rest)
    assert done.returncode == 0, done.stderr
    out = small_disk / "run"
    process = start(["pretrain", str(small_text), "--out", str(out), *rest, "--set", "train.evaluations=60"])
    until = time.monotonic() + 60
    while not list(out.glob("checkpoints/step-*/manifest.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.002)
    ballast = small_disk / "ballast"
    try:
        with open(ballast, "wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass
    except OSError:
        pass
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2, error
    assert "the disk is full" in error
    assert "Traceback" not in error
    ballast.unlink()
    again = command_line("pretrain", "--resume", "--out", out)
    assert again.returncode == 0, again.stderr
    assert [line["step"] for line in read_metrics(out)] == list(range(61))


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_a_full_disk_stops_a_preparation_that_then_goes_on(
    small_disk: Path, tmp_path: Path, command_line: Command, ranks: str
) -> None:
    text = tmp_path / "text.txt"
    lines = (f"Document {n} tells of {n * 7} boats. Its second sentence has {n * n} words.\n\n" for n in range(8000))
    text.write_text("".join(lines))
    out = small_disk / "store"
    settings = ["--set", "vocab.size=200", "--set", "corpus.dedup.mode=off", "--nproc", ranks]
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(5_900_000))
    refused = command_line("corpus", "prepare", text, "--out", out, *settings)
    assert refused.returncode == 2, refused.stderr
    assert "the disk is full" in refused.stderr
    assert "run the same command again" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not out.exists()
    ballast.unlink()
    again = command_line("corpus", "prepare", text, "--out", out, *settings)
    assert again.returncode == 0, again.stderr
    assert "going on with what" in again.stderr
    assert "corpus: 8,000 documents" in again.stderr
