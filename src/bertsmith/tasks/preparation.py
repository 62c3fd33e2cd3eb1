"""From text to what pretraining reads: a vocabulary, and a token store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from bertsmith.core.config import Config
from bertsmith.core.device import usable_cores
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.lock import is_held
from bertsmith.core.runner import Crew, boot, is_done, run
from bertsmith.corpus.blocks import PLAN, STANDARD_INPUT, Plan
from bertsmith.corpus.build import refuse_other
from bertsmith.corpus.clean import CleanConfig, Cleaner
from bertsmith.corpus.dedup import DedupConfig
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.store import MANIFEST, Store
from bertsmith.tasks.prepare_job import LAST, SAID, TALLY, Screen, progress, save_vocabulary, steps
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.segment import HAN, rjieba_cut
from bertsmith.tokenizer.train import VocabConfig, train_wordpiece, unk_report

Say = Callable[[str], None]
REPORT_DOCUMENTS = 500
SAMPLES, SAMPLE = 64, 4096
WORTH_A_POOL = 8_000_000
"""Bytes of files from which a pool of processes is faster than one."""


class CorpusConfig(Config):
    """How text becomes a token store."""

    chinese_words: bool = Field(
        False, description="mark whole Chinese words (extra fast), for whole-word and span masking"
    )
    clean: CleanConfig = Field(default_factory=CleanConfig)
    dedup: DedupConfig = Field(default_factory=DedupConfig)


class PrepareConfig(Config):
    """Everything that `corpus prepare` is described by; the names are those of a pretraining run."""

    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    vocab: VocabConfig = Field(default_factory=VocabConfig)


def is_store(path: str | Path) -> bool:
    """Whether `path` is a token store."""
    return (Path(path) / MANIFEST).is_file()


def make_vocabulary(inputs: Sequence[str], config: VocabConfig, say: Say) -> Tokenizer:
    """Train a vocabulary on text, and say what share of its words it cannot write, script by script.

    Args:
        inputs: files, folders, globs or `pydoc:`.
        config: size, case, accents.
        say: takes lines for the user.
    """
    tokenizer = train_wordpiece((document.text for document in read(inputs, Tally())), config, say=say)
    say(f"vocabulary: {tokenizer.vocab_size:,} pieces")
    texts = (document.text for document, _ in zip(read(inputs, Tally()), range(REPORT_DOCUMENTS), strict=False))
    for script, (words, unknown) in unk_report(tokenizer, texts).items():
        say(f"  {script}: {unknown / words:.3%} of {words:,} words are [UNK]")
    return tokenizer


def prepare(
    inputs: Sequence[str],
    tokenizer: Tokenizer | None,
    out: Path,
    say: Say,
    config: CorpusConfig | None = None,
    *,
    vocab: VocabConfig | None = None,
    crew: Crew | None = None,
    screen: Screen | None = None,
) -> Store:
    """Read text, clean it, leave out copies, split it into sentences, encode it and write a token store.

    The work is a job in a hidden folder beside `out`, shared by one or more ranks; the store is the same to the byte
    however many they are. After a kill the same call goes on. The store has its vocabulary in `vocab/`.

    Args:
        inputs: files, folders, globs or `pydoc:`.
        tokenizer: the vocabulary; None trains one on the cleaned text.
        out: the store's folder.
        say: takes lines for the user: what was skipped and mended, by reason.
        config: what is cleaned and left out; the store's manifest keeps it, with samples.
        vocab: how a vocabulary is trained.
        crew: who does the work; by default this process, or a pool of processes where there is much text.
        screen: what leaves out toxic documents, where the config names a classifier: `predict.screening.screening`.

    Raises:
        ConfigError: a setting needs a package that is absent, or a rank failed; the call can be repeated.
        DataError: nothing to read, or nothing left of it.
        BundleError: the disk is full, or writing there is not allowed; the call can be repeated.
    """
    refuse_other(out)
    config = config or CorpusConfig()
    if config.chinese_words:
        rjieba_cut()
    Cleaner(config.clean)  # says what is missing, before anything is read
    if config.clean.toxic and screen is None:
        raise ConfigError("corpus.clean.toxic: nothing to judge with; pass screen=predict.screening.screening(config)")
    crew = _one_reader(inputs, crew)
    rest = {
        "inputs": list(inputs),
        "out": out.name,
        "settings": {"inputs": list(inputs), **config.model_dump(mode="json")},
        "dedup": config.dedup.model_dump(mode="json"),
        "tokenizer": tokenizer.hash if tokenizer else None,
        "classifier": screen.classifier if screen else None,
        "vocab": None if tokenizer else (vocab or VocabConfig()).model_dump(mode="json"),
        # Ranks of this machine alone need no file to reach the disk: after a loss of power the job begins anew.
        "boot": boot() if crew is None or (crew.rank is None and crew.engine == "local") else "",
    }
    plan, key = Plan.make(inputs, config.clean, rest)
    crew = crew or Crew(usable_cores() if plan.size > WORTH_A_POOL else 1)
    job = out.with_name(f".{out.name}.job-{key[:16]}")
    if crew.rank is None:
        _sweep(out, job)
    elif is_done(job, LAST) and not is_store(out):
        raise DataError(f"{job}: says that the store is written, and {out} is none; remove this folder and start again")
    going_on = (job / PLAN).exists()
    plan.write(job)
    if tokenizer is not None:
        save_vocabulary(job, tokenizer)
    if going_on and crew.rank is None:
        say(f"going on with what {job} has")
    try:
        run(steps(config.dedup, screen), job, crew, say, partial(progress, job))
    except DataError:
        # The text must be changed, so this will not go on.
        _remove(job, crew)
        raise
    store = Store.open(out)
    if not crew.rank:
        _report(store, job, say)
        _remove(job, crew)
    return store


def _one_reader(inputs: Sequence[str], crew: Crew | None) -> Crew | None:
    """Standard input is in this process only, so nobody else can share the work."""
    if STANDARD_INPUT not in (name.partition("#")[0] for name in inputs):
        return crew
    if crew is not None and (crew.rank is not None or crew.engine != "local"):
        raise ConfigError("-: only one process can read standard input; save it to a file that all ranks see")
    return Crew(1)


def _sweep(out: Path, job: Path) -> None:
    """Remove what is left of other jobs for the same store, which was begun with other text or settings."""
    for other in out.parent.glob(f".{out.name}.job-*"):
        if other != job and not is_held(other):
            shutil.rmtree(other, ignore_errors=True)


def _remove(job: Path, crew: Crew) -> None:
    """Remove a job; ranks that started by themselves may still look for what is done, so that stays."""
    if crew.rank is None:
        shutil.rmtree(job, ignore_errors=True)
    elif crew.rank == 0:
        for name in ("blocks", "encoded", "units", "dedup", "screened"):
            shutil.rmtree(job / name, ignore_errors=True)


def _report(store: Store, job: Path, say: Say) -> None:
    for line in json.loads((job / SAID).read_bytes()) if (job / SAID).exists() else []:
        say(line)
    cleaning = store.manifest["cleaning"]
    if cleaning["kept_documents"] < cleaning["documents"]:
        say(
            f"cleaning: {cleaning['kept_documents']:,} of {cleaning['documents']:,} documents stay, "
            f"{cleaning['kept_characters'] / max(1, cleaning['characters']):.1%} of the characters"
        )
    if dedup_mode(store) != "off":
        copies = sum(store.manifest["skipped"].get(reason, 0) for reason in ("duplicate", "near_duplicate"))
        say(f"duplicates: {copies:,} of {cleaning['kept_documents']:,} documents")
    say(
        f"corpus: {store.num_documents:,} documents, {store.num_sentences:,} sentences, "
        f"{store.num_tokens / 1e6:.2f} M tokens"
    )
    tally = Tally.from_json(json.loads((job / TALLY).read_bytes()))
    if tally.counts:
        say("skipped or mended:\n  " + tally.summary().replace("\n", "\n  "))


def dedup_mode(store: Store) -> str:
    """Which duplicates were left out of a store: `off`, `exact` or `near`."""
    return str(store.manifest["settings"].get("dedup", {}).get("mode", "off"))


def has_chinese_words(store: Store) -> bool:
    """Whether the word starts of a store mark Chinese words; without, every Han character is a word."""
    return bool(store.manifest["settings"].get("chinese_words"))


def has_chinese(store: Store, tokenizer: Tokenizer) -> bool:
    """Whether there are Han characters in a sample of a store, taken evenly over it."""
    han = np.array([HAN.match(token) is not None for token in tokenizer.tokens])
    starts = np.linspace(0, max(0, store.num_tokens - SAMPLE), SAMPLES).astype(np.int64).tolist()
    return any(han[store.read(start, min(start + SAMPLE, store.num_tokens))].any() for start in starts)
