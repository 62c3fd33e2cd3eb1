"""The text of a token store, document by document: what a store and its vocabulary say together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.names import read_names
from bertsmith.corpus.store import Store
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.readable import Readable

CHUNK = 1_000_000
"""Tokens; about so many are turned into text at a time."""


@dataclass(frozen=True)
class Span:
    """Some whole documents of a store.

    Attributes:
        first: the number of the first document.
        tokens: ids of all their tokens `[T]`.
        documents: where each begins and the last ends, in tokens of this span `[D+1]`.
        sentences: where each sentence begins and the last ends, in tokens of this span `[N+1]`.
    """

    first: int
    tokens: NDArray[np.int32]
    documents: NDArray[np.int64]
    sentences: NDArray[np.int64]


def spans(store: Store, size: int = CHUNK) -> Iterator[Span]:
    """All documents of a store, a few megabytes at a time.

    Args:
        store: the store.
        size: about so many tokens at a time, at least one document.
    """
    first = 0
    while first < store.num_documents:
        low = int(store.document_offsets[first])
        begin = int(store.sentence_offsets[low])
        fits = int(np.searchsorted(store.sentence_offsets, begin + size, side="right")) - 1
        last = int(np.searchsorted(store.document_offsets, fits, side="right")) - 1
        last = min(max(last, first + 1), store.num_documents)
        bounds = np.asarray(store.document_offsets[first : last + 1])
        sentences = np.asarray(store.sentence_offsets[low : int(bounds[-1]) + 1]) - begin
        yield Span(first, store.read(begin, begin + int(sentences[-1])), sentences[bounds - low], sentences)
        first = last


def find_vocabulary(store: Path, vocab: Path | None) -> Tokenizer:
    """The vocabulary of a store: the one named, else that in or beside the store, where a command put it.

    Args:
        store: its folder.
        vocab: a vocabulary, `vocab.txt` or a folder.

    Raises:
        ConfigError: none is named, and there is none in or beside the store.
        BundleError: the file cannot be read.
    """
    places = [vocab] if vocab is not None else [store / "vocab", store.absolute().parent / "vocab"]
    found = next((place for place in places if vocab is not None or (place / "vocab.txt").exists()), None)
    if found is None:
        raise ConfigError(f"{store}: name the vocabulary that this store was made with: --vocab DIR")
    return Tokenizer.load(found)


class StoredText:
    """A store whose tokens can be read as text.

    Attributes:
        store: the store.
        tokenizer: its vocabulary.
        readable: turns ids into text.
    """

    def __init__(self, store: Store, tokenizer: Tokenizer) -> None:
        """Put a store and its vocabulary together.

        Args:
            store: with at least one document.
            tokenizer: the one that the store was made with.

        Raises:
            DataError: the store is empty, or was made with another vocabulary.
        """
        if not store.num_documents:
            raise DataError(f"{store.path}: this store is empty; prepare the corpus again")
        if tokenizer.hash != store.manifest["tokenizer"]:
            raise DataError(
                f"{store.path}: made with another vocabulary than the one given ({tokenizer.vocab_size:,} pieces, the "
                f"store's has {store.manifest['vocab_size']:,}); name its own with --vocab"
            )
        self.store, self.tokenizer = store, tokenizer
        self.readable = Readable(tokenizer)

    @classmethod
    def open(cls, path: str | Path, vocab: Path | None = None) -> StoredText:
        """Open a store, compare its sums, and find its vocabulary.

        Args:
            path: the store's folder.
            vocab: its vocabulary; None: the one in or beside the store.

        Raises:
            DataError: no store, a damaged or an empty one, or one of another vocabulary.
            ConfigError: its vocabulary was not found.
        """
        store = Store.open(path, verify=True)
        return cls(store, find_vocabulary(store.path, vocab))

    def __len__(self) -> int:
        return self.store.num_documents

    def sentences(self, number: int) -> list[str]:
        """The sentences of one document.

        Args:
            number: of the document, from 0.
        """
        first, last = self.store.document_offsets[number : number + 2].tolist()
        offsets = self.store.sentence_offsets[first : last + 1].tolist()
        ids = self.store.read(offsets[0], offsets[-1])
        bounds = [offset - offsets[0] for offset in offsets]
        return [self.readable.text(ids[begin:end]) for begin, end in pairwise(bounds)]

    def texts(self) -> Iterator[str]:
        """The text of each document, its sentences in one line."""
        for span in spans(self.store):
            yield from (self.readable.text(ids) for ids in np.split(span.tokens, span.documents[1:-1]))

    def names(self, numbers: NDArray[np.int64] | list[int]) -> dict[int, str]:
        """What some documents are called; `document 17` where the store does not say.

        Args:
            numbers: of the documents, from 0, in any order.
        """
        wanted = {int(number) for number in numbers}
        found = {number: f"document {number}" for number in sorted(wanted)}
        last = max(wanted, default=-1)
        for number, name in enumerate(read_names(self.store.path)):
            if number in wanted:
                found[number] = name.id
            if number >= last:
                break
        return found

    def facts(self) -> dict[str, Any]:
        """What the manifest says, in plain values."""
        manifest = self.store.manifest
        return {"store": str(self.store.path), "hash": self.store.hash, "counts": manifest["counts"]}
