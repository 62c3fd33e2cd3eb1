"""Sketches: what finding duplicates needs to know of a document, on disk, a folder a rank.

ids          the documents
digests      128 bits of the text
near-ids     the documents that have a shingle; what follows is of these
band-NNN     the key of a band of the signature
ends         where the document's hashes end in
hashes       the smallest hashes of its shingles, ascending
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bertsmith.core.config import Config
from bertsmith.core.files import atomic_folder
from bertsmith.corpus.shingles import Hashes, band_keys, rows_per_band, shingles, signatures

SKETCH = 1 << 14
"""Shingle hashes kept of a document, the smallest ones; the similarity of documents with fewer is exact."""
PART = 1 << 14
"""Documents whose pairs are compared together."""

_BATCH = 1 << 18
_GROUPED = 1 << 21
_IDS, _DIGESTS, _NEAR_IDS, _ENDS, _HASHES = "ids", "digests", "near-ids", "ends", "hashes"

Ids = NDArray[np.int64]


class DedupConfig(Config):
    """Which copies of documents are left out of the store."""

    mode: Literal["off", "exact", "near"] = Field(
        "off", description="leave out documents that repeat an earlier one: exact, the same text; near, also altered"
    )
    threshold: float = Field(
        0.8, ge=0.3, le=1, description="near: share of common shingles (Jaccard) from which a document is a copy"
    )
    words: int = Field(5, ge=1, le=50, description="near: words in a shingle")
    characters: int = Field(5, ge=1, le=50, description="near: characters in a shingle where words are not spaced")
    permutations: int = Field(128, ge=16, le=256, description="near: length of a signature (MinHash)")
    seed: int = Field(0, ge=0, lt=2**63, description="near: chooses the hash functions")


def sketch(
    documents: Iterable[tuple[int, str]], folder: Path, rank: int, config: DedupConfig, *, durable: bool = True
) -> None:
    """Write the hashes of one rank's documents.

    Args:
        documents: id and text; ids ascend and are unlike those of any other rank. Of copies the smallest id stays.
        folder: of the job.
        rank: any number that no other rank has.
        config: what counts as a copy.
        durable: whether the files must survive a loss of power.

    Raises:
        BundleError: the disk is full, or writing there is not allowed.
    """
    near = config.mode == "near"
    rows = rows_per_band(config.threshold, config.permutations)
    with atomic_folder(place(folder, "sketch", rank), durable=durable) as out, ExitStack() as files:
        names = [_IDS, _DIGESTS]
        if near:
            names += [_NEAR_IDS, _ENDS, _HASHES, *map(_band, range(bands(config)))]
        write = {name: files.enter_context((out / name).open("wb")).write for name in names}
        end = 0
        for ids, texts in _batches(documents):
            write[_IDS](ids.tobytes())
            write[_DIGESTS](b"".join(map(_digest, texts)))
            if not near:
                continue
            hashes, offsets = shingles(texts, config.words, config.characters, config.seed)
            some = np.diff(offsets) > 0
            if not some.any():
                continue
            offsets = np.concatenate([offsets[:1], offsets[1:][some]])
            keys = band_keys(signatures(hashes, offsets, config.permutations, config.seed), rows)
            for band, column in enumerate(keys.T):
                write[_band(band)](column.tobytes())
            kept = np.arange(len(hashes)) - np.repeat(offsets[:-1], np.diff(offsets)) < SKETCH
            ends = end + np.cumsum(np.minimum(np.diff(offsets), SKETCH))
            end = int(ends[-1])
            write[_NEAR_IDS](ids[some].tobytes())
            write[_ENDS](ends.tobytes())
            write[_HASHES](hashes[kept].tobytes())


class Sketches:
    """The sketches of all ranks, for reading a little at a time."""

    def __init__(self, folder: Path) -> None:
        self._places = written(folder, "sketch")

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return sum(_count(place, _IDS) for place in self._places)

    def turns(self) -> int:
        """In how many shares `same_text` and `same_band` answer, each of some two million documents."""
        return max(1, -(-self.documents // _GROUPED))

    def same_text(self, turn: int) -> tuple[Ids, NDArray[np.bool_]]:
        """The ids of one of `turns` shares of all documents, by text and then ascending, and where a new text begins.

        Args:
            turn: 0 to `turns` - 1.
        """
        return self._grouped(_IDS, _DIGESTS, 2, turn, np.empty(0, np.int64))

    def same_band(self, band: int, turn: int, gone: Ids) -> tuple[Ids, NDArray[np.bool_]]:
        """The ids of one of `turns` shares, by their key in a band and then ascending, and where a new key begins.

        Args:
            band: its number.
            turn: 0 to `turns` - 1.
            gone: ids that do not matter any more, ascending.
        """
        return self._grouped(_NEAR_IDS, _band(band), 1, turn, gone)

    def _grouped(
        self, ids_name: str, keys_name: str, width: int, turn: int, gone: Ids
    ) -> tuple[Ids, NDArray[np.bool_]]:
        found_ids, found_keys = [np.empty(0, np.int64)], [np.empty((0, width), np.uint64)]
        for place in self._places:
            for begin in range(0, _count(place, ids_name), _GROUPED):
                keys = np.fromfile(place / keys_name, np.uint64, _GROUPED * width, offset=8 * width * begin)
                keys = keys.reshape(-1, width)
                ids = np.fromfile(place / ids_name, np.int64, _GROUPED, offset=8 * begin)
                # The upper half of a key is a fraction of 2**32, and a share is an equal range of such fractions.
                upper = keys[:, 0] >> np.uint64(32)
                chosen = (upper * np.uint64(self.turns()) >> np.uint64(32) == turn) & ~among(ids, gone)
                found_ids.append(ids[chosen])
                found_keys.append(keys[chosen])
        ids, keys = np.concatenate(found_ids), np.concatenate(found_keys)
        order = np.lexsort((ids, *keys.T))
        ids, keys = ids[order], keys[order]
        first = np.ones(len(ids), np.bool_)
        first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        return ids, first

    def hashes(self, wanted: Ids) -> dict[int, Hashes]:
        """The shingle hashes of some documents, at most `SKETCH` of each.

        Args:
            wanted: ids, ascending.
        """
        found: dict[int, Hashes] = {}
        for place in self._places:
            if not _count(place, _NEAR_IDS):
                continue
            ids, ends = np.memmap(place / _NEAR_IDS, np.int64, "r"), np.memmap(place / _ENDS, np.int64, "r")
            at = np.searchsorted(ids, wanted)
            here = at[ids[np.minimum(at, len(ids) - 1)] == wanted]
            with (place / _HASHES).open("rb") as file:
                for number in here.tolist():
                    start = int(ends[number - 1]) if number else 0
                    file.seek(4 * start)
                    data = file.read(4 * (int(ends[number]) - start))
                    found[int(ids[number])] = np.frombuffer(data, np.uint32)
        return found

    def borders(self) -> Ids:
        """Ids, ascending, that cut the documents into parts of about `PART`."""
        every = PART // 64
        sample = [np.fromfile(place / _NEAR_IDS, np.int64)[::every].copy() for place in self._places]
        return np.sort(np.concatenate([np.empty(0, np.int64), *sample]))[:: PART // every][1:]


def bands(config: DedupConfig) -> int:
    """How many bands a signature has.

    Args:
        config: its length and the threshold.
    """
    return config.permutations // rows_per_band(config.threshold, config.permutations)


def among(values: Ids, ascending: Ids) -> NDArray[np.bool_]:
    """Whether each value is in an ascending array.

    Args:
        values: in any order.
        ascending: where to look.
    """
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[at] == values)


def place(folder: Path, step: str, rank: int) -> Path:
    """Where a rank writes what a step of the job finds.

    Args:
        folder: of the job.
        step: its name.
        rank: the number of the rank.
    """
    return folder / f"{step}-{rank:05d}"


def written(folder: Path, step: str) -> list[Path]:
    """What all ranks wrote in a step.

    Args:
        folder: of the job.
        step: its name.
    """
    return sorted(folder.glob(f"{step}-*"))


def _batches(documents: Iterable[tuple[int, str]]) -> Iterator[tuple[Ids, list[str]]]:
    ids: list[int] = []
    texts: list[str] = []
    size, last = 0, -1
    for id, text in documents:
        if id <= last:
            raise ValueError(f"document {id} after {last}: ids must ascend, from 0")
        last = id
        ids.append(id)
        texts.append(text)
        size += len(text)
        if size >= _BATCH:
            yield np.array(ids, np.int64), texts
            ids, texts, size = [], [], 0
    if ids:
        yield np.array(ids, np.int64), texts


def _digest(text: str) -> bytes:
    # Replacing is several times as fast as splitting into words and joining them.
    for space in "\n\t\r\u00a0\u3000":
        text = text.replace(space, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    if not text.isprintable():
        text = " ".join(text.split())
    return blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _band(number: int) -> str:
    return f"band-{number:03d}"


def _count(place: Path, ids_name: str) -> int:
    return (place / ids_name).stat().st_size // 8
