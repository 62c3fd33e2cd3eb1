"""The demo, step by step: pretrain a small BERT, then find out what that was good for.

Command: `bertsmith demo`, or `bertsmith demo --text FOLDER`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.device import choose_device, choose_precision
from bertsmith.core.events import read_metrics
from bertsmith.core.files import atomic_write
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.store import Store
from bertsmith.evaluate.baselines import ngram_accuracy
from bertsmith.evaluate.pretraining import held_out_scores
from bertsmith.model.convert import load_model
from bertsmith.recipes.code_words import Folder, write_data
from bertsmith.tasks.pretraining import Pretraining
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.feed import evaluation_batches
from bertsmith.train.finetune import config_class, finetune
from bertsmith.train.presets import preset
from bertsmith.train.pretrain import PretrainConfig, pretrain
from bertsmith.train.run import BUNDLE, FACTS, saved_config
from bertsmith.train.samples import Guess

PRETRAINING, DATA, GUESSES = "pretraining", "data", "guesses.json"
VOCABULARY = 8000
SMALL = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 320}
"""What five minutes can fill: see docs/log.md."""
STEPS, BATCH = 400, 16
ARMS: Mapping[str, Mapping[str, Any]] = {
    "pretrained": {"init": "bundle", "lr": 1e-3},
    "random": {"init": "random", "lr": 2e-3},
}
"""Both learn from the same sentences for as many steps; each at the rate that did best for it on other sentences."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run computes with, and whether it prints.

    Attributes:
        device: where to compute; None chooses.
        threads: processor threads; None takes one for each core.
        quiet: print no progress.
    """

    device: str | None = None
    threads: int | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Learned:
    """A finished pretraining run.

    Attributes:
        run: its folder.
        before: scores on held-out text before the first step.
        after: scores after the last one.
        words: hidden words of held-out text, `{"before", "word", "after", "guesses": {step: {"best", "true"}}}`.
    """

    run: Path
    before: Mapping[str, float]
    after: Mapping[str, float]
    words: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Tagger:
    """Fine-tuning runs that differ in nothing but the seed.

    Attributes:
        run: their folder; `run/bundle` is the one best on dev.
        scores: of the test sentences, `{"f1": {"mean", "sd", "each"}, …}`, 0 to 1.
    """

    run: Path
    scores: Mapping[str, Mapping[str, Any]]


def prepare_data(out: Path, source: str, say: Callable[[str], None], *, sizes: Sequence[int] | None = None) -> Folder:
    """Text and labelled sentences for finding code words; what is there already stays.

    Args:
        out: the demo's folder.
        source: `pydoc:`, or `pydoc:` with names of packages.
        say: takes lines for the user.
        sizes: see `write_data`.
    """
    if not (out / DATA).exists():
        say(f"reading the documentation strings on this machine ({source}) …")
        documents = read([source], Tally())
        return (
            write_data(documents, out / DATA, say)
            if sizes is None
            else write_data(documents, out / DATA, say, sizes=sizes)
        )
    say(f"{out / DATA}: there already")
    return Folder(out / DATA)


def pretrain_small(
    text: str, out: Path, minutes: float, machine: Machine, *, sets: Sequence[str] = (), command: str = ""
) -> Learned:
    """Pretrain a small BERT; goes on with what is there already.

    Args:
        text: what to learn from.
        out: the demo's folder.
        minutes: training time, unless `sets` say how many steps, tokens or epochs.
        machine: what to compute with.
        sets: changes to the settings, such as `vocab.size=4000`.
        command: what repeats this; for the report.

    Raises:
        DataError: the text cannot be used.
        KeyboardInterrupt: stopped on request, after saving.
    """
    run = out / PRETRAINING
    started = (run / FACTS).exists()
    if not started:
        next(read([text], Tally()))  # text that cannot be read leaves no run behind
    base = preset("laptop")
    base["vocab"] = {"size": VOCABULARY}
    base["model"] |= SMALL
    base["train"] |= {"batch_tokens": 2048, "lr": 2e-3, "checkpoint_every": "60s"}
    if not any(item.startswith(("train.steps", "train.tokens", "train.epochs")) for item in sets):
        base["train"]["budget"] = 60 * minutes
    settings = load(PretrainConfig, preset=base, sets=sets)

    def watch(step: int, guesses: list[Guess]) -> None:
        words = _words(run)
        for number, guess in enumerate(guesses):
            sample = guess.sample
            if number == len(words):
                words.append({"before": sample.before, "word": sample.word, "after": sample.after, "guesses": {}})
            words[number]["guesses"][str(step)] = {"best": guess.best, "true": guess.true}
        atomic_write(run / GUESSES, (json.dumps(words, ensure_ascii=False, indent=1) + "\n").encode())

    pretrain(
        [text],
        run,
        settings,
        resume=started,
        device=machine.device,
        threads=machine.threads,
        quiet=machine.quiet,
        command=command,
        watch=watch,
    )
    scores = [line for line in read_metrics(run) if "eval/mlm_loss" in line]
    before, after = (
        {name.removeprefix("eval/"): value for name, value in line.items() if name.startswith("eval/")}
        for line in (scores[0], scores[-1])
    )
    return Learned(run, before, after, _words(run))


def train_tagger(
    arm: str, data: Folder, out: Path, seeds: Sequence[int], machine: Machine, *, steps: int = STEPS, command: str = ""
) -> Tagger:
    """Learn to find code words from the labelled sentences; goes on with what is there already.

    The weights of the last step count: the sentences to choose by only settle which seed's bundle is kept, so that
    the score needs no more labels than those to learn from.

    Args:
        arm: `pretrained` or `random`, one of `ARMS`.
        data: the sentences.
        out: the demo's folder, with a finished pretraining run.
        seeds: one run each.
        machine: what to compute with.
        steps: updates of each run.
        command: what repeats this; for the report.

    Raises:
        KeyboardInterrupt: stopped on request, after saving.
    """
    run = out / f"tagger-{arm}"
    base = {"train": {"steps": steps, "batch_size": BATCH, "evaluations": 1, "warmup_ratio": 0.1, **ARMS[arm]}}
    finetune(
        "tag",
        data.train,
        run,
        load(config_class("tag"), preset=base),
        start=out / PRETRAINING,
        dev=data.dev,
        test=data.test,
        seeds=seeds,
        resume=(run / FACTS).exists(),
        device=machine.device,
        threads=machine.threads,
        quiet=machine.quiet,
        command=command,
    )
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    return Tagger(run, scores["test"])


def beside_ngrams(run: Path, machine: Machine) -> dict[str, float]:
    """How many hidden words of held-out text a pretrained model finds, and how many n-grams find at the same places.

    Args:
        run: a finished pretraining run.
        machine: what to compute with.

    Returns:
        `unigram`, `trigram` and `bert`: shares of the hidden words, 0 to 1; `words`: how many were hidden.
    """
    config, bundle = saved_config(run, PretrainConfig), Bundle.open(run / BUNDLE)
    tokenizer, store = Tokenizer.load(bundle.path), Store.open(run / "store")
    task = Pretraining(tokenizer, config.task)
    learn, held_out = task.rows(store)
    batches = evaluation_batches(task, store, held_out, config.train.batch_tokens)
    device = choose_device(machine.device)
    model = load_model(bundle).to(device)
    precision = choose_precision(device, config.train.precision)
    return {
        **ngram_accuracy(store, learn, batches, tokenizer.vocab_size),
        "bert": held_out_scores(model, task, batches, precision)["mlm_accuracy"],
        "words": sum(len(batch.targets["mlm_labels"]) for batch in batches),
    }


def _words(run: Path) -> list[dict[str, Any]]:
    path = run / GUESSES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
