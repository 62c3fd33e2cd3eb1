"""What ten more minutes on the text of a field are worth, and what is forgotten for them.

Claim: from one encoder trained on Wikipedia, ten more minutes on unlabelled film reviews improve sentiment from 200
labelled reviews (test accuracy, mean of 5 seeds) over ten more minutes on Wikipedia.

How it is measured: an encoder is pretrained on the English Wikipedia extract for `--budget` (or given with
`--encoder`, a run). Each arm goes on from it for as long: on Wikipedia (`more`), on reviews (`field`), and on reviews
with a fifth of Wikipedia mixed in (`replay`); `none` goes no further. Then `finetune classify` learns from 200
reviews, for each seed the same ones in each arm, keeps the weights best on 600 others, and is scored on the test
reviews. Held-out loss on both corpora, before and after, is what each run reports (`continued.watch`).

    python benchmarks/adaptation.py                        # about two hours
    python benchmarks/adaptation.py --encoder runs/en --seeds 1,2

Runs stay in `--runs`, so a stopped benchmark goes on where it was; the figures go to `--results`.

Last result: none yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _ground import ROOT, data_folder, machine
from downstream import TINY_SHAPE, pretrained

ARMS = ("none", "more", "field", "replay")
REVIEWS = "corpus/imdb-unlabelled.jsonl.xz"
LABELLED = {split: f"tasks/imdb/{split}.jsonl.xz" for split in ("train", "test")}
LEARNING = ["train.rows=200", "train.steps=150", "task.max_length=256"]


def go_on(arm: str, encoder: Path, data: Path, runs: Path, length: str, shape: Sequence[str]) -> Path:
    """The encoder of an arm: trained further, or the one of a run that did.

    Args:
        arm: of ARMS.
        encoder: the run to go on from.
        data: folder with `corpus/`.
        runs: where runs are kept.
        length: a setting such as `budget=10m`.
        shape: further settings.
    """
    from bertsmith.core.config import load
    from bertsmith.train.presets import preset
    from bertsmith.train.pretrain import PretrainConfig, pretrain

    if arm == "none":
        return encoder
    wikipedia = str(encoder / "store")
    text = wikipedia if arm == "more" else str(data / REVIEWS)
    other = {"more": f'continued.watch=["{data / REVIEWS}"]', "field": f'continued.watch=["{wikipedia}"]'}
    settings = [f"train.{length}", *shape, other.get(arm, f'continued.replay=["{wikipedia}"]')]
    config = load(PretrainConfig, preset=preset("laptop", going_on=True), sets=settings)
    out = runs / f"{arm}-{length}"
    pretrain([text], out, config, start=encoder / "bundle", resume=(out / "run.json").exists())
    return out


def learn(arm: str, start: Path, data: Path, runs: Path, seeds: Sequence[int], sets: Sequence[str]) -> dict[str, Any]:
    """Fine-tune an arm's encoder for all seeds, or take the runs that did.

    Args:
        arm: of ARMS.
        start: its encoder.
        data: folder with `tasks/`.
        runs: where runs are kept.
        seeds: one run each.
        sets: settings.

    Returns:
        `mean`, `sd` and `each` of the test accuracy.
    """
    from bertsmith.core.config import load
    from bertsmith.train.finetune import config_class, finetune

    out = runs / f"sentiment-{arm}-seeds-{'-'.join(map(str, seeds))}"
    train, test = (data / LABELLED[split] for split in ("train", "test"))
    config, resume = load(config_class("classify"), sets=sets), (out / "run.json").exists()
    finetune("classify", train, out, config, start=start, test=test, seeds=seeds, resume=resume)
    found: dict[str, Any] = json.loads((out / "scores.json").read_text(encoding="utf-8"))["test"]["accuracy"]
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line an arm: accuracy, and held-out loss on both corpora before and after.

    Args:
        rows: what `main` gathers.
    """
    lines = [f"{'ten more minutes on':20}{'test accuracy':>16}  held-out MLM loss, before → after"]
    for row in rows:
        losses = "; ".join(
            f"{Path(one['corpus']).name} {one['before']['mlm_loss']:.3f} → {one['after']['mlm_loss']:.3f}"
            for one in row["forgetting"]
        )
        accuracy = f"{100 * row['mean']:.1f} ± {100 * row['sd']:.1f}"
        lines.append(f"{row['arm']:20}{accuracy:>16}  {losses}")
    return "\n".join(lines)


def main() -> None:
    """Train all arms, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS), help=f"of {', '.join(ARMS)}")
    parser.add_argument("--budget", default="10m", help="of the first pretraining, and of each arm's")
    parser.add_argument("--encoder", type=Path, help="a pretraining run on Wikipedia to go on from")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="a fine-tuning run for each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of fine-tuning")
    parser.add_argument("--data", type=Path, help="folder with corpus/ and tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/adaptation"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "adaptation.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line an arm instead of the table")
    parser.add_argument("--tiny", action="store_true", help="a toy encoder: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    arms, seeds = options.arms.split(","), [int(seed) for seed in options.seeds.split(",")]
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise SystemExit(f"--arms {','.join(unknown)}: the arms are {', '.join(ARMS)}")
    length, shape, settings = f"budget={options.budget}", [], [*LEARNING, *options.set]
    if options.tiny:
        length, shape = "steps=2", TINY_SHAPE
        settings += ["train.steps=2", "train.evaluations=1", "task.max_length=32"]

    encoder = options.encoder or pretrained("english", data, options.runs, length, shape)
    # Shape and vocabulary are those of the encoder from here on.
    others = [one for one in shape if not one.startswith(("model.", "vocab."))]
    rows = []
    for arm in arms:
        start = go_on(arm, encoder, data, options.runs, length, others)
        scores = json.loads((start / "scores.json").read_text(encoding="utf-8"))
        row = {"arm": arm, **learn(arm, start, data, options.runs, seeds, settings)}
        rows.append(row | {"forgetting": scores.get("forgetting", [])})
        if options.json:
            print(json.dumps(rows[-1]), flush=True)
    if not options.json:
        print(f"{machine()}\n{table(rows)}")
    result = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "length": length, "seeds": seeds}
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result | {"settings": settings, "rows": rows}, indent=2) + "\n", "utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
