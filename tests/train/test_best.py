"""Which weights are kept: those of the best sound evaluation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from torch import nn

from bertsmith.core.errors import ConfigError
from bertsmith.train.best import Best

MODEL = nn.Linear(1, 1)


def test_an_undefined_score_is_better_than_none_and_worse_than_any() -> None:
    best = Best("pearson", patience=2)
    best.judge(1, {"pearson": math.nan}, MODEL)
    assert (best.step, best.chosen(Path("run"), 1e-3).keys()) == (1, {"weight", "bias"})
    best.judge(2, {"pearson": -0.5}, MODEL)
    best.judge(3, {"pearson": math.nan}, MODEL)
    assert (best.step, best.weary) == (2, False)
    best.judge(4, {"pearson": -0.6}, MODEL)
    assert (best.step, best.weary) == (2, True)


def test_a_loss_that_is_not_finite_is_never_kept_whatever_the_metric() -> None:
    best = Best("mlm_accuracy")
    best.judge(1, {"mlm_loss": math.nan, "mlm_accuracy": 0.9}, MODEL)
    with pytest.raises(ConfigError, match=r"run: no evaluation had a finite loss.*lower train\.lr \(now 1000\)"):
        best.chosen(Path("run"), 1000)
    best.judge(2, {"mlm_loss": 7.0, "mlm_accuracy": 0.1}, MODEL)
    best.judge(3, {"mlm_loss": math.inf, "mlm_accuracy": 0.9}, MODEL)
    assert best.step == 2
