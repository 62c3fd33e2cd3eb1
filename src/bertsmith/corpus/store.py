"""The token store: memory-mapped shards in the Megatron indexed layout, a bitmap of word starts, and a manifest.

    tokens-00000.bin      token ids, one sentence after another: uint16 under 65,536 ids, else int32
    tokens-00000.idx      sentence sizes and document index of this shard
    tokens-00000.starts   one bit a token, 1 where a word starts, little-endian within the byte
    sentences.offsets     int64 [N+1], where each sentence starts, in tokens, over all shards
    documents.offsets     int64 [D+1], the first sentence of each document, over all shards
    documents.names       what each document is called and which source it comes from, a line of JSON each
    documents.sources     what each source is called and how much of it there is, a line of JSON each
    manifest.json         sizes, sha256, tokenizer, settings, counts; written last

A shard ends only where a document ends, so each is a complete Megatron data set.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.core.files import settled, sha256_file
from bertsmith.corpus.names import NAMES, SOURCES

FORMAT = "bertsmith-store"
VERSION = 1
MANIFEST = "manifest.json"
SENTENCES, DOCUMENTS = "sentences.offsets", "documents.offsets"
INDEX_HEADER = struct.Struct("<9sQBQQ")
INDEX_MAGIC = b"MMIDIDX\0\0"
DTYPE_CODES: dict[str, int] = {"uint16": 8, "int32": 4}


def token_dtype(vocab_size: int) -> Literal["uint16", "int32"]:
    """The type ids are stored in."""
    return "uint16" if vocab_size < 65_536 else "int32"


class Store:
    """A finished token store, opened for reading; nothing is loaded until it is asked for.

    Positions count tokens over all shards, as if they were one array.

    Attributes:
        path: the folder.
        manifest: the content of `manifest.json`.
        hash: sha256 of `manifest.json`; it stands for the content of all files.
        tokens: one memory-mapped array a shard.
        sentence_offsets: `int64 [N+1]`, the first token of each sentence; the last entry is `num_tokens`.
        document_offsets: `int64 [D+1]`, the first sentence of each document; the last entry is `num_sentences`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], hash: str) -> None:
        """Use `Store.open`."""
        self.path, self.manifest, self.hash = path, manifest, hash
        counts = manifest["counts"]
        self.num_documents: int = counts["documents"]
        self.num_sentences: int = counts["sentences"]
        self.num_tokens: int = counts["tokens"]
        self.sentence_offsets: NDArray[np.int64] = np.memmap(path / SENTENCES, np.dtype("<i8"), "r")
        self.document_offsets: NDArray[np.int64] = np.memmap(path / DOCUMENTS, np.dtype("<i8"), "r")
        shards = manifest["shards"]
        dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        self.tokens: list[NDArray[Any]] = [np.memmap(path / f"{shard['name']}.bin", dtype, "r") for shard in shards]
        self._starts = [np.memmap(path / f"{shard['name']}.starts", np.uint8, "r") for shard in shards]
        self._shard_offsets = np.cumsum([0, *(shard["tokens"] for shard in shards)])

    @classmethod
    def open(cls, path: str | Path, verify: bool = False) -> Store:
        """Open a store and check that its files are complete; `verify` also compares their sha256.

        Raises:
            DataError: no store, another version, a file missing or of the wrong size, or, with `verify`, changed.
        """
        path = settled(Path(path))
        try:
            content = (path / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"{path}: no token store (no {MANIFEST} in it); "
                f"one is made by `bertsmith pretrain TEXT --out RUN`, in RUN/store"
            ) from None
        try:
            manifest = json.loads(content)
            version = manifest["version"] if manifest["format"] == FORMAT else None
        except (ValueError, KeyError, TypeError):
            version = None
        if version != VERSION:
            raise DataError(f"{path / MANIFEST}: not a token store that this version reads; prepare the corpus again")
        for name, facts in manifest["files"].items():
            size = (path / name).stat().st_size if (path / name).is_file() else -1
            if size != facts["bytes"]:
                state = f"has {size:,} bytes instead of {facts['bytes']:,}" if size >= 0 else "is missing"
                raise DataError(f"{path / name}: {state}; copy the store again or prepare the corpus again")
        store = cls(path, manifest, hashlib.sha256(content).hexdigest())
        if verify:
            store.verify()
        return store

    def verify(self) -> None:
        """Compare the sha256 of every file with the manifest.

        Raises:
            DataError: a file has changed; names it.
        """
        for name, facts in self.manifest["files"].items():
            if sha256_file(self.path / name) != facts["sha256"]:
                raise DataError(
                    f"{self.path / name}: damaged, its sha256 differs from the one in {MANIFEST}; "
                    "copy the store again or prepare the corpus again"
                )

    @property
    def content_hash(self) -> str:
        """A sum over the tokens and offsets alone; the same text gives the same one wherever it lay."""
        files = self.manifest["files"].items()
        sums = sorted((name, facts["sha256"]) for name, facts in files if name not in (NAMES, SOURCES))
        return hashlib.sha256(json.dumps(sums).encode()).hexdigest()

    def read(self, start: int, stop: int) -> NDArray[np.int32]:
        """The token ids `[stop - start]` at positions `start` to `stop`, which may lie in several shards."""
        ids = np.empty(stop - start, np.int32)
        for shard, begin, end, at in self._ranges(start, stop):
            ids[at : at + end - begin] = self.tokens[shard][begin:end]
        return ids

    def word_starts(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Whether the token at each position from `start` to `stop` is the first piece of a word, `[stop - start]`."""
        flags = np.empty(stop - start, np.bool_)
        for shard, begin, end, at in self._ranges(start, stop):
            bits = np.unpackbits(self._starts[shard][begin // 8 : (end + 7) // 8], bitorder="little")
            flags[at : at + end - begin] = bits[begin % 8 : begin % 8 + end - begin]
        return flags

    def gather(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The token ids at `positions` `[N]`, in any order: many ranges at once."""
        return self._gather(positions, lambda shard, at: self.tokens[shard][at])

    def gather_word_starts(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the token at each of `positions` `[N]` is the first piece of a word, `[N]`."""
        bits = self._gather(positions, lambda shard, at: self._starts[shard][at >> 3] >> (at & 7).astype(np.uint8) & 1)
        return bits.astype(np.bool_)

    def _gather(
        self, positions: NDArray[np.int64], look_up: Callable[[int, NDArray[np.int64]], NDArray[Any]]
    ) -> NDArray[np.int64]:
        if len(positions) and (positions.min() < 0 or positions.max() >= self.num_tokens):
            raise IndexError(f"tokens {positions.min()} to {positions.max()} of a store of {self.num_tokens}")
        found = np.empty(len(positions), np.int64)
        shards = np.searchsorted(self._shard_offsets, positions, side="right") - 1
        for shard in np.flatnonzero(np.bincount(shards)).tolist():
            here = shards == shard
            found[here] = look_up(shard, positions[here] - self._shard_offsets[shard])
        return found

    def _ranges(self, start: int, stop: int) -> list[tuple[int, int, int, int]]:
        """(shard, begin, end within the shard, position in the result) of each piece of a range."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} to {stop} of a store of {self.num_tokens}")
        ranges = []
        shard = int(np.searchsorted(self._shard_offsets, start, side="right")) - 1
        at = start
        while at < stop:
            first, after = int(self._shard_offsets[shard]), int(self._shard_offsets[shard + 1])
            end = min(stop, after)
            ranges.append((shard, at - first, end - first, at - start))
            at, shard = end, shard + 1
        return ranges
