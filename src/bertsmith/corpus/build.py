"""Documents to a token store, in one pass, in memory that does not grow with the corpus."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.core.files import atomic_folder
from bertsmith.corpus import store
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.names import NAMES, SOURCES, Names
from bertsmith.corpus.sentences import document_sentences
from bertsmith.corpus.store import Store

Encode = Callable[[list[str]], tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64]]]
"""Ids of all texts one after another, where words start, and how many ids each text has; as `Tokenizer.encode_flat`."""

_BATCH = 2000
_COPY = 1 << 16


@dataclass(frozen=True)
class Counts:
    """How much has been stored so far; `characters` counts the text of the sentences."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    words: int = 0
    characters: int = 0


@dataclass(frozen=True)
class Encoded:
    """A document in numbers.

    Attributes:
        id: of the document.
        source: where it comes from.
        sizes: tokens of each sentence, all above 0 `[S]`.
        ids: tokens of all sentences `[T]`.
        flags: where words start `[T]`.
        characters: of the sentences' text.
    """

    id: str
    source: str
    sizes: NDArray[np.int64]
    ids: NDArray[np.int32]
    flags: NDArray[np.bool_]
    characters: int


def build(
    documents: Iterable[Document],
    encode: Encode,
    out: Path,
    *,
    vocab_size: int,
    tokenizer_hash: str,
    settings: Mapping[str, Any],
    tally: Tally,
    shard_tokens: int = 2**28,
    progress: Callable[[Counts], None] | None = None,
) -> Store:
    """Split documents into sentences, encode them and write a store: `encoded` and `write` in one.

    Args:
        documents: from the readers; consumed once.
        encode: of about 2,000 sentences at a time, without special tokens.
        out: the folder to make.
        vocab_size: number of ids; all ids must be smaller.
        tokenizer_hash: as for `write`.
        settings: as for `write`.
        tally: receives dropped sentences and documents; its counts go into the manifest.
        shard_tokens: as for `write`.
        progress: as for `write`.

    Raises:
        DataError: no sentence in all documents, or something else is at `out`.
        BundleError: the disk is full, or writing there is not allowed.
    """
    return write(
        encoded(documents, encode, tally),
        out,
        vocab_size=vocab_size,
        tokenizer_hash=tokenizer_hash,
        settings=settings,
        tally=tally,
        shard_tokens=shard_tokens,
        progress=progress,
    )


def encoded(documents: Iterable[Document], encode: Encode, tally: Tally) -> Iterator[Encoded]:
    """Split documents into sentences and encode them; one without tokens is left out.

    Args:
        documents: consumed once.
        encode: of about 2,000 sentences at a time, without special tokens.
        tally: receives dropped sentences and documents.
    """
    waiting: list[tuple[Document, int]] = []
    sentences: list[str] = []

    def flush() -> Iterator[Encoded]:
        if not waiting:
            return
        parts = [encode(sentences[begin : begin + _BATCH]) for begin in range(0, max(1, len(sentences)), _BATCH)]
        ids, flags, sizes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        characters = np.fromiter(map(len, sentences), np.int64, len(sentences))
        characters[sizes == 0] = 0
        at = begin = 0
        for document, count in waiting:
            mine = slice(at, at + count)
            kept = sizes[mine][sizes[mine] > 0]
            at += count
            if len(kept) < count:
                tally.add("sentence_without_tokens", document.id, count - len(kept))
            if not len(kept):
                tally.add("document_without_tokens", document.id)
                continue
            end = begin + int(kept.sum())
            size = int(characters[mine].sum())
            yield Encoded(document.id, document.source, kept, ids[begin:end], flags[begin:end], size)
            begin = end
        waiting.clear()
        sentences.clear()

    for document in documents:
        found = document_sentences(document)
        waiting.append((document, len(found)))
        sentences += found
        if len(sentences) >= _BATCH or len(waiting) >= _BATCH:
            yield from flush()
    yield from flush()


