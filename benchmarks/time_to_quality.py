"""How soon our default preset predicts held-out text as well as `transformers.Trainer` does after an hour.

Claim: the held-out MLM loss that Trainer reaches in 60 minutes with run_mlm.py's own settings is reached by
`bertsmith pretrain` in at most 5 minutes, and the one that a tuned Trainer reaches in 60 minutes in at most 20.

What is compared: the English Wikipedia extract, one vocabulary, the same documents held out, and the same 15 % of
masks in them; each side's last weights are scored by `evaluate.pretraining.held_out_scores` in fp32. Trainer trains a
BertForMaskedLM with as many layers, units and heads as our preset `laptop` has.

    ours      `bertsmith pretrain TEXT --vocab … --budget M`, all defaults; M minutes count everything: reading and
              cutting the text too.
    run_mlm   run_mlm.py's settings: text joined and cut into sequences of 512, batches of 8, rate 5e-5 falling
              linearly to 0 over the hour, dropout 0.1, fp32. Its minutes count training alone.
    tuned     sequences of 128, batches of 64, rate 1e-3 with 6 % warm-up, falling linearly to 0 over the hour; bf16
              where the processor has it.

How it is measured: one side after the other, each in a process of its own. Trainer's number of steps is chosen so that
it fills its minutes, from the speed of its first steps: its schedule ends when its time does.

    python benchmarks/time_to_quality.py                              # two hours and a half
    python benchmarks/time_to_quality.py --trainer-minutes 12 --minutes 1,4

Last result: none yet.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from _ground import data_folder, machine

OURS = "ours"
MASKED = 0.15
PROBE = 12  # steps whose speed says how many fill the time; the first two do not count


@dataclass(frozen=True)
class Recipe:
    """How Trainer is set, as far as it is not by default."""

    length: int
    arguments: dict[str, Any]
    bf16: bool


RECIPES = {
    "run_mlm": Recipe(512, {"per_device_train_batch_size": 8}, bf16=False),
    "tuned": Recipe(128, {"per_device_train_batch_size": 64, "learning_rate": 1e-3, "warmup_steps": 0.06}, bf16=True),
}


@dataclass(frozen=True)
class Quality:
    """What a side reached.

    Attributes:
        side: OURS or one of RECIPES.
        minutes: that it was given.
        took: minutes that it took, from the start of its process.
        steps: updates.
        mlm_loss: on held-out text, nats.
        mlm_accuracy: share of masked pieces.
    """

    side: str
    minutes: float
    took: float
    steps: int
    mlm_loss: float
    mlm_accuracy: float


def scores(folder: Path, prepared: Path) -> dict[str, float]:
    """Held-out MLM loss and accuracy of a Hugging Face folder or a bundle.

    Args:
        folder: the model.
        prepared: with `vocab/` and `store/`.
    """
    import torch

    from bertsmith.core.bundle import Bundle
    from bertsmith.core.device import choose_precision, set_threads
    from bertsmith.corpus.store import Store
    from bertsmith.evaluate.pretraining import held_out_scores
    from bertsmith.model.convert import load_model
    from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
    from bertsmith.tokenizer.load import Tokenizer
    from bertsmith.train.feed import evaluation_batches

    set_threads()
    task = Pretraining(Tokenizer.load(prepared / "vocab"), PretrainingConfig(pairs="none"))
    store = Store.open(prepared / "store")
    batches = evaluation_batches(task, store, task.rows(store)[1], batch_tokens=4096)
    model = load_model(Bundle.open(folder))
    return held_out_scores(model, task, batches, choose_precision(torch.device("cpu"), "fp32"))


def train_ours(text: Sequence[str], prepared: Path, out: Path, length: Sequence[str], sets: Sequence[str]) -> int:
    """Run `bertsmith pretrain`.

    Args:
        text: what to learn from.
        prepared: with `vocab/`.
        out: the run folder.
        length: options such as `--budget 5m`.
        sets: further settings.

    Returns:
        Updates.
    """
    command = [sys.executable, "-m", "bertsmith.cli.main", "pretrain", *text, "--vocab", str(prepared / "vocab")]
    command += [*length, "--out", str(out), *chain.from_iterable(("--set", one) for one in sets)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return int(json.loads((out / "run.json").read_text(encoding="utf-8"))["steps"])


def train_theirs(recipe: Recipe, prepared: Path, out: Path, minutes: float, width: int, layers: int, heads: int) -> int:
    """Let Trainer learn from the documents that are not held out.

    Args:
        recipe: its settings.
        prepared: with `vocab/` and `store/`.
        out: gets the Hugging Face folder.
        minutes: to train for.
        width: of the model.
        layers: of the model.
        heads: of the model.

    Returns:
        Updates.
    """
    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from bertsmith.core.device import choose_precision, set_threads
    from bertsmith.corpus.store import Store
    from bertsmith.tasks.pretraining import Pretraining
    from bertsmith.tokenizer.load import Tokenizer

    set_threads()
    own = Tokenizer.load(prepared / "vocab")
    store = Store.open(prepared / "store")
    learn, _ = Pretraining(own).rows(store)
    bounds = np.asarray(store.sentence_offsets)
    joined = np.concatenate(
        [
            piece
            for first, stop in zip(learn.first.tolist(), learn.stop.tolist(), strict=True)
            for piece in ([own.cls_id], store.read(int(bounds[first]), int(bounds[stop])), [own.sep_id])
        ]
    )
    chunks = joined[: len(joined) // recipe.length * recipe.length].reshape(-1, recipe.length)

    class Chunks(torch.utils.data.Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return len(chunks)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"input_ids": chunks[index].tolist()}

    stamps: list[float] = []

    class Stamps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stamps.append(time.monotonic())

    tokenizer = AutoTokenizer.from_pretrained(str(prepared / "vocab"))
    bf16 = recipe.bf16 and choose_precision(torch.device("cpu")).dtype == torch.bfloat16

    def train(steps: int) -> Any:
        torch.manual_seed(0)
        model = BertForMaskedLM(
            BertConfig(
                vocab_size=len(tokenizer),
                num_hidden_layers=layers,
                hidden_size=width,
                num_attention_heads=heads,
                intermediate_size=4 * width,
            )
        )
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                output_dir=scratch, max_steps=steps, use_cpu=True, bf16=bf16, save_strategy="no", **recipe.arguments
            )
            Trainer(
                model=model,
                args=arguments,
                train_dataset=Chunks(),
                data_collator=DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=MASKED),
                callbacks=[Stamps()],
            ).train()
        return model

    began = time.monotonic()
    train(PROBE)
    each = (stamps[-1] - stamps[1]) / (PROBE - 2)
    steps = max(1, int((60 * minutes - (time.monotonic() - began)) / each))
    model = train(steps)
    model.save_pretrained(str(out))
    tokenizer.save_pretrained(str(out))
    return steps


def main() -> None:
    """Run all sides in turn, print the table; with `--side`, be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", default="5,20", help="of ours: beside run_mlm's, and beside the tuned one's hour")
    parser.add_argument("--trainer-minutes", type=float, default=60.0, help="of Trainer's sides")
    parser.add_argument("--data", type=Path, help="folder with corpus/ [default: BERTSMITH_DATA]")
    parser.add_argument("--text", nargs="+", help="text to read [default: enwiki of --data, else pydoc:]")
    parser.add_argument("--json", action="store_true", help="print a JSON line a side instead of the table")
    parser.add_argument("--tiny", action="store_true", help="toy models: does this script still run?")
    parser.add_argument("--side", choices=RECIPES, help=argparse.SUPPRESS)
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from bertsmith.train.presets import SHAPES

    layers, width, heads = (1, 32, 2) if options.tiny else SHAPES["laptop"]
    if options.side:
        steps = train_theirs(
            RECIPES[options.side], options.prepared, options.out, options.trainer_minutes, width, layers, heads
        )
        (options.out / "steps.json").write_text(json.dumps(steps))
        return

    from bertsmith.tasks.base import say_on_stderr
    from bertsmith.tasks.preparation import make_vocabulary, prepare
    from bertsmith.tasks.vocabulary import save_vocabulary
    from bertsmith.tokenizer.train import VocabConfig
    from bertsmith.train.presets import preset

    data = data_folder(options.data)
    corpus = data / "corpus" / "enwiki.txt.xz" if data else None
    text = options.text or [str(corpus) if corpus and corpus.exists() else "pydoc:"]
    ours = [float(part) for part in options.minutes.split(",")]
    if len(ours) != len(RECIPES):
        raise SystemExit(f"--minutes {options.minutes}: two numbers with a comma between them")
    sets = ["model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=2"] if options.tiny else []
    found: list[Quality] = []
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary)
        pieces = 300 if options.tiny else preset("laptop")["vocab"]["size"]
        tokenizer = make_vocabulary(text, VocabConfig(size=pieces), say_on_stderr)
        save_vocabulary(tokenizer, prepared / "vocab")
        prepare(text, tokenizer, prepared / "store", say_on_stderr)
        sides = [(OURS, minutes) for minutes in ours] + [(name, options.trainer_minutes) for name in RECIPES]
        for number, (side, minutes) in enumerate(sides):
            out, began = prepared / f"{side}-{number}", time.monotonic()
            if side == OURS:
                length = ["--steps", "2"] if options.tiny else ["--budget", f"{minutes * 60:g}s"]
                steps, model = train_ours(text, prepared, out, length, sets), out / "bundle"
            else:
                command = [sys.executable, __file__, "--side", side, "--prepared", str(prepared), "--out", str(out)]
                command += ["--trainer-minutes", str(minutes), *(["--tiny"] if options.tiny else [])]
                subprocess.run(command, check=True, stdout=sys.stderr)
                steps, model = json.loads((out / "steps.json").read_text()), out
            took = (time.monotonic() - began) / 60
            reached = scores(model, prepared)
            found.append(Quality(side, minutes, took, steps, reached["mlm_loss"], reached["mlm_accuracy"]))
            if options.json:
                print(json.dumps(asdict(found[-1]) | {"machine": machine()}), flush=True)
    if not options.json:
        print(machine())
        for one in found:
            print(
                f"{one.side:8}{one.minutes:6g} min (took {one.took:5.1f}){one.steps:8,} updates   "
                f"held-out MLM loss {one.mlm_loss:.3f}   masked pieces right {one.mlm_accuracy:.1%}"
            )
        for (name, _), mine in zip(RECIPES.items(), found, strict=False):
            theirs = next(one for one in found if one.side == name)
            verdict = "reached" if mine.mlm_loss <= theirs.mlm_loss else "not reached"
            print(f"{name}'s {theirs.minutes:g} minutes: {verdict} by ours in {mine.minutes:g}")


if __name__ == "__main__":
    main()
