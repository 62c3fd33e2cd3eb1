"""What each choice of pretraining is worth: one budget, one text, one change at a time.

No claim but what the defaults follow: the figures are reported as measured.

How it is measured: the Wikipedia extract is cut once, with one vocabulary. Each arm is pretrained on it for `--budget`,
from the same fresh weights where its shape allows: `plain` is the shape of the preset `laptop` with everything else
at its simplest (MLM at 15 %, NSP, AdamW, one stage), `laptop` the preset as it is, and every other arm differs from
`plain` in one thing. Held-out text is hidden alike for all. The MLM loss compares encoders; the arm `replaced` has none
(its generator's is shown in brackets), so each encoder also learns the task `--case` from 2,000 rows, as
benchmarks/downstream.py learns it, which compares all of them.

    python benchmarks/ablation.py                                        # five hours, most of them pretraining
    python benchmarks/ablation.py --arms plain,replaced --budget 5m --seeds 1
    python benchmarks/ablation.py --steps 20000                          # as many updates each, however long they take

Runs stay in `--runs`, so a stopped benchmark goes on where it was; figures go to `--results`.

Last result: none yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from _ground import ROOT, data_folder, machine
from downstream import CASES, CORPORA, INITS, TINY_SHAPE, learn

PLAIN = ["task.mask_rate=0.15", "task.mask_rate_end=0.15", "train.stages=[]"]
ARMS: dict[str, list[str]] = {
    "plain": PLAIN,
    "laptop": [],
    "classic": [*PLAIN, "model.architecture=bert", "model.intermediate_size=768"],
    "masks 30 to 15 %": [*PLAIN, "task.mask_rate=0.3"],
    "no pairs": [*PLAIN, "task.pairs=none"],
    "whole words": [*PLAIN, "task.masking=whole-word"],
    "causal first": [*PLAIN[:2], 'train.stages=[{share=0.25, objective="causal", predicted=0.5}, {share=0.75}]'],
    "lengths": [*PLAIN[:2], "train.stages=[{share=0.6, max_length=64}, {share=0.4}]"],
    "muon": [*PLAIN, "train.name=muon"],
    "average": [*PLAIN, "train.average=0.2"],
    "replaced": [*PLAIN, "task.objective=replaced"],
}


@dataclass(frozen=True)
class Arm:
    """What a choice reached.

    Attributes:
        name: of ARMS.
        steps: updates.
        tokens: seen.
        minutes: of training.
        mlm_loss: on held-out text, nats; of the generator where tokens are replaced.
        rtd_loss: the encoder's where tokens are replaced, else None.
        mean: dev score of the task, over seeds.
        sd: its standard deviation.
        each: a score a seed.
    """

    name: str
    steps: int
    tokens: int
    minutes: float
    mlm_loss: float
    rtd_loss: float | None
    mean: float
    sd: float
    each: list[float]


def prepared(text: Path, folder: Path, pieces: int) -> Path:
    """The text as a token store with its vocabulary beside it, made once.

    Args:
        text: to read.
        folder: gets `vocab/` and `store/`.
        pieces: of the vocabulary.
    """
    from bertsmith.tasks.base import say_on_stderr
    from bertsmith.tasks.preparation import is_store, make_vocabulary, prepare
    from bertsmith.tasks.vocabulary import save_vocabulary
    from bertsmith.tokenizer.train import VocabConfig

    if not is_store(folder / "store"):
        tokenizer = make_vocabulary([str(text)], VocabConfig(size=pieces), say_on_stderr)
        save_vocabulary(tokenizer, folder / "vocab")
        prepare([str(text)], tokenizer, folder / "store", say_on_stderr)
    return folder / "store"


def pretrained(name: str, store: Path, runs: Path, length: str, sets: Sequence[str]) -> Path:
    """Pretrain an arm, or take the run that did.

    Args:
        name: of ARMS.
        store: what to learn from.
        runs: where runs are kept.
        length: such as `budget=30m`.
        sets: further settings.
    """
    from bertsmith.core.config import load
    from bertsmith.train.presets import preset
    from bertsmith.train.pretrain import PretrainConfig, pretrain

    out = runs / f"{name.replace(' ', '-').replace('%', 'percent')}-{length}"
    config = load(PretrainConfig, preset=preset("laptop"), sets=[f"train.{length}", *sets, *ARMS[name]])
    pretrain([str(store)], out, config, resume=(out / "run.json").exists())
    return out


def table(arms: Sequence[Arm], case: str) -> str:
    """A line an arm.

    Args:
        arms: all that were measured.
        case: the task.
    """
    lines = [f"{'arm':18}{'updates':>9}{'tokens':>9}{'minutes':>9}{'MLM loss':>10}{case:>18}"]
    for arm in arms:
        loss = f"{arm.mlm_loss:.3f}" if arm.rtd_loss is None else f"({arm.mlm_loss:.3f})"
        score = f"{100 * arm.mean:.1f} ± {100 * arm.sd:.1f}"
        lines.append(f"{arm.name:18}{arm.steps:9,}{arm.tokens / 1e6:8.1f}M{arm.minutes:9.1f}{loss:>10}{score:>18}")
    return "\n".join(lines)


def main() -> None:
    """Pretrain and fine-tune every arm, print and write the table."""
    from bertsmith.core.events import read_metrics
    from bertsmith.train.presets import preset

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS), help="which, with commas between them")
    parser.add_argument("--budget", default="30m", help="of each arm's pretraining")
    parser.add_argument("--steps", help="so many updates each, instead of a budget")
    parser.add_argument("--case", default="conll2003", help=f"what each encoder learns then, of {', '.join(CASES)}")
    parser.add_argument("--seeds", default="1,2,3", help="a fine-tuning run for each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all arms")
    parser.add_argument("--text", type=Path, help="text to read [default: the extract in the language of the case]")
    parser.add_argument("--data", type=Path, help="folder with corpus/ and tasks/ [default: BERTSMITH_DATA]")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "ablation.json")
    parser.add_argument("--json", action="store_true", help="print a JSON line an arm instead of the table")
    parser.add_argument("--tiny", action="store_true", help="toy encoders: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA to its folder, or give --data")
    names = options.arms.split(",")
    if unknown := [name for name in names if name not in ARMS]:
        raise SystemExit(f"--arms {','.join(unknown)}: the arms are {', '.join(ARMS)}")
    if options.case not in CASES:
        raise SystemExit(f"--case {options.case}: the cases are {', '.join(CASES)}")
    length = f"steps={options.steps}" if options.steps else f"budget={options.budget}"
    pieces, sets, settings = preset("laptop")["vocab"]["size"], options.set, list[str]()
    if options.tiny:
        length, pieces, sets = "steps=4", 300, [*TINY_SHAPE, *options.set]
        settings = ["train.steps=2", "train.evaluations=1"]
    text = options.text or data / "corpus" / CORPORA[CASES[options.case].language]
    store = prepared(text, options.runs / "prepared", pieces)
    arms = []
    for name in names:
        encoder = pretrained(name, store, options.runs, length, sets)
        last = read_metrics(encoder)[-1]
        scores = json.loads((encoder / "scores.json").read_text(encoding="utf-8"))["held_out"]
        seeds = [int(seed) for seed in options.seeds.split(",")]
        row = learn(options.case, INITS[0], encoder, data, options.runs, seeds, settings)
        reached = scores["mlm_loss"], scores.get("rtd_loss"), row.mean, row.sd, row.each
        arms.append(Arm(name, last["step"], last["tokens"], last["seconds"] / 60, *reached))
        if options.json:
            print(json.dumps(asdict(arms[-1])), flush=True)
    if not options.json:
        print(f"{machine()}\n{table(arms, options.case)}")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "case": options.case,
        "length": length,
        "settings": sets,
        "arms": [asdict(arm) for arm in arms],
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {options.results}", file=sys.stderr)


if __name__ == "__main__":
    main()