def refuse_other(out: Path) -> None:
    """Refuse to replace what is no token store.

    Args:
        out: where one is to be written.

    Raises:
        DataError: there is something else.
    """
    if out.exists() and not (out / store.MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists and is no token store, so it is not replaced; choose another folder")


def write(
    documents: Iterable[Encoded],
    out: Path,
    *,
    vocab_size: int,
    tokenizer_hash: str,
    settings: Mapping[str, Any],
    tally: Tally,
    shard_tokens: int = 2**28,
    progress: Callable[[Counts], None] | None = None,
    notes: Callable[[], Mapping[str, Any]] | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> Store:
    """Write a store.

    Nothing appears at `out` before all of it is there.

    Args:
        documents: consumed once.
        out: the folder to make.
        vocab_size: number of ids; all ids must be smaller.
        tokenizer_hash: names the tokenizer, so that a store is not used with another.
        settings: how the text was prepared; JSON values. Part of the manifest and so of the store's hash.
        tally: its counts go into the manifest, once all documents are there.
        shard_tokens: a shard is closed at the end of the document with which it reaches this many tokens.
        progress: called about every 2,000 documents.
        notes: called when all documents are there; gives more for the manifest, by name, in JSON values.
        beside: more files, by a path within the store; the manifest does not list them.

    Raises:
        DataError: no document at all, or something else is at `out`.
        BundleError: the disk is full, or writing there is not allowed.
    """
    refuse_other(out)
    with atomic_folder(out) as folder:
        with _Writer(folder, vocab_size, shard_tokens) as writer:
            for number, document in enumerate(documents, 1):
                writer.add(document)
                if progress and number % _BATCH == 0:
                    progress(writer.counts())
            if not writer.sentences:
                reasons = tally.summary() or "there was no document"
                raise DataError(f"{out}: not one sentence to store; {reasons}; check the input")
            writer.finish()
            if progress:
                progress(writer.counts())
        for name, content in (beside or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        manifest = {
            "format": store.FORMAT,
            "version": store.VERSION,
            "dtype": store.token_dtype(vocab_size),
            "vocab_size": vocab_size,
            "tokenizer": tokenizer_hash,
            "settings": dict(settings),
            "counts": asdict(writer.counts()),
            "skipped": dict(sorted(tally.counts.items())),
            **(notes() if notes else {}),
            "shards": writer.shards,
            "files": writer.files,
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (folder / store.MANIFEST).write_text(text, encoding="utf-8", errors="surrogatepass")
    return Store.open(out)


class _Writer:
    """Appends to the open shard and to the two offset files, keeping a few documents and running sums."""

    def __init__(self, folder: Path, vocab_size: int, shard_tokens: int) -> None:
        self._folder, self._vocab_size, self._shard_tokens = folder, vocab_size, shard_tokens
        self._dtype = np.dtype(store.token_dtype(vocab_size)).newbyteorder("<")
        self.documents = self.sentences = self.tokens = self._words = self._characters = self._written = 0
        self._waiting: list[Encoded] = []
        self.shards: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self._sentence_file = _Hashed(folder / store.SENTENCES)
        self._document_file = _Hashed(folder / store.DOCUMENTS)
        self._name_file = _Hashed(folder / NAMES)
        self._names = Names()
        self._open: list[_Hashed] = [self._sentence_file, self._document_file, self._name_file]
        for file in (self._sentence_file, self._document_file):
            file.write(bytes(8))
        self._start_shard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open:
            file.close()

    def counts(self) -> Counts:
        return Counts(self.documents, self.sentences, self.tokens, self._words, self._characters)

    def add(self, document: Encoded) -> None:
        """Store one document, together with those before and after it."""
        ids, flags, sizes = document.ids, document.flags, document.sizes
        if len(ids) != len(flags):
            raise ValueError(f"{document.id}: {len(ids)} ids, {len(flags)} flags")
        self._waiting.append(document)
        self.tokens += len(ids)
        self.sentences += len(sizes)
        self.documents += 1
        self._characters += document.characters
        self._name_file.write(self._names.add(document.id, document.source, len(sizes), len(ids), document.characters))
        if self.tokens - self._first[2] >= self._shard_tokens:
            self._end_shard()
            self._start_shard()
        elif self.tokens - self._written >= _COPY:
            self._flush()

    def _flush(self) -> None:
        """Write the documents that wait; one by one the calls cost more than the work."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        ids, flags, sizes = (
            np.concatenate([getattr(one, name) for one in waiting]) for name in ("ids", "flags", "sizes")
        )
        if int(ids.min()) < 0 or int(ids.max()) >= self._vocab_size:
            wrong = next(one for one in waiting if one.ids.min() < 0 or one.ids.max() >= self._vocab_size)
            raise ValueError(f"{wrong.id}: ids {wrong.ids.min()} to {wrong.ids.max()}, vocabulary {self._vocab_size}")
        self._bin.write(ids.astype(self._dtype).tobytes())
        self._write_flags(flags)
        self._words += int(flags.sum())
        ends = np.cumsum([len(one.sizes) for one in waiting])
        self._sentence_file.write((self._written + np.cumsum(sizes)).astype("<i8").tobytes())
        self._document_file.write((self.sentences - len(sizes) + ends).astype("<i8").tobytes())
        self._written = self.tokens

    def finish(self) -> None:
        """Close the last shard and the offset files; `shards` and `files` are then complete."""
        if self.documents > self._first[0]:
            self._end_shard()
        else:
            for file in (self._bin, self._starts):
                file.close()
                file.path.unlink()
        source_file = _Hashed(self._folder / SOURCES)
        source_file.write(self._names.sources())
        for file in (self._sentence_file, self._document_file, self._name_file, source_file):
            self.files[file.path.name] = file.close()

    def _start_shard(self) -> None:
        self._first = (self.documents, self.sentences, self.tokens)
        stem = self._folder / f"tokens-{len(self.shards):05d}"
        self._bin, self._starts = _Hashed(stem.with_suffix(".bin")), _Hashed(stem.with_suffix(".starts"))
        self._open = [self._sentence_file, self._document_file, self._name_file, self._bin, self._starts]
        self._odd_flags = np.empty(0, np.bool_)

    def _end_shard(self) -> None:
        self._flush()
        if len(self._odd_flags):
            self._starts.write(np.packbits(self._odd_flags, bitorder="little").tobytes())
        first_document, first_sentence, first_token = self._first
        for file in (self._bin, self._starts):
            self.files[file.path.name] = file.close()
        index = _Hashed(self._bin.path.with_suffix(".idx"))
        self._open.append(index)
        self._write_index(index)
        self.files[index.path.name] = index.close()
        self.shards.append(
            {
                "name": self._bin.path.stem,
                "tokens": self.tokens - first_token,
                "sentences": self.sentences - first_sentence,
                "documents": self.documents - first_document,
            }
        )

    def _write_index(self, index: _Hashed) -> None:
        """Sizes and pointers follow from the offsets just written, read back a little at a time."""
        first_document, first_sentence, first_token = self._first
        count, documents = self.sentences - first_sentence, self.documents - first_document
        code = store.DTYPE_CODES[self._dtype.name]
        index.write(store.INDEX_HEADER.pack(store.INDEX_MAGIC, 1, code, count, documents + 1))
        offsets = self._sentence_file.read_back(first_sentence, count + 1)
        for begin in range(0, count, _COPY):
            index.write(np.diff(offsets[begin : min(begin + _COPY, count) + 1]).astype("<i4").tobytes())
        for begin in range(0, count, _COPY):
            pointers = (offsets[begin : min(begin + _COPY, count)] - first_token) * self._dtype.itemsize
            index.write(pointers.astype("<i8").tobytes())
        firsts = self._document_file.read_back(first_document, documents + 1)
        for begin in range(0, documents + 1, _COPY):
            index.write((firsts[begin : begin + _COPY] - first_sentence).astype("<i8").tobytes())

    def _write_flags(self, flags: NDArray[np.bool_]) -> None:
        flags = np.concatenate([self._odd_flags, flags])
        whole = len(flags) // 8 * 8
        self._starts.write(np.packbits(flags[:whole], bitorder="little").tobytes())
        self._odd_flags = flags[whole:]


class _Hashed:
    """A file being written, with its sha256."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb", buffering=1 << 18)
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._bytes += len(data)

    def read_back(self, first: int, count: int) -> NDArray[np.int64]:
        """The int64 values from `first` on that were written, memory-mapped."""
        self._file.flush()
        return np.memmap(self.path, np.dtype("<i8"), "r", offset=8 * first, shape=(count,))

    def close(self) -> dict[str, Any]:
        """Close, once or again; what the manifest says of the file."""
        self._file.close()
        return {"bytes": self._bytes, "sha256": self._sha256.hexdigest()}
