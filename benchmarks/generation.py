"""Texts written, sentences chosen, responses found: real scores beside what costs nothing.

Asked: what an encoder writes after some minutes of learning, in sacreBLEU and ROUGE, and whether it beats the baselines
that a person would try first: the source as it is (copy), the text that most rows have (most frequent), the first
sentence (lead), counting words (BM25).

The cases: `multi30k` (English to German), `tatoeba` (English to Chinese, split by English sentence), `scitldr` (the
best sentence of an abstract; ROUGE against the best of several references), `scitldr-written` (the same, written),
`respond` (XDailyDialog, the response is written), `select` (a response among 20, by a bi-encoder, by a cross-encoder,
and by the cross-encoder for the bi-encoder's best ten), `choose` (the next turn among four, as in SWAG). XDailyDialog's
`dev` is learned from, all but 100 dialogues by which the weights are chosen, and its `test` is scored.

Where no encoder is given: an English case starts from all-MiniLM-L6-v2, whose MLM head is fresh; a translation from an
encoder that is pretrained on both sides of its own training text for `--pretrain`, of the size `--set-encoder` says.

    python benchmarks/generation.py                                   # all cases
    python benchmarks/generation.py --cases scitldr --baselines       # the baselines alone

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`. Ten outputs a case
are shown on standard error, never written to the results.

Last result (2026-11-26): the baselines on all test rows stand in `results/generation.json`: multi30k copy 0.5 BLEU;
tatoeba copy 0.0; scitldr ROUGE-L 23.1 of the first sentence, 38.8 of the oracle; respond copy 1.3 BLEU; select by BM25
33.2 hits@1 among 20; choose by BM25 54.5. Learning ran for a few updates only, beside much other work, which shows that
it runs, not what it is worth. multi30k, 60 updates of pretraining and then 113 of 32 rows (an eighth of an epoch), 150
test rows: 2.1 BLEU (2.0 with 4 beams) beside 0.9 of the copy; nearly all outputs begin alike. select, 12 updates of 32
from all-MiniLM-L6-v2, 60 test rows: bi-encoder 73.3 hits@1 (MRR 82.2) beside BM25's 36.7; the cross-encoder, whose head
is fresh, 10.0, and reranking by it 16.4. scitldr, 20 updates of 16 from all-MiniLM-L6-v2, 100 test rows: ROUGE-L 25.8
beside 22.6 of the first sentence and 40.7 of the oracle. The other cases were not learned.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from _ground import ROOT, data_folder, machine, minilm

SHOWN = 10
AMONG = 20
TINY = ["train.steps=2", "train.evaluations=1", "task.max_length=24"]


@dataclass(frozen=True)
class Case:
    """Task, settings, the score that counts, and whether the published English weights are a start."""

    task: str
    score: str
    sets: tuple[str, ...] = ()
    english: bool = True


WRITE = ("task.max_length=192", "task.max_target=48", "task.no_repeat_ngram_size=3", "train.lr=1e-4")
CASES = {
    "multi30k": Case("generate", "bleu", ("task.max_length=64", "task.max_target=64", "train.lr=5e-4"), False),
    "tatoeba": Case("generate", "bleu", ("task.max_length=64", "task.max_target=48", "train.lr=5e-4"), False),
    "scitldr": Case("generate", "rougeL", ("task.mode=extract", "task.sentences=1", "task.max_length=384")),
    "scitldr-written": Case("generate", "rougeL", WRITE),
    "respond": Case("generate", "bleu", WRITE),
    "select": Case("match", "hits@1", ("task.max_length=96", "train.lr=1e-4")),
    "choose": Case("choose", "accuracy", ("task.max_length=96", "train.lr=5e-5")),
}


@dataclass(frozen=True)
class Row:
    """What one way of doing a case reached on its test rows."""

    case: str
    how: str
    score: str
    value: float
    scores: dict[str, float]


def read(path: Path) -> str:
    """The text of an xz file."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return file.read()


