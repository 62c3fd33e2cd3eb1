"""Two token stores beside each other: how much, prepared how, in which vocabulary, and which documents both hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.names import read_names, read_sources
from bertsmith.corpus.store import Store
from bertsmith.tasks.corpus_stats import fingerprints
from bertsmith.tasks.stored import StoredText, find_vocabulary, spans
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.readable import Readable

SHOWN = 20
NAMES = 5


@dataclass(frozen=True)
class Overlap:
    """Which documents two stores share.

    Attributes:
        compared: `tokens` where both have one vocabulary, else `text`.
        shared: documents of the first, and of the second, that the other one holds as well.
        unknown: documents of each that could not be compared, because their text has [UNK] in it.
        only: names of some documents that only the first, and only the second, holds.
    """

    compared: str
    shared: tuple[int, int]
    unknown: tuple[int, int]
    only: tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class StoreDiff:
    """Two stores compared.

    Attributes:
        paths: of the stores.
        counts: documents, sentences and so on, of the first and of the second.
        settings: those that differ, by dotted name; None where a store does not have it.
        sources: names of the files that only the first, and only the second, was made of.
        same_vocabulary: whether both have one.
        pieces: sizes of the vocabularies, how many pieces they share, and some that only one has; empty where a
            vocabulary was not found.
        typical: with one vocabulary: pieces that are far more frequent in the first, and in the second.
        overlap: which documents both hold; None where they cannot be compared.
        remark: why they cannot; empty where they can.
    """

    paths: tuple[str, str]
    counts: Mapping[str, tuple[int, int]]
    settings: Mapping[str, tuple[Any, Any]]
    sources: tuple[Sequence[str], Sequence[str]]
    same_vocabulary: bool
    pieces: Mapping[str, Any]
    typical: tuple[Sequence[str], Sequence[str]]
    overlap: Overlap | None
    remark: str

    def as_dict(self) -> dict[str, Any]:
        """Everything, in JSON values."""
        return asdict(self)


def corpus_diff(first: str | Path, second: str | Path, vocab: Sequence[Path] = ()) -> StoreDiff:
    """Compare two stores, in memory that grows by some tens of bytes a document.

    Args:
        first: a store.
        second: another one.
        vocab: the vocabulary of both, or of the first and of the second; empty: those in or beside the stores.

    Raises:
        DataError: no store, a damaged or an empty one, or one of another vocabulary than the one named for it.
    """
    paths = (first, second)
    stores = tuple(Store.open(path, verify=True) for path in paths)
    for store in stores:
        if not store.num_documents:
            raise DataError(f"{store.path}: this store is empty; prepare the corpus again")
    a, b = stores
    named = [vocab[0], vocab[-1]] if vocab else [None, None]
    tokenizers = [_vocabulary(store, path) for store, path in zip(stores, named, strict=True)]
    same = a.manifest["tokenizer"] == b.manifest["tokenizer"]
    known = next((tokenizer for tokenizer in tokenizers if tokenizer), None)
    if same and known:
        tokenizers = [known, known]
    overlap, remark = _overlap(a, b, tokenizers[0], tokenizers[1], same)
    names = [{source.name for source in read_sources(store.path)} for store in stores]
    counts = [store.manifest["counts"] for store in stores]
    settings = [_flat(store.manifest["settings"]) for store in stores]
    keys = [key for key in dict.fromkeys([*settings[0], *settings[1]]) if settings[0].get(key) != settings[1].get(key)]
    return StoreDiff(
        (str(a.path), str(b.path)),
        {name: (counts[0][name], counts[1].get(name, 0)) for name in counts[0]},
        {key: (settings[0].get(key), settings[1].get(key)) for key in keys},
        (sorted(names[0] - names[1]), sorted(names[1] - names[0])),
        same,
        _pieces(tokenizers[0], tokenizers[1]),
        _typical(a, b, known) if same and known else ((), ()),
        overlap,
        remark,
    )


def _vocabulary(store: Store, named: Path | None) -> Tokenizer | None:
    """The store's vocabulary; None when it is not in or beside it and none is named."""
    if named is not None:
        return StoredText(store, Tokenizer.load(named)).tokenizer
    try:
        found = find_vocabulary(store.path, None)
    except ConfigError:
        return None
    return found if found.hash == store.manifest["tokenizer"] else None


