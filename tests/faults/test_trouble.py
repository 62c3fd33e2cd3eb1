"""Gradients that are not finite: the batch is kept, the run goes back and learns more slowly, and stops in the end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import read_metrics
from bertsmith.model.packing import Batch
from bertsmith.tasks.base import Loss
from bertsmith.tasks.pretraining import Pretraining
from bertsmith.train.pretrain import PretrainConfig, pretrain


def settings(tiny: dict[str, object]) -> PretrainConfig:
    more = {"train.steps": 30, "train.checkpoint_every": "5steps", "train.evaluations": 3}
    return load(PretrainConfig, sets=[f"{key}={value}" for key, value in (tiny | more).items()])


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Losses in training, counted from 0, that come out as NaN; to be filled by the test."""
    broken: list[int] = []
    count = iter(range(10**6))
    real = Pretraining.loss

    def loss(self: Pretraining, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        found = real(self, outputs, batch)
        if outputs["mlm_losses"].requires_grad and next(count) in broken:
            return replace(found, total=found.total * float("nan"))
        return found

    monkeypatch.setattr(Pretraining, "loss", loss)
    return broken


def run(text: Path, out: Path, config: PretrainConfig) -> dict[str, object]:
    bundle = pretrain([str(text)], out, config, quiet=True, threads=1)
    return dict(bundle.meta["scores"])


def test_one_bad_batch_is_skipped_and_kept(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], breaking: list[int]
) -> None:
    breaking += [6]
    assert run(small_text, tmp_run, settings(tiny))
    (evidence,) = (tmp_run / "trouble").iterdir()
    assert evidence.name == "step-7.json"
    found = json.loads(evidence.read_text(encoding="utf-8"))
    assert (found["step"], found["loss"]) == (7, "nan")
    assert all(item["text"].startswith("[CLS]") for item in found["sequences"])
    assert sum(len(item["input_ids"]) for item in found["sequences"]) <= 256
    assert "lr_share" not in json.loads((tmp_run / "run.json").read_text())


def test_repeated_trouble_goes_back_with_a_lower_rate(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], breaking: list[int]
) -> None:
    breaking += range(12, 17)  # in steps 13 to 17, so that none is saved at step 15
    assert run(small_text, tmp_run, settings(tiny))
    assert json.loads((tmp_run / "run.json").read_text())["lr_share"] == 0.5
    lines = read_metrics(tmp_run)
    assert [line["step"] for line in lines] == list(range(31))
    rates = {line["step"]: line["lr"] for line in lines[1:]}
    assert rates[11] == pytest.approx(rates[10] / 2, rel=0.1)


@pytest.mark.parametrize("first", [10, 13])
def test_a_run_goes_back_to_before_the_trouble(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], breaking: list[int], first: int
) -> None:
    """To step 10; where no step could be taken from there, to step 5."""
    breaking += range(first, first + 5)
    assert run(small_text, tmp_run, settings(tiny))
    rates = [line["lr"] for line in read_metrics(tmp_run)[1:]]
    before = 5 if first == 10 else 10
    assert rates[before] == pytest.approx(rates[before - 1] / 2, rel=0.2)


def test_a_run_stopped_in_trouble_saves_nothing(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], breaking: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking += range(7, 10)
    seen = iter(range(10**6))

    def stopping(*_: object) -> Path:
        if next(seen) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return tmp_run

    monkeypatch.setattr("bertsmith.train.course.record", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(small_text, tmp_run, settings(tiny))
    assert [path.name for path in (tmp_run / "checkpoints").iterdir()] == ["step-5"]


def test_trouble_without_end_stops_with_the_evidence(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], breaking: list[int]
) -> None:
    breaking += range(1000)
    with pytest.raises(ConfigError, match=r"went back to its last checkpoint 3 times.*trouble"):
        run(small_text, tmp_run, settings(tiny))
    assert {path.name for path in (tmp_run / "trouble").iterdir()} >= {f"step-{n}.json" for n in range(1, 6)}
    assert not (tmp_run / "bundle").exists()
