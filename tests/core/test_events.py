from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.core.events import Events, clock, read_metrics, truncate_metrics


def test_metrics_are_there_line_by_line_while_the_run_goes_on(tmp_run: Path) -> None:
    with Events(tmp_run, total=3, quiet=True) as events:
        events.log(1, **{"train/loss": 2.5, "tokens": 100})
        assert json.loads((tmp_run / "metrics.jsonl").read_text()) == {"step": 1, "train/loss": 2.5, "tokens": 100}
        events.log(2, **{"train/loss": math.nan})
    lines = (tmp_run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"step": 2, "train/loss": None}


def test_a_resumed_run_goes_on_after_its_checkpoint(tmp_run: Path) -> None:
    with Events(tmp_run, quiet=True) as events:
        for step in range(1, 6):
            events.log(step, loss=float(step))
    with open(tmp_run / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # the process was killed here
    assert [line["step"] for line in read_metrics(tmp_run)] == [1, 2, 3, 4, 5]
    truncate_metrics(tmp_run, 3)
    with Events(tmp_run, quiet=True) as events:
        events.log(4, loss=0.5)
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_run)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 0.5)]


def test_a_full_disk_is_named_and_not_lost_in_the_closing_of_the_file(tmp_run: Path) -> None:
    tmp_run.mkdir(exist_ok=True)
    (tmp_run / "metrics.jsonl").symlink_to("/dev/full")
    with (
        pytest.raises(BundleError, match=r"metrics\.jsonl: the disk is full"),
        Events(tmp_run, quiet=True) as events,
    ):
        events.log(1, loss=1.0)


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Events(None, total=1000) as events:
        for step in range(1, 1001):
            events.progress(step, loss=1.23456, tokens_per_second=32_100.0, phase="warm-up")
        events.say("[done]")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3  # the first, the last, and what was said
    assert lines[0].startswith("step 1/1000  loss 1.235  32.1k tokens/s  phase warm-up")
    assert lines[1].startswith("step 1000/1000")
    assert lines[1].endswith("0 s left")
    assert lines[2] == "[done]"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Events(None, total=2, quiet=True) as events:
        events.progress(1, loss=1.0)
        events.say("hello")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Events(None, total=10, unit="batch") as events:
        events.progress(5, loss=3.5)
        events.say("half way")
        events.progress(10, loss=3.25)
    err = capsys.readouterr().err
    assert "batch" in err
    assert "10/10" in err
    assert "loss 3.25" in err
    assert "half way" in err


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (59.4, "59 s"), (200, "3:20"), (3725, "1:02:05")])
def test_time_left_reads_well(seconds: float, said: str) -> None:
    assert clock(seconds) == said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_same_figures(tmp_run: Path) -> None:
    pytest.importorskip("tensorboard")
    with Events(tmp_run, quiet=True, track=("tensorboard",)) as events:
        events.log(7, **{"train/loss": 2.5})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_run / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(7, 2.5)]


def test_a_tracker_that_is_absent_or_unknown_is_said(tmp_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="tensorboard, wandb"):
        Events(tmp_run, track=("mlflow",))
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    with pytest.raises(ConfigError, match=r"needs the package wandb.*bertsmith\[track\]"):
        Events(tmp_run, track=("wandb",))
