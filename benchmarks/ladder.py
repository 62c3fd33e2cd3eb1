"""What minutes buy: dev scores of tasks against the time that their encoder was pretrained for.

No claim but the docs' answer to "should I pretrain?": the figures are reported as measured.

How it is measured: for each of `--budgets` an encoder is pretrained on the Wikipedia extract of each language, as
`bertsmith pretrain` does it by default; budget 0 is fresh weights of the same shape. Each task is then learned from
2,000 rows with each seed, as benchmarks/downstream.py learns it. English encoders are also asked to tell right from
wrong sentences: the first `--pairs` minimal pairs of each of BLiMP's paradigms, by pseudo-log-likelihood; 50 % is
chance, which is what fresh weights get.

    python benchmarks/ladder.py                                  # ten hours, most of them pretraining
    python benchmarks/ladder.py --budgets 0,5m,15m --cases conll2003,cluener --seeds 1

Runs stay in `--runs`, so a stopped benchmark goes on where it was; figures go to `--results`, the picture to
`--picture`.

Last result: none yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _ground import ROOT, data_folder, machine
from downstream import CASES, INITS, TINY_SHAPE, learn, pretrained

NOTHING = "0"
GRAMMAR = "blimp"
PAIRS = "tasks/blimp/data.tar.xz"


@dataclass(frozen=True)
class Rung:
    """One score after one budget; scores are shares."""

    case: str
    minutes: float
    mean: float
    sd: float
    each: list[float]


def minutes(budget: str) -> float:
    """A budget in minutes.

    Args:
        budget: such as `15m` or `2h`; 0 is none.
    """
    from bertsmith.train.pretrain import PretrainingRun

    return 0.0 if budget == NOTHING else float(PretrainingRun(budget=budget).budget or 0) / 60


def grammar(encoder: Path, data: Path, pairs: int, spent: float) -> Rung:
    """How many minimal pairs an encoder tells apart.

    Args:
        encoder: its run.
        data: folder with BLiMP's archive.
        pairs: of each paradigm.
        spent: minutes of pretraining.
    """
    from bertsmith.evaluate.blimp import blimp
    from bertsmith.predict.predictor import Predictor

    share = float(blimp(Predictor.open(str(encoder)), data / PAIRS, pairs)["accuracy"])
    return Rung(GRAMMAR, spent, share, 0.0, [share])


def table(rungs: Sequence[Rung]) -> str:
    """A line a case, a column a budget.

    Args:
        rungs: all that was measured.
    """
    columns = sorted({rung.minutes for rung in rungs})
    lines = [f"{'minutes':14}" + "".join(f"{one:>14g}" for one in columns)]
    for case in dict.fromkeys(rung.case for rung in rungs):
        cells = {rung.minutes: f"{100 * rung.mean:.1f} ± {100 * rung.sd:.1f}" for rung in rungs if rung.case == case}
        lines.append(f"{case:14}" + "".join(f"{cells.get(one, '–'):>14}" for one in columns))
    return "\n".join(lines)


def picture(rungs: Sequence[Rung]) -> str:
    """Scores against minutes, as SVG.

    Args:
        rungs: all that was measured.
    """
    from bertsmith.core.picture import line_chart

    lines: dict[str, list[tuple[float, float]]] = {}
    for rung in sorted(rungs, key=lambda rung: rung.minutes):
        lines.setdefault(rung.case, []).append((rung.minutes, 100 * rung.mean))
    return line_chart(lines, title="What minutes of pretraining buy", x_label="minutes", y_label="dev score (%)")


def main() -> None:
    """Climb the ladder, print and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", default="0,5m,15m,45m,120m", help="of pretraining; 0 is fresh weights")
    parser.add_argument("--cases", default="conll2003,cluener,sst2,chnsenticorp", help=f"of {', '.join(CASES)}")
    parser.add_argument("--seeds", default="1,2,3", help="a fine-tuning run for each")
    parser.add_argument("--pairs", type=int, default=20, help="of each of BLiMP's paradigms; 0 leaves BLiMP out")
    parser.add_argument("--data", type=Path, help="folder with corpus/ and tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/ladder"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "ladder.json")
    parser.add_argument("--picture", type=Path, help="where to put the picture, an SVG file")
    parser.add_argument("--json", action="store_true", help="print a JSON line a score instead of the table")
    parser.add_argument("--tiny", action="store_true", help="toy encoders: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    names, budgets = options.cases.split(","), options.budgets.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise SystemExit(f"--cases {','.join(unknown)}: the cases are {', '.join(CASES)}")
    if not (trained := [budget for budget in budgets if budget != NOTHING]):
        raise SystemExit("--budgets: give one beside 0, for fresh weights take its shape")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    shape, settings = (TINY_SHAPE, ["train.steps=2", "train.evaluations=1"]) if options.tiny else ([], [])

    rungs: list[Rung] = []

    def keep(rung: Rung) -> None:
        rungs.append(rung)
        if options.json:
            print(json.dumps(asdict(rung)), flush=True)

    for language in dict.fromkeys(CASES[name].language for name in names):
        for budget in trained:
            length = "steps=2" if options.tiny else f"budget={budget}"
            encoder = pretrained(language, data, options.runs, length, shape)
            if language == "english" and options.pairs and (data / PAIRS).exists():
                keep(grammar(encoder, data, options.pairs, minutes(budget)))
            for name in (name for name in names if CASES[name].language == language):
                for init in INITS if NOTHING in budgets and budget == trained[0] else INITS[:1]:
                    row = learn(name, init, encoder, data, options.runs, seeds, settings)
                    keep(Rung(name, minutes(budget) if init == INITS[0] else 0.0, row.mean, row.sd, row.each))
    if not options.json:
        print(f"{machine()}\n{table(rungs)}")
    if options.picture:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        options.picture.write_text(picture(rungs), encoding="utf-8")
    result: Mapping[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "seeds": seeds,
        "rungs": [asdict(rung) for rung in rungs],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
