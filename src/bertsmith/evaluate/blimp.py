"""Grammar: how often a model finds the right sentence of a minimal pair more probable than the wrong one."""

from __future__ import annotations

import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pydantic import Field

from bertsmith.core.config import Config, Count
from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.lines import COMPRESSED, read_lines
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding
from bertsmith.predict.engine import forward, token_batches
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.joining import join_texts
from bertsmith.tokenizer.load import Pieces, Tokenizer

ARCHIVES = (".tar", ".tgz", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
TABLES = (".jsonl", *(f".jsonl{suffix}" for suffix in COMPRESSED))
FIELDS = ("sentence_good", "sentence_bad", "UID", "linguistics_term")
AT_ONCE = 64
"""Batches whose masked copies are in memory together."""


class BlimpConfig(Config):
    """How much is asked, and how a sentence is scored."""

    pairs_per_file: Count = Field(50, ge=1, description="take the first so many pairs of each file (BLiMP has 1,000)")
    within_word: bool = Field(
        False, description="hide with a piece also the rest of its word, so that long rare words gain nothing"
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences that differ in what makes one of them wrong; named as in the published files.

    Attributes:
        good: the grammatical sentence.
        bad: the other one.
        uid: the paradigm, one of BLiMP's 67.
        term: the phenomenon that it belongs to.
        where: file and line.
    """

    good: str
    bad: str
    uid: str
    term: str
    where: str


class Judge(Protocol):
    """A model with an MLM head, as `predict.predictor.Predictor` holds it."""

    @property
    def model(self) -> Model:
        """On its device."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Its own."""

    @property
    def precision(self) -> Precision:
        """Of matrix products."""

    @property
    def batch_tokens(self) -> int:
        """Pieces a batch."""

    @property
    def max_length(self) -> int:
        """The longest sequence, in pieces."""


def is_minimal_pairs(path: str | Path) -> bool:
    """Whether `path` is a tar archive, or its first JSON line (of a folder: of its first file) is a minimal pair."""
    path = Path(path)
    if path.name.lower().endswith(ARCHIVES):
        return path.is_file()
    tables = _tables(path)
    if not tables:
        return False
    try:
        first = next(iter(read_lines(tables[0], Tally())), None)
        row = json.loads(first.text) if first is not None else None
    except (DataError, ValueError):
        return False
    return isinstance(row, dict) and any(name in row for name in FIELDS[:2])


def read_pairs(path: str | Path, pairs_per_file: int = 50) -> list[Pair]:
    """Read the published JSON lines, from a file, a folder or a tar archive (which is never unpacked to disk).

    Args:
        path: where they are.
        pairs_per_file: how many to take from the beginning of each file, 1 or more.

    Raises:
        DataError: no file, no pair in it, or a line that is no pair; names file and line.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; name BLiMP's folder, one of its .jsonl files or its archive")
    pairs: list[Pair] = []
    for name, lines in _files(path):
        for number, text in islice(((n, text) for n, text in lines if text.strip()), pairs_per_file):
            pairs.append(_pair(text, f"{name}:{number}"))
    if not pairs:
        raise DataError(f"{path}: holds no minimal pair; they are .jsonl files with {', '.join(FIELDS)} in each line")
    return pairs


def pseudo_log_likelihoods(judge: Judge, sentences: Sequence[Pieces], *, within_word: bool = False) -> list[float]:
    """For each sentence the sum over its pieces of log P(piece | the sentence with this piece masked), in nats.

    Sentences of similar length run together, one masked copy a piece.

    Args:
        judge: the model that is asked.
        sentences: each at most `judge.max_length` less two pieces.
        within_word: mask the later pieces of the same word as well. Otherwise a model that sees the end of a rare word
            guesses its beginning too easily.

    Source: Salazar et al. 2020 (arXiv:1910.14659), equation 1; `within_word` is PLL-word-l2r of Kauf & Ivanova 2023
    (arXiv:2305.10588).
    """
    tokenizer = judge.tokenizer
    totals = np.zeros(len(sentences))
    costs = [len(pieces) * (len(pieces) + 2) for pieces in sentences]
    for group in token_batches(costs, AT_ONCE * judge.batch_tokens):
        copies: list[Encoding] = []
        hidden: list[tuple[int, int]] = []
        for index in group.tolist():
            pieces = sentences[index]
            whole, _ = join_texts(tokenizer, pieces.ids, None, len(pieces) + 2)
            for place, piece in enumerate(pieces.ids.tolist()):
                ids = whole.input_ids.copy()
                ids[place + 1] = tokenizer.mask_id
                if within_word:
                    ids[place + 1 : -1][pieces.words[place:] == pieces.words[place]] = tokenizer.mask_id
                copies.append(Encoding(ids, whole.segment_ids))
                hidden.append((index, piece))
        how: dict[str, Any] = {"batch_tokens": judge.batch_tokens, "precision": judge.precision}
        for indices, batch, outputs in forward(judge.model, copies, mask_id=tokenizer.mask_id, **how):
            ends = np.cumsum(batch.lengths)
            places = np.searchsorted(ends, batch.targets["mlm_positions"].cpu().numpy(), side="right")
            # The first mask of a copy is the one asked about.
            first = np.unique(places, return_index=True)[1]
            owners, wanted = zip(*(hidden[i] for i in indices.tolist()), strict=True)
            logits = outputs["mlm"][torch.from_numpy(first).to(outputs["mlm"].device)].float()
            right = torch.tensor(wanted, device=logits.device)
            found = logits.gather(1, right[:, None])[:, 0] - torch.logsumexp(logits, dim=-1)
            np.add.at(totals, np.array(owners), found.double().cpu().numpy())
    return [float(total) for total in totals]


def tell_apart(judge: Judge, pairs: Sequence[Pair], *, within_word: bool = False) -> list[bool]:
    """Whether the model finds the good sentence of each pair more probable.

    Args:
        judge: the model that is asked.
        pairs: what it is asked about.
        within_word: see `pseudo_log_likelihoods`.

    Raises:
        DataError: a sentence is empty or too long for the model; names file and line.
    """
    sentences = judge.tokenizer.encode([text for pair in pairs for text in (pair.good, pair.bad)])
    for number, pieces in enumerate(sentences):
        if not 0 < len(pieces) <= judge.max_length - 2:
            raise DataError(
                f"{pairs[number // 2].where}: a sentence of {len(pieces)} pieces; this model takes 1 to "
                f"{judge.max_length - 2}; shorten it or leave it out"
            )
    scores = pseudo_log_likelihoods(judge, sentences, within_word=within_word)
    return [good > bad for good, bad in zip(scores[::2], scores[1::2], strict=True)]


def blimp(
    predictor: Predictor, path: str | Path, pairs_per_file: int = 50, *, within_word: bool = False
) -> dict[str, Any]:
    """Accuracy on minimal pairs: a pair counts when the good sentence is more probable than the bad one; 0.5 is chance.

    Args:
        predictor: of a model with an MLM head.
        path: BLiMP's files, or others like them; see `read_pairs`.
        pairs_per_file: how many of each file, 1 or more.
        within_word: see `pseudo_log_likelihoods`.

    Returns:
        `accuracy` over all `pairs` (their number), and by `UID` and `linguistics_term` in the order of the files.

    Raises:
        DataError: a line is no pair, or its sentences are too long for the model; names file and line.
        ConfigError: the model has no MLM head.

    Source: Warstadt et al. 2020 (arXiv:1912.00582).
    """
    if not predictor.model.heads.mlm:
        raise ConfigError(f"{predictor.bundle.path}: this model has no MLM head, so it cannot judge sentences")
    pairs = read_pairs(path, pairs_per_file)
    right = tell_apart(predictor, pairs, within_word=within_word)
    return {
        "accuracy": sum(right) / len(right),
        "pairs": len(right),
        "UID": _shares([pair.uid for pair in pairs], right),
        "linguistics_term": _shares([pair.term for pair in pairs], right),
    }


def _shares(names: Sequence[str], right: Sequence[bool]) -> dict[str, float]:
    found: dict[str, list[bool]] = {}
    for name, one in zip(names, right, strict=True):
        found.setdefault(name, []).append(one)
    return {name: sum(those) / len(those) for name, those in found.items()}


def _tables(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.name.lower().endswith(TABLES))
    return [path] if path.is_file() and path.name.lower().endswith(TABLES) else []


def _files(path: Path) -> Iterator[tuple[str, Iterator[tuple[int, str]]]]:
    """Name and numbered lines of each file."""
    if not path.name.lower().endswith(ARCHIVES):
        for table in _tables(path):
            yield str(table), ((line.number, line.text) for line in read_lines(table, Tally()))
        return
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.name.endswith(".jsonl") else None
                if stream is not None:
                    lines = stream.read().decode("utf-8-sig", errors="replace").split("\n")
                    yield f"{path}/{member.name.removeprefix('./')}", iter(enumerate(lines, start=1))
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a tar archive ({error}); copy it again") from error


def _pair(text: str, where: str) -> Pair:
    try:
        row = json.loads(text)
    except ValueError:
        raise DataError(f"{where}: not a JSON object; a minimal pair has {', '.join(FIELDS)}") from None
    missing = [n for n in FIELDS if not isinstance(row, dict) or not isinstance(row.get(n), str) or not row[n].strip()]
    if missing:
        raise DataError(f"{where}: a minimal pair needs a text in {', '.join(missing)}; add it or remove the line")
    good, bad, uid, term = (row[name] for name in FIELDS)
    return Pair(good, bad, uid, term, where)
