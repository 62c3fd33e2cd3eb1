"""A vocabulary made to be kept: trained on text, or extended by the words of a field; measured, in a folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.files import atomic_folder
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read
from bertsmith.tasks.preparation import is_store
from bertsmith.tasks.stored import StoredText
from bertsmith.tasks.vocabulary_report import REPORT, vocabulary_report
from bertsmith.tokenizer.advice import SIZES, Choice, Measured, advised, choices, measure, smaller
from bertsmith.tokenizer.extend import domain_terms, extend
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.train import VocabConfig, size_in_words, train_wordpiece
from bertsmith.tokenizer.words import count_words

Say = Callable[[str], None]
FACTS = "vocabulary.json"
MEASURED_BYTES = 20_000_000
"""A vocabulary is measured on about so much of a text, whole documents drawn evenly."""
SAMPLES, SAMPLE = 6, 160


class Text:
    """A corpus that can be read again and again: files, or the text of a token store.

    Attributes:
        name: what the user called it.
        tally: what the first reading skipped.
        words: how often each occurs; filled by `count`.
        scale: how many times more text there is than was counted.
        samples: the beginnings of some documents.
    """

    def __init__(self, inputs: Sequence[str], vocab: Path | None = None) -> None:
        """Find out what the inputs are.

        Args:
            inputs: files, folders, globs, `pydoc:`, or one token store.
            vocab: the store's vocabulary; None: the one in or beside it.

        Raises:
            ConfigError: stores among other inputs; the vocabulary of a store is not there.
            DataError: a damaged store.
        """
        self.name = ", ".join(inputs)
        self.tally = Tally()
        self.words: Counter[str] = Counter()
        self.scale = 1.0
        self.samples: list[str] = []
        self._size: tuple[int, int] | None = None
        self._inputs = list(inputs)
        self.stored = StoredText.open(inputs[0], vocab) if len(inputs) == 1 and is_store(inputs[0]) else None
        if self.stored is None and (stores := [name for name in inputs if is_store(name)]):
            raise ConfigError(f"{stores[0]}: a token store is given alone, without other stores or files")

    def documents(self) -> Iterator[str]:
        """The text of each document; that of a store as its vocabulary has it, without the words that it lacks."""
        if self.stored is not None:
            texts = (text.replace("[UNK]", " ") for text in self.stored.texts())
        else:
            # Only the first reading is tallied, or everything would be counted again.
            texts = (document.text for document in read(self._inputs, Tally() if self._size else self.tally))
        documents = size = 0
        for text in texts:
            documents += 1
            size += len(text.encode(errors="replace"))
            yield text
        self._size = documents, size

    @property
    def size(self) -> tuple[int, int]:
        """Number of documents, and of bytes in UTF-8; read through when that was not done yet."""
        if self._size is None:
            deque(self.documents(), maxlen=0)
        assert self._size is not None
        return self._size

    def count(self, tokenizer: Tokenizer) -> None:
        """Count the words, in documents drawn by the hash of their place where there is much text.

        Args:
            tokenizer: whose normalisation counts.

        Raises:
            DataError: there are no words.
        """
        documents, size = self.size
        share = min(1.0, MEASURED_BYTES / max(1, size))
        step = max(1, documents // SAMPLES)
        drawn_bytes = 0

        def drawn() -> Iterator[str]:
            nonlocal drawn_bytes
            for place, text in enumerate(self.documents()):
                if place % step == 0 and len(self.samples) < SAMPLES:
                    self.samples.append(text[:SAMPLE])
                if share == 1.0 or _draw(place) < share:
                    drawn_bytes += len(text.encode(errors="replace"))
                    yield text

        self.words = count_words(drawn(), tokenizer)
        if not self.words:
            raise DataError(f"{self.name}: no word in {documents:,} documents; check the input")
        self.scale = size / drawn_bytes


def _draw(place: int) -> float:
    """A number from 0 to 1 that depends on a place only."""
    return int.from_bytes(hashlib.blake2b(b"words %d" % place, digest_size=8).digest()) / 2**64


@dataclass(frozen=True)
class Vocabulary:
    """A finished vocabulary and what was found out about it.

    Attributes:
        path: its folder.
        tokenizer: the vocabulary.
        facts: the content of `vocabulary.json`.
    """

    path: Path
    tokenizer: Tokenizer
    facts: dict[str, Any]


def train_vocabulary(
    inputs: Sequence[str],
    out: Path,
    config: VocabConfig,
    *,
    auto: bool = False,
    cover: Sequence[str] = (),
    vocab: Path | None = None,
    say: Say,
    command: str = "",
) -> Vocabulary:
    """Train a vocabulary on text, measure it, and write its folder.

    Args:
        inputs: files, folders, globs, `pydoc:`, or one token store.
        out: the folder to make; `pretrain --vocab` takes it.
        config: size, case, accents.
        auto: choose the size, up to 64,000, instead of taking `config.size`.
        cover: other text, on which the vocabulary is measured as well.
        vocab: the vocabulary of the store.
        say: takes lines for the user.
        command: what a person would type to repeat this; for the report.

    Raises:
        ConfigError: the size is too small for the characters of the text; a store cannot give what is asked for; there
            is something at `out`.
        DataError: the text cannot be used; says where.
    """
    _check_free(out)
    text, others = Text(inputs, vocab), [Text([name]) for name in cover]
    if text.stored is not None:
        _check_case(text.stored, config)
    if auto:
        config = config.model_copy(update={"size": SIZES[-1]})
    tokenizer = train_wordpiece(text.documents(), config, at_most=auto, say=say)
    documents, size = text.size
    say(f"text: {documents:,} documents, {size_in_words(size)}")
    text.count(tokenizer)
    found = choices(tokenizer, text.words, text.scale)
    for other in others:
        other.count(tokenizer)
    best = advised(found)
    if auto:
        tokenizer = smaller(tokenizer, best.size)
        config = config.model_copy(update={"size": best.size})
    facts = {
        "how": "trained",
        "sample_bytes": min(size, config.sample_bytes),
        "advised": best.size,
        "sizes": [_choice(choice) for choice in found],
        "settings": config.model_dump(exclude_none=True),
    }
    return _finish(text, others, out, tokenizer, facts, found, say, command)


def extend_vocabulary(
    inputs: Sequence[str],
    out: Path,
    base: Path,
    terms: int,
    *,
    cover: Sequence[str] = (),
    vocab: Path | None = None,
    say: Say,
    command: str = "",
) -> Vocabulary:
    """Add the words of a field to the end of a vocabulary, measure it before and after, and write its folder.

    Args:
        inputs: text of the field: files, folders, globs, `pydoc:`, or one token store.
        out: the folder to make; `pretrain --from BUNDLE --vocab` takes it when `base` is the bundle's vocabulary.
        base: the vocabulary to extend, `vocab.txt`, `tokenizer.json` or a folder.
        terms: how many words at most: those that occur 5 times and take three pieces or more, the most frequent first.
        cover: other text, on which the vocabulary is measured as well.
        vocab: the vocabulary of the store.
        say: takes lines for the user.
        command: what a person would type to repeat this; for the report.

    Raises:
        ConfigError: no word to add; not a WordPiece vocabulary; there is something at `out`.
        DataError: the text cannot be used; says where.
    """
    _check_free(out)
    text, others = Text(inputs, vocab), [Text([name]) for name in cover]
    old = Tokenizer.load(base)
    new = domain_terms(text.documents(), old, terms)
    if not new:
        raise ConfigError(
            f"{text.name}: no word occurs 5 times and takes three pieces of {base}; it needs no extension"
        )
    say(f"vocabulary: {len(new):,} new pieces of the {terms:,} asked for: {', '.join(new[:8])}")
    tokenizer = extend(old, new)
    for item in (text, *others):
        item.count(tokenizer)
    before = {item.name: _measured(measure(old, item.words)) for item in (text, *others)}
    facts = {"how": "extended", "from": str(base), "pieces_before": old.vocab_size, "added": new, "before": before}
    return _finish(text, others, out, tokenizer, facts, [], say, command)


def save_vocabulary(tokenizer: Tokenizer, folder: Path, others: dict[str, bytes] | None = None) -> None:
    """Write a vocabulary's files into a folder that appears whole or not at all.

    Args:
        tokenizer: the vocabulary.
        folder: to make; replaced when it is there.
        others: more files by name.
    """
    with atomic_folder(folder) as temporary:
        for name, data in {**tokenizer.files(), **(others or {})}.items():
            (temporary / name).write_bytes(data)


def _finish(
    text: Text,
    others: Sequence[Text],
    out: Path,
    tokenizer: Tokenizer,
    facts: dict[str, Any],
    found: Sequence[Choice],
    say: Say,
    command: str,
) -> Vocabulary:
    measured = {item.name: measure(tokenizer, item.words) for item in (text, *others)}
    facts = {
        "pieces": tokenizer.vocab_size,
        "hash": tokenizer.hash,
        "text": {"inputs": text.name, "documents": text.size[0], "bytes": text.size[1]},
        **facts,
        "measured": {name: _measured(one) for name, one in measured.items()},
        "skipped": dict(sorted(text.tally.counts.items())),
    }
    if text.tally.counts:
        say("skipped or mended:\n  " + text.tally.summary().replace("\n", "\n  "))
    samples = [" ".join(tokenizer.tokens[i] for i in pieces.ids) for pieces in tokenizer.encode(text.samples)]
    page = vocabulary_report(out, facts, found, measured, tokenizer, samples, command)
    data = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
    save_vocabulary(tokenizer, out, {FACTS: data.encode(errors="replace"), REPORT: page.encode(errors="replace")})
    return Vocabulary(out, tokenizer, facts)


def _measured(measured: Measured) -> dict[str, Any]:
    def row(coverage: Any) -> dict[str, Any]:
        rates = {"fertility": round(coverage.fertility, 5), "unknown_rate": round(coverage.unknown_rate, 7)}
        return asdict(coverage) | rates

    return {
        "all": row(measured.whole),
        "scripts": {name: row(coverage) for name, coverage in measured.scripts.items()},
        "unknown_words": dict(measured.unknown),
        "cut_words": dict(measured.cut),
    }


def _choice(choice: Choice) -> dict[str, Any]:
    return {
        "size": choice.size,
        "fertility": round(choice.coverage.fertility, 5),
        "unknown_rate": round(choice.coverage.unknown_rate, 7),
        "learnable": round(choice.learnable, 4),
    }


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: already there; choose a new folder or remove it first")


def _check_case(stored: StoredText, config: VocabConfig) -> None:
    """A store has forgotten the case that its vocabulary folds, and accents likewise."""
    known = stored.tokenizer.settings["normalizer"] or {}
    folded, wanted = bool(known.get("lowercase")), config.lowercase
    if folded and not wanted:
        raise ConfigError(f"{stored.store.path}: its text has no capital letters any more; give the text itself")
    strips = known.get("strip_accents")
    keeps = not (config.strip_accents if config.strip_accents is not None else wanted)
    if keeps and (strips if strips is not None else folded):
        raise ConfigError(f"{stored.store.path}: its text has no accents any more; give the text itself")
