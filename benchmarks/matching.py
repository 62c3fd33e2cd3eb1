"""Which texts go together: a bi-encoder and a cross-encoder beside their starting point and beside counting words.

Asked: what a few rows add to the published weights of all-MiniLM-L6-v2, which learned from a thousand million English
pairs, in Spearman's correlation on STS-B, average precision on ATEC (Chinese, of which those weights know characters at
most) and nDCG@10 of the paragraph that a SQuAD question was asked about.

How it is measured: `train.finetune.finetune` learns from `--rows` rows of each case, for each seed;
scores are those on dev of the weights best on dev, mean ± standard deviation over seeds. "as it is": the folder of
weights, asked for vectors without any learning. tf-idf: the cosine of weighted words (English) or of 1 to 3 characters
(Chinese). ATEC comes in one file: 1,000 rows drawn from it are dev. SQuAD's dev set is split by article: a quarter of
the articles, and 500 questions about them, are dev, each question among all paragraphs of those articles.
`--measured` takes fewer rows of dev.

    python benchmarks/matching.py                         # all three cases, three seeds
    python benchmarks/matching.py --cases stsb --rows 500 --seeds 1

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`.

Last result (2026-11-26, a thread of an EPYC with other work beside it, one seed, --rows 500 --measured 300 --epochs 2,
which is 32 updates: too few): STS-B 86.3 as it is, 85.2 bi, 21.7 cross, 78.3 tf-idf; ATEC 27.3 as it is, 26.0 bi,
27.5 cross, 38.1 tf-idf. SQuAD was not run.
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

DEV = 1000
QUESTIONS = 500


@dataclass(frozen=True)
class Case:
    """One set of pairs: the score that counts, whether it is Chinese, which modes learn it, and its learning rate."""

    score: str
    chinese: bool
    modes: tuple[str, ...]
    lr: float


CASES = {
    "stsb": Case("spearman", False, ("bi", "cross"), 1e-4),
    "atec": Case("ap", True, ("bi", "cross"), 1e-4),
    "squad": Case("ndcg@10", False, ("bi",), 1e-4),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: the score that counts, a figure a seed, and means of all scores."""

    case: str
    how: str
    score: str
    mean: float
    sd: float
    each: list[float]
    scores: dict[str, float]


def files(name: str, data: Path, folder: Path, most: int) -> tuple[Path, Path]:
    """Rows to learn from and rows to measure on; cut out of one file where the case has no dev.

    Args:
        name: of the case.
        data: folder with `tasks/`.
        folder: where the files go.
        most: rows to measure on.
    """
    tasks = data / "tasks"
    rng = np.random.default_rng(0)
    learn: list[dict[str, Any]] = []
    dev: list[dict[str, Any]] = []
    if name == "stsb":
        for side, part in ((learn, "train"), (dev, "dev")):
            with lzma.open(tasks / "stsb" / f"{part}.tsv.xz", "rt", encoding="utf-8") as lines:
                columns, *cells = [line.rstrip("\n").split("\t") for line in lines]
            side += [dict(zip(columns, row, strict=True)) for row in cells]
        dev = [dev[i] for i in sorted(rng.permutation(len(dev))[:most].tolist())]
    elif name == "atec":
        with lzma.open(tasks / "atec" / "atec_nlp_sim_train.csv.xz", "rt", encoding="utf-8-sig") as lines:
            cells = [line.rstrip("\r\n").split("\t") for line in lines]
        rows = [{"text": a, "pair": b, "label": label} for _, a, b, label in cells]
        order = rng.permutation(len(rows)).tolist()
        dev, learn = ([rows[i] for i in part] for part in (order[: min(DEV, most)], order[DEV:]))
    else:
        with lzma.open(tasks / "squad" / "dev-v1.1.json.xz", "rt", encoding="utf-8") as file:
            articles = json.load(file)["data"]
        sides: list[list[dict[str, Any]]] = [[], []]
        order = rng.permutation(len(articles)).tolist()
        for number, i in enumerate(order):
            side = sides[number >= len(order) / 4]
            for paragraph in articles[i]["paragraphs"]:
                side += [{"query": q["question"], "positive": paragraph["context"]} for q in paragraph["qas"]]
        dev, learn = sides
        # Some of the questions held out are asked; the paragraphs of the others stay among the candidates.
        asked = set(rng.permutation(len(dev))[: min(QUESTIONS, most)].tolist())
        known = {dev[i]["positive"] for i in asked}
        first = {row["positive"]: row for row in reversed(dev)}
        others = [text for text in first if text not in known]
        dev = [dev[i] for i in sorted(asked)]
        dev[0] = {**dev[0], "neg": others}
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for part, chosen in (("train", learn), ("dev", dev)):
        made.append(folder / f"{name}-{part}.jsonl")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
        made[-1].write_text(text, encoding="utf-8")
    return made[0], made[1]


