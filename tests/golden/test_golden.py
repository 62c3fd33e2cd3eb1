"""Twenty steps of a tiny run in fp32: to the bit within one machine, to rounding between machines."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.core.events import read_metrics

# Loss of the training batch after so many steps, as this code computed it; a change here changes what everybody trains.
GOLDEN = {1: 5.5963154, 5: 5.4700065, 10: 5.5291457, 20: 5.4612427}


def test_twenty_steps(
    small_text: Path,
    tmp_path: Path,
    tiny: dict[str, object],
    command_line: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    pinned = {"train.lr": 1e-3, "train.warmup_ratio": 0.06, "train.weight_decay": 0.01, "train.beta2": 0.98}
    pinned |= {"train.stages": "[]", "task.mask_rate": 0.15, "task.mask_rate_end": 0.15}
    sets = [word for key, value in (tiny | pinned).items() for word in ("--set", f"{key}={value}")]
    sums = []
    for name in ("a", "b"):
        words = ["--steps", 20, "--threads", 1, "--set", "train.precision=fp32", "--seed", 7, "--quiet", *sets]
        done = command_line("pretrain", small_text, "--out", tmp_path / name, *words)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", "quiet means quiet"
        weights = tmp_path / name / "bundle" / "model.safetensors"
        sums.append(hashlib.sha256(weights.read_bytes()).hexdigest())
    assert sums[0] == sums[1], "the same run in two processes differs"
    losses = {line["step"]: line["train/loss"] for line in read_metrics(tmp_path / "a") if line["step"] in GOLDEN}
    assert losses == pytest.approx(GOLDEN, rel=1e-4)
