"""Tags word by word, tags as a chain, pairs of words: the three heads of `bertsmith finetune tag` beside each other.

Claim: on CLUENER a chain (CRF) and pairs of words (efficient GlobalPointer) find at least as many names as tags that do
not depend on each other, from the same encoder, rows and updates.

How it is measured: `train.finetune.finetune` learns CLUENER's training texts once for each head and seed, from the same
encoder, with the same settings, and scores its dev texts with the weights best on a tenth of the training texts: strict
F1 over character offsets, mean ± standard deviation over seeds. The one training text with a span inside another is
left out for all three. Seconds are those of the updates by the clock; other work on the machine makes them more.

    python benchmarks/tagging_heads.py --from ENCODER                       # all rows, three seeds: hours on two cores
    python benchmarks/tagging_heads.py --from ENCODER --rows 2000 --seeds 1 --steps 200

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`.

Last result: not run in full yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from _ground import ROOT, data_folder, machine

HEADS = ("token", "crf", "span")
TRAIN, DEV = "tasks/cluener/train.json.xz", "tasks/cluener/dev.json.xz"


@dataclass(frozen=True)
class Row:
    """One line of the table; scores are shares, one a seed in `each`."""

    head: str
    f1: float
    sd: float
    precision: float
    recall: float
    seconds: float
    each: list[float]


def learn(head: str, start: Path, data: Path, runs: Path, seeds: Sequence[int], sets: Sequence[str]) -> Row:
    """Fine-tune one head for all seeds, or take the runs that did.

    Args:
        head: of HEADS.
        start: the encoder.
        data: folder with `tasks/`.
        runs: where runs are kept.
        seeds: one run each.
        sets: further settings.
    """
    from bertsmith.core.bundle import Bundle
    from bertsmith.core.config import load
    from bertsmith.train.finetune import config_class, finetune

    found: list[dict[str, float]] = []
    seconds = 0.0
    for seed in seeds:
        out = runs / f"{head}-from-{Bundle.open(start).hash[:12]}-seed-{seed}"
        values = ["task.skip_bad_rows=true", f"task.head={head}", f"train.seed={seed}", *sets]
        config = load(config_class("tag"), sets=values)
        finetune("tag", data / TRAIN, out, config, start=start, test=data / DEV, resume=(out / "run.json").exists())
        found.append(json.loads((out / "scores.json").read_text(encoding="utf-8"))["test"])
        last = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        seconds += json.loads(last)["seconds"] / len(seeds)
    each = [scores["f1"] for scores in found]
    precision, recall = (fmean(scores[name] for scores in found) for name in ("precision", "recall"))
    return Row(head, fmean(each), stdev(each) if len(each) > 1 else 0.0, precision, recall, seconds, each)


def table(rows: Sequence[Row]) -> str:
    """The lines to print.

    Args:
        rows: one a head.
    """
    lines = [f"{'head':8}{'strict F1':>16}{'precision':>12}{'recall':>9}{'seconds':>10}"]
    for row in rows:
        score = f"{100 * row.f1:.1f} ± {100 * row.sd:.1f}"
        lines.append(f"{row.head:8}{score:>16}{100 * row.precision:12.1f}{100 * row.recall:9.1f}{row.seconds:10.0f}")
    return "\n".join(lines)


def main() -> None:
    """Fine-tune, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="start", type=Path, required=True, help="a pretrained bundle or run")
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--seeds", default="1,2,3", help="a fine-tuning run for each")
    parser.add_argument("--rows", type=int, help="learn from so many texts only")
    parser.add_argument("--steps", type=int, help="updates of each run [default: three epochs, or 500]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of fine-tuning")
    parser.add_argument("--data", type=Path, help="folder with tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/tagging_heads"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "tagging_heads.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line a row instead of the table")
    parser.add_argument("--tiny", action="store_true", help="two updates: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    heads = options.heads.split(",")
    if unknown := [head for head in heads if head not in HEADS]:
        raise SystemExit(f"--heads {','.join(unknown)}: the heads are {', '.join(HEADS)}")
    sets: list[str] = list(options.set)
    for name, value in (("rows", options.rows), ("steps", 2 if options.tiny else options.steps)):
        sets += [f"train.{name}={value}"] if value else []
    sets += ["train.evaluations=1", "task.max_length=32"] if options.tiny else []
    seeds = [int(seed) for seed in options.seeds.split(",")]
    rows = []
    for head in heads:
        rows.append(learn(head, options.start, data, options.runs, seeds, sets))
        if options.json:
            print(json.dumps(asdict(rows[-1])), flush=True)
    if not options.json:
        print(f"{machine()}\n{table(rows)}")
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "seeds": seeds,
        "settings": sets,
        "rows": [asdict(row) for row in rows],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
