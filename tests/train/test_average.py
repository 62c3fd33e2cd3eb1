"""The mean of the last weights is exact, is there while it is wanted, and leaves the run's own weights alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.events import read_metrics
from bertsmith.train.average import Average, ExponentialAverage
from bertsmith.train.pretrain import PretrainConfig, pretrain


def walk(average: Average, total: int) -> tuple[nn.Linear, list[torch.Tensor]]:
    """A model whose weights are drawn anew at each step, and all that they were."""
    model, seen = nn.Linear(3, 2), []
    generator = torch.Generator().manual_seed(0)
    for step in range(1, total + 1):
        model.weight.data.normal_(generator=generator)
        seen.append(model.weight.detach().double().clone())
        average.take(step, model)
    return model, seen


@given(total=st.integers(1, 60), share=st.floats(0.001, 1))
@settings(deadline=None)
def test_it_is_the_mean_of_the_last_steps(total: int, share: float) -> None:
    average = Average(share, total)
    model, seen = walk(average, total)
    expected = torch.stack(seen[-max(1, round(share * total)) :]).mean(0)
    own = model.weight.detach().clone()
    with average.inside(model):
        torch.testing.assert_close(model.weight.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(model.weight, own)


@given(total=st.integers(1, 60), decay=st.floats(0.01, 0.999))
@settings(deadline=None)
def test_an_exponential_mean_follows_its_recurrence(total: int, decay: float) -> None:
    average = ExponentialAverage(decay)
    model, seen = walk(average, total)
    expected = seen[0]
    for step, weight in enumerate(seen[1:], 2):
        kept = min(decay, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weight
    own = model.weight.detach().clone()
    with average.inside(model):
        torch.testing.assert_close(model.weight.detach().double(), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(model.weight, own)
    assert not ExponentialAverage(None).tensors()
    never, seen = walk(ExponentialAverage(None), 3)
    assert torch.equal(never.weight.detach().double(), seen[-1])


def test_without_a_share_and_before_it_begins_nothing_changes() -> None:
    for average, total in ((Average(0.0, 10), 10), (Average(0.2, 10), 8)):
        model, seen = walk(average, total)
        assert not average.tensors()
        with average.inside(model):
            assert torch.equal(model.weight.detach().double(), seen[-1])


def test_the_own_weights_come_back_after_an_error_too() -> None:
    average = Average(1.0, 5)
    model, seen = walk(average, 5)
    with pytest.raises(RuntimeError, match="stop"), average.inside(model):
        raise RuntimeError("stop")
    assert torch.equal(model.weight.detach().double(), seen[-1])


class PowerCutError(Exception):
    """The run ends in the middle, unprepared."""


@pytest.mark.parametrize("stop", [18, 36], ids=["before averaging", "while averaging"])
def test_a_run_with_muon_and_averaging_goes_on_to_the_bit(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], stop: int
) -> None:
    asked = tiny | {
        "train.name": "muon", "train.layer_decay": 0.8, "train.schedule": "wsd", "train.average": 0.5,
        "train.steps": 40, "train.evaluations": 20, "train.checkpoint_every": "5steps",
        "train.checkpoint_activations": True, "model.hidden_dropout": 0.1, "train.lr": 1e-2,
    }  # fmt: skip
    config = load(PretrainConfig, sets=[f"{key}={value}" for key, value in asked.items()])

    def cut(step: int, guesses: object) -> None:
        if step == stop:
            raise PowerCutError

    whole = pretrain([str(small_text)], tmp_path / "whole", config, quiet=True, threads=1)
    broken = tmp_path / "broken"
    with pytest.raises(PowerCutError):
        pretrain([str(small_text)], broken, config, quiet=True, threads=1, watch=cut)
    saved = {path.name for path in (broken / "checkpoints" / f"step-{(stop - 1) // 5 * 5}").iterdir()}
    assert ("average.safetensors" in saved) is (stop == 36)
    again = pretrain([], broken, config, resume=True, quiet=True, threads=1)
    assert (again.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    mine, theirs = read_metrics(broken), read_metrics(tmp_path / "whole")
    for name in ("train/loss", "eval/mlm_loss", "lr"):
        assert [line.get(name) for line in mine] == [line.get(name) for line in theirs]


def test_averaging_changes_what_is_measured_but_not_what_is_trained(
    small_text: Path, tmp_path: Path, tiny: dict[str, object]
) -> None:
    lines, bundles = {}, {}
    for share in (0.0, 0.5):
        asked = tiny | {"train.steps": 20, "train.lr": 1e-2, "train.average": share, "train.schedule": "constant"}
        config = load(PretrainConfig, sets=[f"{key}={value}" for key, value in asked.items()])
        bundles[share] = pretrain([str(small_text)], tmp_path / str(share), config, quiet=True, threads=1)
        lines[share] = read_metrics(tmp_path / str(share))
    for with_it, without in zip(lines[0.5], lines[0.0], strict=True):
        assert with_it.get("train/loss") == without.get("train/loss")
        same = with_it.get("eval/mlm_loss") == without.get("eval/mlm_loss")
        assert same is (with_it["step"] <= 11 or "eval/mlm_loss" not in with_it), "a mean of one is the weights"
    scores = Bundle.open(bundles[0.5].path).meta["scores"]
    assert scores["mlm_loss"] == min(line["eval/mlm_loss"] for line in lines[0.5][1:] if "eval/mlm_loss" in line)