def learn(name: str, mode: str, start: Path, data: Path, options: argparse.Namespace) -> Row:
    """Fine-tune one case for all seeds, or take the runs that did.

    Args:
        name: of the case.
        mode: `bi` or `cross`.
        start: the encoder.
        data: folder with `tasks/`.
        options: of the command line.
    """
    from bertsmith.core.bundle import Bundle
    from bertsmith.core.config import load
    from bertsmith.train.finetune import config_class, finetune

    case = CASES[name]
    train, dev = files(name, data, options.runs, options.measured)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    length = (
        ["train.steps=2", "train.evaluations=1", "task.max_length=32"]
        if options.tiny
        else [f"train.epochs={options.epochs}"]
    )
    sets = [f"task.mode={mode}", f"train.rows={options.rows}", f"train.lr={case.lr}", *length, *options.set]
    size = f"{options.rows}x{options.epochs:g}on{options.measured}"
    key = "-".join([name, mode, Bundle.open(start).hash[:12], size, *map(str, seeds), *options.set])
    out = options.runs / key.replace("/", "_")
    config = load(config_class("match"), sets=sets)
    resume = (out / "run.json").exists()
    finetune("match", train, out, config, start=start, dev=dev, seeds=seeds, resume=resume, threads=options.threads)
    found: Mapping[str, Any] = json.loads((out / "scores.json").read_text(encoding="utf-8"))["dev"]
    counts = found[case.score]
    means = {key: value["mean"] for key, value in found.items()}
    return Row(name, mode, case.score, counts["mean"], counts["sd"], counts["each"], means)


def as_it_is(name: str, start: Path, data: Path, options: argparse.Namespace) -> Row:
    """Score the folder's own vectors, mean-pooled where it does not say how.

    Args:
        name: of the case.
        start: the encoder.
        data: folder with `tasks/`.
        options: of the command line.
    """
    from bertsmith.predict.predictor import Predictor

    predictor = Predictor.open(start, batch_tokens=4096)

    def vectors(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return predictor.encode(texts, pooling="mean", normalize=True)

    return _compared(name, "as it is", data, options, vectors)


def counted(name: str, data: Path, options: argparse.Namespace) -> Row:
    """Score the cosine of weighted words.

    Args:
        name: of the case.
        data: folder with `tasks/`.
        options: of the command line.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    def vectors(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        how: dict[str, Any] = {"analyzer": "char", "ngram_range": (1, 3)} if CASES[name].chinese else {}
        made: np.ndarray[Any, Any] = TfidfVectorizer(sublinear_tf=True, **how).fit_transform(texts).toarray()
        return made.astype(np.float32)

    return _compared(name, "tf-idf", data, options, vectors)


def _compared(name: str, how: str, data: Path, options: argparse.Namespace, vectors: Any) -> Row:
    """What vectors of texts score on dev, by the task's own scoring."""
    from bertsmith.corpus.document import Tally
    from bertsmith.tasks.matching import Matching, MatchingConfig
    from bertsmith.tokenizer.load import Tokenizer

    _, dev = files(name, data, options.runs, options.measured)
    task = Matching(Tokenizer.load(options.start), MatchingConfig(mode="bi"), say=lambda line: None)
    examples = task.rows(dev, Tally())
    every = [
        [example.fields["text"], example.fields["pair"], *example.fields.get("negatives", ())] for example in examples
    ]
    made = vectors([text for texts in every for text in texts])
    cuts = np.cumsum([len(texts) for texts in every])[:-1]
    answers = [{"similarity": float(rows[0] @ rows[1]), "vectors": rows} for rows in np.split(made, cuts)]
    answers = task.tune(answers, examples)
    scores = task.score(answers, examples)
    value = scores[CASES[name].score]
    return Row(name, how, CASES[name].score, value, 0.0, [value], scores)


def table(rows: Sequence[Row]) -> str:
    """The lines to print: a case a block, a way of comparing a line, all scores as percentages."""
    lines = []
    for case in dict.fromkeys(row.case for row in rows):
        mine = [row for row in rows if row.case == case]
        names = list(mine[0].scores)
        lines.append(f"{case:8}{'':10}{CASES[case].score:>16}" + "".join(f"{name:>11}" for name in names))
        for row in mine:
            main = f"{100 * row.mean:.1f} ± {100 * row.sd:.1f}" if len(row.each) > 1 else f"{100 * row.mean:.1f}"
            rest = "".join(f"{100 * row.scores[name]:11.1f}" if name in row.scores else f"{'':11}" for name in names)
            lines.append(f"{'':8}{row.how:10}{main:>16}{rest}")
    return "\n".join(lines)


def main() -> None:
    """Learn, compare, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--seeds", default="1,2,3", help="a fine-tuning run for each")
    parser.add_argument("--rows", type=int, default=2000, help="rows to learn from")
    parser.add_argument("--measured", type=int, default=10_000, help="rows of dev at most, drawn evenly")
    parser.add_argument("--epochs", type=float, default=3, help="passes over the rows")
    parser.add_argument("--from", dest="start", type=Path, help="the encoder [default: all-MiniLM-L6-v2]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of fine-tuning")
    parser.add_argument("--threads", type=int, help="processor threads")
    parser.add_argument("--data", type=Path, help="folder with tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/matching"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "matching.json")
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
        rows += [counted(name, data, options), as_it_is(name, options.start, data, options)]
        rows += [learn(name, mode, options.start, data, options) for mode in CASES[name].modes]
        if options.json:
            for row in rows[-2 - len(CASES[name].modes) :]:
                print(json.dumps(asdict(row)), flush=True)
    if not options.json:
        print(f"{machine()}\n{table(rows)}")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "encoder": options.start.parent.name + "/" + options.start.name,
        "rows_learned": options.rows,
        "rows_measured": options.measured,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "settings": options.set,
        "rows": [asdict(row) for row in rows],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
