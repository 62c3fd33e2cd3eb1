"""Several processes train one run: the same losses as one, a stop that saves, and a dead or hung rank that is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from bertsmith.core.events import read_metrics

Command = Callable[..., subprocess.CompletedProcess[str]]
COMMON = ["--threads", "1", "--set", "train.precision=fp32"]


def words(tiny: dict[str, object], **changes: object) -> list[str]:
    values = tiny | {key.replace("__", "."): value for key, value in changes.items()}
    return [*COMMON, *(word for key, value in values.items() for word in ("--set", f"{key}={value}"))]


@pytest.fixture(scope="module")
def alone(
    small_text: Path, tiny: dict[str, object], tmp_path_factory: pytest.TempPathFactory, command_line: Command
) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    done = command_line("pretrain", small_text, "--out", out, "--steps", 30, *words(tiny))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize(
    ("ranks", "parts", "parallel"),
    [
        (2, 1, "ddp"),
        (2, 2, "ddp"),
        (1, 4, "ddp"),
        (2, 2, "fsdp"),
        pytest.param(4, 1, "ddp", marks=pytest.mark.slow),
        pytest.param(3, 1, "fsdp", marks=pytest.mark.slow),
    ],
)
def test_the_losses_do_not_depend_on_ranks_or_parts(
    small_text: Path,
    tmp_path: Path,
    tiny: dict[str, object],
    command_line: Command,
    alone: Path,
    ranks: int,
    parts: int,
    parallel: str,
) -> None:
    rest = [*words(tiny, train__accumulation=parts), "--parallel", parallel]
    done = command_line("pretrain", small_text, "--out", tmp_path / "run", "--steps", 30, "--nproc", ranks, *rest)
    assert done.returncode == 0, done.stderr
    one, many = read_metrics(alone), read_metrics(tmp_path / "run")
    assert [line["step"] for line in many] == list(range(31))
    assert [line["tokens"] for line in many] == [line["tokens"] for line in one]
    for name in ("train/loss", "train/nsp_accuracy", "grad_norm", "eval/mlm_loss"):
        found = [line[name] for line in many if name in line]
        assert found == pytest.approx([line[name] for line in one if name in line], abs=1e-5)
    theirs, ours = (load_file(path / "bundle" / "model.safetensors") for path in (alone, tmp_path / "run"))
    assert all(abs(theirs[name] - ours[name]).max() < 1e-4 for name in theirs)


def started(text: Path, out: Path, rest: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bertsmith.cli.main", "pretrain", str(text), "--out", str(out), "--nproc", "2"]
    process = subprocess.Popen(
        [*command, *rest], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 120
    while not any(line["step"] >= 3 for line in read_metrics(out)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    return process


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the ranks, rank 0 first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for child in map(int, children):
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found[int(next(item for item in environment if item.startswith(b"RANK=")).partition(b"=")[2])] = child
    return [found[rank] for rank in sorted(found)]


def test_a_stop_is_saved_once_and_gone_on_from_alone(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command
) -> None:
    out = tmp_path / "run"
    process = started(small_text, out, ["--steps", "400", *words(tiny)])
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error.count("go on with:") == 1
    assert "Traceback" not in error
    again = command_line("pretrain", "--out", out, "--resume")
    assert again.returncode == 0, again.stderr
    assert [line["step"] for line in read_metrics(out)] == list(range(401))


def test_replay_is_the_same_for_two_ranks(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command, tiny_run: Path
) -> None:
    replay = ["--from", str(tiny_run), "--set", f'continued.replay=["{tiny_run / "store"}"]']
    rest = [*words(tiny), *replay, "--set", "continued.replay_share=0.4", "--steps", "12"]
    for ranks in (1, 2):
        done = command_line("pretrain", small_text, "--out", tmp_path / str(ranks), "--nproc", ranks, *rest)
        assert done.returncode == 0, done.stderr
    one, two = (read_metrics(tmp_path / name) for name in ("1", "2"))
    assert [line["tokens"] for line in two] == [line["tokens"] for line in one]
    assert [line["train/loss"] for line in two[1:]] == pytest.approx([line["train/loss"] for line in one[1:]], abs=1e-5)
    tables = [json.loads((tmp_path / name / "scores.json").read_text())["forgetting"] for name in ("1", "2")]
    assert tables[1][1]["after"]["mlm_loss"] == pytest.approx(tables[0][1]["after"]["mlm_loss"], abs=1e-5)


def test_a_rank_that_dies_is_named(small_text: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    process = started(small_text, tmp_path / "run", ["--steps", "100000", *words(tiny)])
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 2, error
    assert "rank 1 was killed by signal 9 (SIGKILL)" in error


@pytest.mark.slow
@pytest.mark.parametrize("silent", [0, 1])
def test_a_rank_that_hangs_is_named_within_a_minute(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], silent: int
) -> None:
    process = started(small_text, tmp_path / "run", ["--steps", "100000", *words(tiny)])
    hung = ranks_of(process)[silent]
    os.kill(hung, signal.SIGSTOP)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"rank {silent} (last seen at step" in error


FSDP = ["--parallel", "fsdp", "--set", "train.average=0.5", "--set", "train.checkpoint_activations=true"]


def same_losses(one: Path, other: Path, within: float) -> None:
    ours, theirs = (read_metrics(path) for path in (one, other))
    for name in ("step", "tokens", "train/loss", "grad_norm", "eval/mlm_loss"):
        found, expected = ([line.get(name, 0.0) for line in lines] for lines in (ours, theirs))
        assert found == pytest.approx(expected, rel=0, abs=within), name


@pytest.mark.slow
def test_a_killed_sharded_run_ends_as_one_that_was_left_alone(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command
) -> None:
    rest = ["--steps", "60", "--checkpoint-every", "2steps", *words(tiny), *FSDP]
    process = started(small_text, tmp_path / "killed", rest)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    left = [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()]
    assert left
    assert not (tmp_path / "killed" / "bundle").exists()
    again = command_line("pretrain", "--out", tmp_path / "killed", "--resume", "--nproc", 2)
    assert again.returncode == 0, again.stderr
    assert "resumed at step" in again.stderr
    quiet = command_line("pretrain", small_text, "--out", tmp_path / "quiet", "--nproc", 2, *rest)
    assert quiet.returncode == 0, quiet.stderr
    same_losses(tmp_path / "killed", tmp_path / "quiet", 0.0)
    one, other = (load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("killed", "quiet"))
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.slow
def test_a_sharded_run_goes_on_with_any_number_of_ranks(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command
) -> None:
    rest = ["--steps", "40", *words(tiny), *FSDP]
    process = started(small_text, tmp_path / "three", rest)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    saved = next((tmp_path / "three" / "checkpoints").iterdir())
    assert len(list(saved.glob("model/*.safetensors"))) == 2
    shutil.copytree(tmp_path / "three", tmp_path / "one")
    shutil.copytree(tmp_path / "three", tmp_path / "ddp")
    for name, how in (("three", ["--nproc", 3]), ("one", []), ("ddp", ["--nproc", 2, "--parallel", "ddp"])):
        again = command_line("pretrain", "--out", tmp_path / name, "--resume", *how)
        assert again.returncode == 0, again.stderr
    alone = command_line("pretrain", small_text, "--out", tmp_path / "alone", *rest)
    assert alone.returncode == 0, alone.stderr
    for name in ("three", "one", "ddp"):
        same_losses(tmp_path / name, tmp_path / "alone", 1e-5)


@pytest.mark.slow
def test_a_run_branches_from_a_sharded_checkpoint(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Command
) -> None:
    rest = [*words(tiny), *FSDP, "--checkpoint-every", "10steps", "--steps", "20"]
    first = command_line("pretrain", small_text, "--out", tmp_path / "first", "--nproc", 2, *rest)
    assert first.returncode == 0, first.stderr
    start = tmp_path / "first" / "checkpoints" / "step-10"
    assert list(start.glob("optimizer/*.safetensors"))
    for name, count in (("one", 1), ("two", 2)):
        out = tmp_path / name
        done = command_line("pretrain", small_text, "--from", start, "--out", out, "--nproc", count, *rest)
        assert done.returncode == 0, done.stderr
        assert "weights and the state of adamw" in done.stderr
    same_losses(tmp_path / "two", tmp_path / "one", 1e-5)
