"""What a token store holds: how much from where, in which script, how long, what repeats, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.corpus.names import SourceCounts, read_sources
from bertsmith.tasks.stored import StoredText, spans
from bertsmith.tokenizer.load import CONTINUATION, SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.train import script

LINES, PAIRS, PIECES = 20, 10, 40
SHOWN = 300
"""Characters of a text that are shown."""

_CELLS = 1 << 22
_CANDIDATES = 4096
_NO_SCRIPT = ("digits", "other")


@dataclass(frozen=True)
class Lengths:
    """How long things are, in tokens.

    Attributes:
        mean: of all.
        quantiles: the tenth, the median and the ninetieth part, and the longest.
        bins: number of things by the least length of the bin; each bin ends where the next one begins, at the double.
    """

    mean: float
    quantiles: tuple[int, int, int, int]
    bins: Mapping[int, int]


@dataclass(frozen=True)
class StoreStats:
    """What there is to know about a store.

    Attributes:
        path: its folder.
        counts: documents, sentences, tokens, words, characters.
        settings: how it was prepared.
        sources: how much comes from where; empty where that was not noted.
        scripts: by the script of most of a document's letters: documents and tokens.
        documents: their lengths.
        sentences: their lengths.
        lines: the sentences that occur most often, and how often.
        lines_at_most: no other sentence occurs more often than this.
        repeated: documents with the tokens of an earlier one.
        repetitions: some of those: name of the earlier, of the later, and the text.
        pieces: vocabulary facts: how many there are, occur, and are unknown, and the most frequent ones.
        skipped: what preparation left out or mended, by reason.
        cleaning: what each rule did, with samples; empty where the store was not cleaned.
        duplicates: copies that were left out beside what stayed, by reason; empty where none were looked for.
    """

    path: str
    counts: Mapping[str, int]
    settings: Mapping[str, Any]
    sources: Sequence[SourceCounts]
    scripts: Mapping[str, tuple[int, int]]
    documents: Lengths
    sentences: Lengths
    lines: Mapping[str, int]
    lines_at_most: int
    repeated: int
    repetitions: Sequence[tuple[str, str, str]]
    pieces: Mapping[str, Any]
    skipped: Mapping[str, int]
    cleaning: Mapping[str, Any]
    duplicates: Mapping[str, Sequence[Mapping[str, Any]]]

    def as_dict(self) -> dict[str, Any]:
        """Everything, in JSON values."""
        return asdict(self)


def corpus_stats(stored: StoredText) -> StoreStats:
    """Go through a store twice, in memory that grows by some tens of bytes a document.

    Args:
        stored: the store with its vocabulary.
    """
    store = stored.store
    kinds, kind_of = _scripts(stored.tokenizer)
    occurrences = np.zeros(stored.tokenizer.vocab_size, np.int64)
    documents, tokens = np.zeros(len(kinds), np.int64), np.zeros(len(kinds), np.int64)
    cells = np.zeros(_CELLS, np.uint32)
    prints = np.empty(store.num_documents, np.uint64)
    document_lengths, sentence_lengths = _Histogram(), _Histogram()
    for span in spans(store):
        occurrences += np.bincount(span.tokens, minlength=len(occurrences))
        lengths = np.diff(span.documents)
        document_lengths.add(lengths)
        sentence_lengths.add(np.diff(span.sentences))
        most = _most(kind_of[span.tokens], span.documents, kinds)
        documents += np.bincount(most, minlength=len(kinds))
        tokens += np.bincount(most, weights=lengths, minlength=len(kinds)).astype(np.int64)
        prints[span.first : span.first + len(lengths)] = fingerprints(span.tokens, span.documents)
        np.add.at(cells, fingerprints(span.tokens, span.sentences) % np.uint64(_CELLS), 1)
    lines, bound = _frequent(stored, cells)
    order = np.argsort(-tokens, kind="stable")
    first, later = _repeated(prints)
    manifest = store.manifest
    return StoreStats(
        str(store.path),
        manifest["counts"],
        manifest["settings"],
        read_sources(store.path),
        {kinds[at]: (int(documents[at]), int(tokens[at])) for at in order.tolist() if documents[at]},
        document_lengths.lengths(),
        sentence_lengths.lengths(),
        lines,
        bound,
        len(later),
        _repetitions(stored, first, later),
        _pieces(stored.tokenizer, occurrences),
        manifest["skipped"],
        manifest.get("cleaning", {}),
        manifest.get("duplicates", {}),
    )


def fingerprints(tokens: NDArray[np.int32], bounds: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number for each range of tokens, by its ids and their order; equal ranges have equal ones `[N]`.

    Args:
        tokens: ids `[T]`.
        bounds: where each range begins and the last ends; none is empty `[N+1]`.
    """
    begins = bounds[:-1]
    place = np.arange(len(tokens), dtype=np.uint64) - np.repeat(begins, np.diff(bounds)).astype(np.uint64)
    mixed = _mix(_mix(tokens.astype(np.uint64) + np.uint64(1)) + place * np.uint64(0x9E3779B97F4A7C15))
    return np.add.reduceat(mixed, begins) if len(begins) else np.empty(0, np.uint64)


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64 bits that leaves no pattern (Steele et al. 2014, SplitMix)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _scripts(tokenizer: Tokenizer) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the scripts, and the number of that of each piece; those without letters come last."""
    of_piece = [
        "other" if token in SPECIAL_TOKENS else script((token.removeprefix(CONTINUATION) or token)[0])
        for token in tokenizer.tokens
    ]
    kinds = [kind for kind in dict.fromkeys(of_piece) if kind not in _NO_SCRIPT]
    kinds = [*sorted(kinds), *_NO_SCRIPT]
    return kinds, np.array([kinds.index(kind) for kind in of_piece])


def _most(kind: NDArray[np.int64], bounds: NDArray[np.int64], kinds: Sequence[str]) -> NDArray[np.int64]:
    """The script of most pieces of each document `[D]`; digits and marks count where there is nothing else."""
    counts = np.stack([np.add.reduceat(kind == number, bounds[:-1], dtype=np.int64) for number in range(len(kinds))])
    counts[: -len(_NO_SCRIPT)] *= 1 << 32
    most: NDArray[np.int64] = np.argmax(counts, axis=0)
    return most


class _Histogram:
    """How many things have which length."""

    def __init__(self) -> None:
        self._counts = np.zeros(1, np.int64)

    def add(self, lengths: NDArray[np.int64]) -> None:
        counts = np.bincount(lengths, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    def lengths(self) -> Lengths:
        below = np.cumsum(self._counts)
        total = int(below[-1])
        quantiles = [int(np.searchsorted(below, max(1, round(share * total)))) for share in (0.1, 0.5, 0.9, 1.0)]
        mean = float((np.arange(len(below)) * self._counts).sum()) / total
        # A length from 2^(e-1) up to 2^e has the exponent e.
        bins = np.bincount(np.frexp(np.arange(len(below)))[1], weights=self._counts).astype(np.int64).tolist()
        first = next(exponent for exponent, count in enumerate(bins) if count)
        by_length = {1 << (exponent - 1): count for exponent, count in enumerate(bins) if exponent >= first}
        return Lengths(mean, (quantiles[0], quantiles[1], quantiles[2], quantiles[3]), by_length)


def _frequent(stored: StoredText, cells: NDArray[np.uint32]) -> tuple[dict[str, int], int]:
    """The most frequent sentences with their exact counts, and what the counts of all others cannot exceed.

    A sentence occurs at most as often as its cell was hit; so those of the fullest cells are counted one by one, and
    only those that occur more often than the fullest of the other cells were hit are certain to come first.
    """
    fullest = np.argsort(-cells.astype(np.int64), kind="stable")[: _CANDIDATES + 1]
    fullest = fullest[cells[fullest] > 1]
    bound = int(cells[fullest[_CANDIDATES]]) if len(fullest) > _CANDIDATES else 1
    wanted = np.zeros(_CELLS, np.bool_)
    wanted[fullest[:_CANDIDATES]] = True
    counts: Counter[bytes] = Counter()
    for span in spans(stored.store):
        hit = np.flatnonzero(wanted[fingerprints(span.tokens, span.sentences) % np.uint64(_CELLS)])
        begins, ends = span.sentences[hit].tolist(), span.sentences[hit + 1].tolist()
        counts.update(span.tokens[begin:end].tobytes() for begin, end in zip(begins, ends, strict=True))
    ordered = sorted((item for item in counts.items() if item[1] > bound), key=lambda item: (-item[1], item[0]))
    lines: dict[str, int] = {}
    for data, count in ordered[:LINES]:
        text = _short(stored.readable.text(np.frombuffer(data, np.int32)))
        lines[text] = lines.get(text, 0) + count
    return lines, max(bound, ordered[LINES][1]) if len(ordered) > LINES else bound


def _repeated(prints: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The documents that repeat an earlier one, ascending, and of each the first with the same tokens."""
    _, first, which = np.unique(prints, return_index=True, return_inverse=True)
    original = first[which]
    later = np.flatnonzero(original != np.arange(len(prints)))
    return original[later], later


def _repetitions(stored: StoredText, first: NDArray[np.int64], later: NDArray[np.int64]) -> list[tuple[str, str, str]]:
    chosen = np.unique(np.linspace(0, len(later) - 1, min(PAIRS, len(later))).astype(np.int64))
    names = stored.names(np.concatenate([first[chosen], later[chosen]]))
    return [
        (names[one], names[two], _short(" ".join(stored.sentences(one))))
        for one, two in zip(first[chosen].tolist(), later[chosen].tolist(), strict=True)
    ]


def _pieces(tokenizer: Tokenizer, occurrences: NDArray[np.int64]) -> dict[str, Any]:
    order = np.argsort(-occurrences, kind="stable")[:PIECES].tolist()
    return {
        "pieces": tokenizer.vocab_size,
        "occurring": int((occurrences > 0).sum()),
        "occurring_100_times": int((occurrences >= 100).sum()),
        "unknown": int(occurrences[tokenizer.unk_id]),
        "most_frequent": {tokenizer.tokens[at]: int(occurrences[at]) for at in order if occurrences[at]},
    }


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
