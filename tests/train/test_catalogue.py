"""What is found below a folder of runs, and what is said of what is none."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.events import read_metrics
from bertsmith.core.lock import run_lock
from bertsmith.train.catalogue import RunFacts, catalogue
from bertsmith.train.comparison import comparison, curve, differences, overlay, warning, write
from bertsmith.train.finetune import config_class, finetune
from bertsmith.train.glance import evaluations, glance

CONFIG = 'seed = 1\n\n[train]\nlr = 0.001\nmetric = "mlm_loss"\n'
LOSSES = (5.0, 4.0, 3.5)


def made(
    folder: Path, losses: Sequence[float] = LOSSES, *, steps: int = 30, every: int = 10, config: str = CONFIG
) -> Path:
    """A pretraining run written by hand: a line a step, a held-out loss every few steps."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"kind": "pretrain", "inputs": ["text"], "steps": steps}))
    (folder / "config.toml").write_text(config)
    with open(folder / "metrics.jsonl", "w") as file:
        for step in range((len(losses) - 1) * every + 1):
            line: dict[str, object] = {"step": step, "tokens": step * 100, "seconds": step * 0.5}
            if step:
                line |= {"train/loss": 5.0, "tokens_per_second": 200.0, "padding": "x" * 200}
            if step % every == 0:
                line |= {"eval/mlm_loss": losses[step // every], "eval/mlm_accuracy": 0.25}
            file.write(json.dumps(line) + "\n")
    return folder


def test_a_finished_run(tiny_run: Path) -> None:
    (run,) = catalogue(tiny_run.parent)
    scores = json.loads((tiny_run / "scores.json").read_text())["held_out"]
    last = read_metrics(tiny_run)[-1]
    assert (run.name, run.kind, run.task, run.state) == ("run", "pretrain", None, "finished")
    assert (run.step, run.steps, run.tokens, run.seconds) == (60, 60, last["tokens"], last["seconds"])
    assert run.scores == pytest.approx(scores)
    assert f"MLM loss {scores['mlm_loss']:.3f}" in run.score()
    assert run.settings["train.lr"] == 1e-2
    (same,) = catalogue(tiny_run)
    assert (same.name, same.step) == ("run", 60)


def test_stopped_running_and_finished_are_told_apart(tmp_path: Path) -> None:
    made(tmp_path / "a" / "stopped", steps=100)
    made(tmp_path / "b")
    (tmp_path / "b" / "bundle").mkdir()
    (tmp_path / "c").mkdir()
    shutil.copytree(made(tmp_path / "seed"), tmp_path / "c" / "new")
    (tmp_path / "c" / "new" / "metrics.jsonl").unlink()
    with run_lock(tmp_path / "seed"):
        runs = {run.name: run for run in catalogue(tmp_path)}
        assert runs["seed"].standing() == "running at step 20 of 30"
    assert catalogue(tmp_path / "seed")[0].standing() == "stopped at step 20 of 30"
    assert list(runs) == ["a/stopped", "b", "c/new", "seed"]
    assert runs["a/stopped"].standing() == "stopped at step 20 of 100"
    assert runs["b"].standing() == "finished"
    assert runs["c/new"].standing() == "stopped before the first step"
    assert runs["a/stopped"].score() == "MLM loss 3.500, 25.0% right"


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    made(tmp_path / "a")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    catalogue(tmp_path)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_seeds_are_one_run_with_mean_and_deviation(tiny_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.csv"
    data.write_text("text,label\n" + "".join(f"Anna {verb} it,{verb}\n" for verb in ("reads", "writes") * 4))
    config = load(config_class("classify"), sets=["train.steps=4", "train.evaluations=2", "task.max_length=32"])
    out = tmp_path / "runs" / "seeded"
    finetune("classify", data, out, config, start=tiny_run, dev=data, seeds=[1, 2], quiet=True, threads=1)
    (run,) = catalogue(tmp_path / "runs")
    scores = json.loads((out / "scores.json").read_text())["dev"]["accuracy"]
    assert (run.kind, run.task, run.state, run.step, run.steps) == ("finetune", "classify", "finished", 8, 8)
    assert run.score() == f"accuracy {scores['mean']:.4f} ± {scores['sd']:.4f}"
    assert [point[0] for point in curve(run, "accuracy", "steps")] == [2, 4]

    (out / "scores.json").unlink()
    for name in ("bundle", "seed-2"):
        shutil.rmtree(out / name)
    (stopped,) = catalogue(tmp_path / "runs")
    assert stopped.standing() == "stopped, seed 1 of 2, at step 4"
    assert stopped.score().startswith("accuracy ")


def test_what_is_damaged_or_foreign_is_named_and_the_rest_is_listed(tmp_path: Path) -> None:
    made(tmp_path / "good")
    (made(tmp_path / "cut") / "run.json").write_text('{"kind": "pre')
    (made(tmp_path / "foreign") / "run.json").write_text('{"tool": "another"}')
    (made(tmp_path / "listed") / "run.json").write_text("[1, 2]")
    (made(tmp_path / "binary") / "run.json").write_bytes(bytes(range(256)))
    (made(tmp_path / "unset") / "config.toml").unlink()
    (made(tmp_path / "untold") / "config.toml").write_text("[train")
    said: list[str] = []
    assert [run.name for run in catalogue(tmp_path, said.append)] == ["good"]
    assert len(said) == 6
    assert all(line.startswith("not listed: ") for line in said)
    for name in ("cut", "foreign", "listed", "binary", "unset", "untold"):
        assert any(f"/{name}/" in line for line in said)


def test_damaged_figures_and_scores_cost_only_themselves(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    (run / "bundle").mkdir()
    (run / "scores.json").write_text('{"held_out": 3}')
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 21, "tokens": 2100, "eval/mlm_loss": null}\n')
        file.write(b'\xff\xfe broken"\n[1, "two"]\n{"step": 22, "tok')
    said: list[str] = []
    (found,) = catalogue(tmp_path, said.append)
    assert (found.step, found.tokens) == (21, 2100)
    assert found.score() == ""
    assert any("scores.json" in line for line in said)
    assert any("metrics.jsonl: 2 of the lines" in line for line in said)
    assert [line["step"] for line in evaluations(run)] == [0, 10, 20, 21]


def test_no_folder_and_nothing_in_it(tmp_path: Path) -> None:
    assert catalogue(tmp_path) == []
    with pytest.raises(DataError, match="no such folder"):
        catalogue(tmp_path / "nowhere")


def test_a_glance_is_quick_however_long_a_run_was(tmp_path: Path) -> None:
    run = made(tmp_path / "long", [4.0] * 11, steps=20_000, every=2_000)
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps({"step": step, "padding": "x" * 200}) + "\n" for step in range(20_001, 21_500))
    began = time.perf_counter()
    seen = glance(run)
    taken = time.perf_counter() - began
    began = time.perf_counter()
    read_metrics(run)
    assert taken < (time.perf_counter() - began) / 5
    assert seen.last["step"] == 21_499
    assert seen.evaluation["step"] == 20_000
    assert seen.tokens_per_second == 200.0


@pytest.fixture
def pair(tmp_path: Path) -> list[RunFacts]:
    """Two runs that differ in learning rate and in a setting that only one of them has."""
    made(tmp_path / "a")
    made(tmp_path / "b", (5.0, 4.5, 4.2), every=20, config=CONFIG.replace("0.001", "0.01") + "patience = 3\n")
    return catalogue(tmp_path)


def test_only_what_differs_is_shown(pair: list[RunFacts]) -> None:
    assert differences(pair) == {"train.lr": [0.001, 0.01], "train.patience": [None, 3]}
    assert differences([pair[0], pair[0]]) == {}
    unset = replace(pair[0], settings={**pair[0].settings, "model.vocab_size": 30522})
    assert differences([pair[0], unset]) == {}, "the vocabulary decides, not this default"
    rows = {row[0]: row[1:] for row in comparison(pair)}
    assert rows["train.patience"] == ["–", "3"]
    assert rows["held-out mlm_loss"] == ["3.5000", "4.2000"]
    assert rows["steps"] == ["20", "40"]


def test_runs_measured_on_different_things_come_with_a_warning(pair: list[RunFacts], tmp_path: Path) -> None:
    assert warning(differences(pair)) == ""
    other = made(tmp_path / "other" / "c", config=CONFIG + "[vocab]\nsize = 3\n")
    (run,) = catalogue(other)
    assert "vocab.size" in warning(differences([pair[0], run]))


def test_long_names_that_end_alike_stay_two_lines(pair: list[RunFacts]) -> None:
    long = [replace(run, name=f"{run.name}/{'deep/' * 20}run") for run in pair]
    assert overlay(long)[0].svg.count("<polyline") == 2


@pytest.mark.parametrize(("x", "last"), [("tokens", 4000), ("steps", 40), ("seconds", 20)])
def test_curves_over_tokens_steps_and_seconds(pair: list[RunFacts], x: str, last: float) -> None:
    assert curve(pair[1], "mlm_loss", x)[-1] == (last, 4.2)  # type: ignore[arg-type]
    loss, right = overlay(pair, x)  # type: ignore[arg-type]
    assert (loss.title, right.title) == ("Held-out MLM loss", "Masked words right")
    assert "a: 5 to 3.5" in loss.svg
    assert "b: 5 to 4.2" in loss.svg


def test_a_run_without_an_evaluation_is_named_not_drawn(pair: list[RunFacts], tmp_path: Path) -> None:
    made(tmp_path / "new", [5.0])
    (tmp_path / "new" / "metrics.jsonl").write_text("")
    runs = catalogue(tmp_path)
    write(runs, tmp_path / "page.html")
    assert "No held-out score yet: new." in (tmp_path / "page.html").read_text()
    (alone,) = catalogue(tmp_path / "new")
    write([alone, alone], tmp_path / "page.html")
    with pytest.raises(ConfigError, match="nothing to draw"):
        write([alone, alone], tmp_path / "page.svg")


def test_requests_that_cannot_be_met(pair: list[RunFacts], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.html"):
        write(pair, tmp_path / "page.pdf")
    with pytest.raises(ConfigError, match="tokens, steps, seconds"):
        overlay(pair, "hours")  # type: ignore[arg-type]