def parts(name: str, data: Path, most: int) -> dict[str, list[dict[str, Any]]]:
    """Rows to learn from, to choose weights by and to score, each a dict; drawn from one file where there is but one.

    Args:
        name: of the case.
        data: folder with `tasks/`.
        most: rows of dev and of test.
    """
    tasks, rng = data / "tasks", np.random.default_rng(0)
    found: dict[str, list[dict[str, Any]]] = {}
    if name == "multi30k":
        for part, file in (("train", "train"), ("dev", "val"), ("test", "test_2016_flickr")):
            sides = (read(tasks / "multi30k" / f"{file}.{side}.xz").splitlines() for side in ("en", "de"))
            found[part] = [{"source": a, "target": [b]} for a, b in zip(*sides, strict=True)]
    elif name == "tatoeba":
        groups: dict[str, list[str]] = {}
        for line in read(tasks / "tatoeba-en-zh" / "cmn.txt.xz").splitlines():
            english, chinese = line.split("\t")[:2]
            groups.setdefault(english, []).append(chinese)
        order = [list(groups)[i] for i in rng.permutation(len(groups))]
        held = min(1000, len(order) // 4)
        rows = [{"source": english, "target": groups[english]} for english in order]
        found = {"test": rows[:held], "dev": rows[held : 2 * held]}
        found["train"] = [{**row, "target": [one]} for row in rows[2 * held :] for one in row["target"]]
    elif name.startswith("scitldr"):
        for part in ("train", "dev", "test"):
            found[part] = [json.loads(line) for line in read(tasks / "scitldr" / f"{part}.jsonl.xz").splitlines()]
    else:
        lines = read(tasks / "xdailydialog" / "en_dev.txt.xz").splitlines()
        held = min(100, len(lines) // 4)
        texts = {"train": lines[held:], "dev": lines[:held]}
        texts["test"] = read(tasks / "xdailydialog" / "en_test.txt.xz").splitlines()
        for part, own in texts.items():
            found[part] = []
            for line in own:
                turns = [turn for one in line.split("\t")[0].split("__eou__") if (turn := one.strip())]
                for place in range(1, len(turns)):
                    found[part].append({"text": "\n".join(turns[max(0, place - 8) : place]), "target": [turns[place]]})
    for part in ("dev", "test"):
        found[part] = [found[part][i] for i in sorted(rng.permutation(len(found[part]))[:most].tolist())]
    return found


def among(rows: Sequence[dict[str, Any]], count: int) -> list[list[str]]:
    """For each row its response and then `count - 1` of other rows, always the same ones."""
    texts = list(dict.fromkeys(row["target"][0] for row in rows))
    found = []
    for number, row in enumerate(rows):
        drawn = np.random.default_rng(number).permutation(len(texts))[:count].tolist()
        others = [texts[i] for i in drawn if texts[i] != row["target"][0]]
        found.append([row["target"][0], *others[: count - 1]])
    return found


def files(name: str, data: Path, folder: Path, most: int) -> tuple[dict[str, Path], dict[str, list[dict[str, Any]]]]:
    """The rows of a case, and the files in which `bertsmith` reads them."""
    found = parts(name, data, most)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for part, rows in found.items():
        written: list[dict[str, Any]] = rows
        if name == "select":
            written = [{"query": row["text"], "positive": row["target"][0]} for row in rows]
        if name == "choose":
            written = []
            for number, (row, options) in enumerate(zip(rows, among(rows, 4), strict=True)):
                order = np.random.default_rng(number).permutation(len(options)).tolist()
                row["choices"], row["label"] = [options[i] for i in order], order.index(0)
                written.append({key: row[key] for key in ("text", "choices", "label")})
        paths[part] = folder / f"{name}-{part}-{len(rows)}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in written]
        paths[part].write_text("".join(lines), encoding="utf-8")
    return paths, found


def words_match(query: str, candidates: Sequence[str], weight: dict[str, float], average: float) -> list[float]:
    """BM25 of each candidate, k1 = 1.2 and b = 0.75.

    Source: Robertson & Zaragoza 2009, section 3.5.
    """
    from bertsmith.metrics.text import rouge_words

    asked = set(rouge_words(query))
    scores = []
    for candidate in candidates:
        own = Counter(rouge_words(candidate))
        norm = 1.2 * (0.25 + 0.75 * own.total() / average)
        scores.append(sum(weight.get(word, 0.0) * own[word] * 2.2 / (own[word] + norm) for word in asked & own.keys()))
    return scores


def counting(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, float], float]:
    """How rare each word of the responses is, and their mean length."""
    from bertsmith.metrics.text import rouge_words

    texts = [rouge_words(row["target"][0]) for row in rows]
    seen = Counter(word for text in texts for word in set(text))
    weight = {word: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for word, n in seen.items()}
    return weight, sum(map(len, texts)) / len(texts)


def baselines(name: str, found: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """What costs nothing."""
    from bertsmith.metrics.ranking import ranking_scores
    from bertsmith.metrics.text import bleu, is_chinese, rouge
    from bertsmith.tasks.extraction import oracle

    case, test, rows = CASES[name], found["test"], []
    if case.task == "generate":
        most = Counter(row["target"][0] for row in found["train"]).most_common(1)[0][0]
        ways: dict[str, list[str]] = {"most frequent": [most] * len(test)}
        if name.startswith("scitldr"):
            ways["lead"] = [row["source"][0] for row in test]
            ways["copy"] = [" ".join(row["source"]) for row in test]
            best = []
            for row in test:
                spans, at = [], 0
                for sentence in row["source"]:
                    spans.append((at, at + len(sentence)))
                    at += len(sentence) + 1
                chosen = oracle(" ".join(row["source"]), spans, row["target"], 1) or {0}
                best.append(row["source"][min(chosen)])
            ways["oracle (a bound)"] = best
        else:
            ways["copy"] = [row.get("source", row.get("text", "")).split("\n")[-1] for row in test]
        golds = [row["target"] for row in test]
        how = "zh" if is_chinese(gold for several in golds for gold in several) else "13a"
        for way, texts in ways.items():
            scores = {"bleu": bleu(golds, texts, how), **rouge(golds, texts)}  # type: ignore[arg-type]
            rows.append(Row(name, way, case.score, scores[case.score], scores))
        return rows
    weight, average = counting(found["train"])
    if name == "choose":
        right = []
        for row in test:
            shares = words_match(row["text"], row["choices"], weight, average)
            best = [place for place, one in enumerate(shares) if one == max(shares)]
            right.append((row["label"] in best) / len(best))
        value = float(np.mean(right))
        return [Row(name, "BM25", case.score, value, {"accuracy": value})]
    queries = [
        ([1] + [0] * (len(options) - 1), words_match(row["text"], options, weight, average))
        for row, options in zip(test, among(test, AMONG), strict=True)
    ]
    ranked = ranking_scores(queries)
    return [Row(name, f"BM25 among {AMONG}", case.score, ranked[case.score], ranked)]


def encoder(name: str, found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> Path:
    """The bundle that a case starts from."""
    from bertsmith.core.config import load
    from bertsmith.train.presets import preset
    from bertsmith.train.pretrain import PretrainConfig, pretrain

    if options.start is not None:
        return Path(options.start)
    if CASES[name].english:
        return minilm()
    out: Path = options.runs / f"{name}-encoder-{options.pretrain}"
    text = options.runs / f"{name}-text.txt"
    lines = [line for row in found["train"] for line in (row["source"], *row["target"])]
    text.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    sets = ["task.pairs=none", "vocab.size=8000", "vocab.lowercase=false", *options.set_encoder]
    config = load(PretrainConfig, preset=preset("laptop"), sets=[*sets, f"train.{options.pretrain}"])
    pretrain([str(text)], out, config, resume=(out / "run.json").exists(), threads=options.threads)
    return out


def finetuned(name: str, paths: dict[str, Path], start: Path, options: argparse.Namespace, *more: str) -> Path:
    """Learn a case, or take the run that did."""
    from bertsmith.core.config import load
    from bertsmith.train.finetune import config_class, finetune

    case = CASES[name]
    length = [f"train.{options.length}"]
    if options.tiny:
        length = [*TINY, *(["task.max_target=16"] if case.task == "generate" else [])]
    sets = [*case.sets, *more, *length, *options.set]
    key = "-".join([name, *more, *length, *options.set, f"rows{paths['train'].stem.rpartition('-')[2]}"])
    out: Path = options.runs / key.replace("/", "_")
    config = load(config_class(case.task), sets=sets)
    resume = (out / "run.json").exists()
    finetune(
        case.task, paths["train"], out, config, start=start, dev=paths["dev"], resume=resume, threads=options.threads
    )
    return out


def learned(
    name: str, paths: dict[str, Path], found: dict[str, list[dict[str, Any]]], start: Path, options: argparse.Namespace
) -> list[Row]:
    """What a model reaches, greedily and, where it writes, with several beginnings."""
    from bertsmith.evaluate.score import evaluate
    from bertsmith.metrics.ranking import ranking_scores
    from bertsmith.predict.predictor import Predictor

    case, test = CASES[name], found["test"]
    if name == "select":
        candidates = among(test, AMONG)
        bi = Predictor.open(finetuned(name, paths, start, options, "task.mode=bi", "task.turns=true"))
        cross = Predictor.open(finetuned(name, paths, start, options, "task.mode=cross", "task.turns=true"))
        first, second, both = [], [], []
        for row, texts in zip(test, candidates, strict=True):
            gold = [1] + [0] * (len(texts) - 1)
            quick = bi.similarity([row["text"]], texts)[0]
            exact = cross.similarity([row["text"]], texts)[0]
            top = set(np.argsort(-quick, kind="stable")[:10].tolist())
            first.append((gold, quick))
            second.append((gold, exact))
            # The bi-encoder's other ten stay behind all that the cross-encoder has read.
            both.append((gold, [1 + exact[i] if i in top else quick[i] - 2 for i in range(len(texts))]))
        ways = {"bi-encoder": first, "cross-encoder": second, "bi, then cross for its best 10": both}
        rows = []
        for way, queries in ways.items():
            scores = ranking_scores(queries)
            rows.append(Row(name, way, case.score, scores[case.score], scores))
        return rows
    predictor = Predictor.open(finetuned(name, paths, start, options))
    beams: dict[str, list[str]] = {"learned": []}
    if case.task == "generate" and "task.mode=extract" not in case.sets:
        beams[f"learned, {options.beams} beams"] = [f"task.num_beams={options.beams}"]
    rows = []
    for way, sets in beams.items():
        reached = dict(evaluate(predictor, paths["test"], sets=sets).scores)
        rows.append(Row(name, way, case.score, reached[case.score], reached))
    assert predictor.task is not None
    examples = getattr(predictor.task, "unlabelled")(paths["test"], predictor.tally)[:SHOWN]  # noqa: B009
    for row, answer in zip(test, predictor.examples(examples), strict=False):
        source: Any = row.get("source", row.get("text"))
        asked = source[0] if isinstance(source, list) else source.replace("\n", " / ")
        gold = row["choices"][row["label"]] if "choices" in row else row["target"][0]
        wrote = str(answer.get("generated", answer.get("chosen")))
        print(f"{name}: {asked[:100]}\n    gold:  {gold[:140]}\n    model: {wrote[:140]}", file=sys.stderr)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The lines to print."""
    lines = [f"{'case':17}{'how':34}{'score':10}{'value':>8}  rest"]
    for row in rows:
        rest = "  ".join(f"{name} {100 * value:.1f}" for name, value in row.scores.items() if name != row.score)
        lines.append(f"{row.case:17}{row.how:34}{row.score:10}{100 * row.value:8.1f}  {rest}")
    return "\n".join(lines)


def main() -> None:
    """Learn, compare, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--baselines", action="store_true", help="learn nothing")
    parser.add_argument("--length", default="epochs=10", help="of fine-tuning: epochs=10, steps=500 or budget=30m")
    parser.add_argument("--pretrain", default="budget=10m", help="of pretraining, where no encoder is given")
    parser.add_argument("--measured", type=int, default=1000, help="rows of dev and of test at most, drawn evenly")
    parser.add_argument("--beams", type=int, default=4, help="beginnings kept while a text is written")
    parser.add_argument("--from", dest="start", type=Path, help="the encoder of all cases")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of fine-tuning")
    parser.add_argument("--set-encoder", action="append", default=[], metavar="KEY=VALUE", help="one of pretraining")
    parser.add_argument("--threads", type=int, help="processor threads")
    parser.add_argument("--data", type=Path, help="folder with tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/generation"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "generation.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line a row instead of the table")
    parser.add_argument("--tiny", action="store_true", help="two updates: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    names = options.cases.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise SystemExit(f"--cases {','.join(unknown)}: the cases are {', '.join(CASES)}")
    rows: list[Row] = []
    for name in names:
        paths, found = files(name, data, options.runs, options.measured)
        mine = baselines(name, found)
        if not options.baselines:
            mine += learned(name, paths, found, encoder(name, found, options), options)
        rows += mine
        if options.json:
            for row in mine:
                print(json.dumps(asdict(row)), flush=True)
    if not options.json:
        print(f"{machine()}\n{table(rows)}")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "length": None if options.baselines else options.length,
        "measured": options.measured,
        "settings": options.set,
        "rows": [asdict(row) for row in rows],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