def _overlap(
    a: Store, b: Store, one: Tokenizer | None, two: Tokenizer | None, same: bool
) -> tuple[Overlap | None, str]:
    if same:
        prints, unknown = [_by_tokens(a), _by_tokens(b)], (0, 0)
    elif one is None or two is None:
        missing = a.path if one is None else b.path
        return None, (
            f"the stores have different vocabularies, and that of {missing} is not in or beside it, so their documents "
            "cannot be compared; name the vocabularies of both: --vocab FIRST --vocab SECOND"
        )
    elif one.settings != two.settings:
        return None, (
            "the vocabularies treat text differently (case, accents or splitting), so equal documents have different "
            "tokens and cannot be recognised"
        )
    else:
        by_text = [_by_text(a, one), _by_text(b, two)]
        prints = [found for found, _ in by_text]
        unknown = (by_text[0][1], by_text[1][1])
    inside = [np.isin(prints[0], prints[1]), np.isin(prints[1], prints[0])]
    only = [
        _names(store, np.flatnonzero(~found & (mine != 0))[:NAMES])
        for store, found, mine in zip((a, b), inside, prints, strict=True)
    ]
    shared = [int((found & (mine != 0)).sum()) for found, mine in zip(inside, prints, strict=True)]
    how = "tokens" if same else "text"
    return Overlap(how, (shared[0], shared[1]), unknown, (only[0], only[1])), ""


def _by_tokens(store: Store) -> NDArray[np.uint64]:
    """A number for each document by its tokens, never 0."""
    return np.concatenate([fingerprints(span.tokens, span.documents) for span in spans(store)]) | np.uint64(1)


def _by_text(store: Store, tokenizer: Tokenizer) -> tuple[NDArray[np.uint64], int]:
    """A number for each document by its characters without spaces, 0 where some are unknown; and how many are."""
    readable = Readable(tokenizer)
    prints = np.zeros(store.num_documents, np.uint64)
    unknown = 0
    number = 0
    for span in spans(store):
        for ids in np.split(span.tokens, span.documents[1:-1]):
            if (ids == tokenizer.unk_id).any():
                unknown += 1
            else:
                text = "".join(readable.text(ids).split())
                prints[number] = int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) | 1
            number += 1
    return prints, unknown


def _names(store: Store, numbers: NDArray[np.int64]) -> list[str]:
    wanted = set(numbers.tolist())
    if not (store.path / "documents.names").exists():
        return [f"document {number}" for number in sorted(wanted)]
    last = max(wanted, default=-1)
    return [name.id for number, name in zip(range(last + 1), read_names(store.path), strict=False) if number in wanted]


def _pieces(one: Tokenizer | None, two: Tokenizer | None) -> dict[str, Any]:
    if one is None or two is None:
        return {}
    first, second = set(one.tokens), set(two.tokens)
    return {
        "sizes": (one.vocab_size, two.vocab_size),
        "shared": len(first & second),
        "only_first": [token for token in one.tokens if token not in second][:SHOWN],
        "only_second": [token for token in two.tokens if token not in first][:SHOWN],
    }


def _typical(a: Store, b: Store, tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """The pieces whose share differs most between two stores, measured in standard errors of its logarithm."""
    counts = []
    for store in (a, b):
        total = np.zeros(tokenizer.vocab_size, np.int64)
        for span in spans(store):
            total += np.bincount(span.tokens, minlength=len(total))
        counts.append(total + 0.5)
    shares = [np.log(count / count.sum()) for count in counts]
    distance = (shares[0] - shares[1]) / np.sqrt(1 / counts[0] + 1 / counts[1])
    order = np.argsort(-distance, kind="stable")
    first = [tokenizer.tokens[at] for at in order[:SHOWN].tolist() if distance[at] > 3]
    second = [tokenizer.tokens[at] for at in order[::-1][:SHOWN].tolist() if distance[at] < -3]
    return first, second


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
