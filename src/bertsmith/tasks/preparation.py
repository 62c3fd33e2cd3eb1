"""From text to what pretraining reads: a vocabulary, and a token store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from bertsmith.core.config import Config
from bertsmith.core.device import release_memory
from bertsmith.core.files import disk_errors
from bertsmith.corpus.build import Counts, Encode, build
from bertsmith.corpus.dedup import DedupConfig, Duplicates, find
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.store import MANIFEST, Store
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.segment import HAN, encode_in_words, rjieba_cut
from bertsmith.tokenizer.train import VocabConfig, train_wordpiece, unk_report

Say = Callable[[str], None]
REPORT_DOCUMENTS = 500
SAMPLES, SAMPLE = 64, 4096


class CorpusConfig(Config):
    """How text becomes a token store."""

    chinese_words: bool = Field(
        False, description="mark whole Chinese words (extra fast), for whole-word and span masking"
    )
    dedup: DedupConfig = Field(default_factory=DedupConfig)


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
    inputs: Sequence[str], tokenizer: Tokenizer, out: Path, say: Say, config: CorpusConfig | None = None
) -> Store:
    """Read text, split it into sentences, encode it and write a token store; says what was skipped, by reason.

    Where copies are to be left out, the text is read once more, before.

    Args:
        inputs: files, folders, globs or `pydoc:`.
        tokenizer: the vocabulary.
        out: the store's folder.
        say: takes lines for the user.
        config: what else to note; the store's manifest keeps it.

    Raises:
        ConfigError: Chinese words are asked for, and there is no segmenter.
        DataError: nothing to read, or nothing left of it.
    """
    config = config or CorpusConfig()
    encode: Encode = tokenizer.encode_ids
    if config.chinese_words:
        encode = partial(encode_in_words, tokenizer, cut=rjieba_cut())
    tally = Tally()
    shown = 0

    def progress(counts: Counts) -> None:
        nonlocal shown
        if counts.tokens - shown >= 2_000_000:
            shown = counts.tokens
            say(f"preparing: {counts.documents:,} documents, {counts.tokens / 1e6:.1f} M tokens")

    documents = read(inputs, tally)
    if config.dedup.mode != "off":
        documents = find_duplicates(inputs, out, say, config.dedup).leave_out(documents, tally)
    store = build(
        documents,
        encode,
        out,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.hash,
        settings={"inputs": list(inputs), **config.model_dump()},
        tally=tally,
        progress=progress,
    )
    say(
        f"corpus: {store.num_documents:,} documents, {store.num_sentences:,} sentences, "
        f"{store.num_tokens / 1e6:.2f} M tokens"
    )
    if tally.counts:
        say("skipped or mended:\n  " + tally.summary().replace("\n", "\n  "))
    return store


def find_duplicates(inputs: Sequence[str], out: Path, say: Say, config: DedupConfig) -> Duplicates:
    """Read text and find the documents that repeat an earlier one.

    Args:
        inputs: files, folders, globs or `pydoc:`.
        out: what is made; the hashes of the text lie in a hidden folder beside it, and are removed.
        say: takes lines for the user.
        config: what counts as a copy.
    """
    say("reading the text for duplicates …")
    folder = out.with_name(f".{out.name}.duplicates")
    try:
        with disk_errors(folder):
            found = find((document.text for document in read(inputs, Tally())), folder, config)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    release_memory()
    say(f"duplicates: {len(found.rows):,} of {found.documents:,} documents")
    return found


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
