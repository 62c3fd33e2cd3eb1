"""Duplicates: which documents are copies of earlier ones, to the letter or nearly, whatever the size of the corpus.

A job of five steps, each a pure function of a folder, a rank and the number of ranks; a step starts when all ranks have
done the one before it, and its output appears in the folder whole or not at all:

    sketch        documents to hashes: of the whole text, of the bands of its signature, of its shingles
    match_texts   documents with the same text
    match_bands   pairs of documents with the same key in a band: candidates
    compare       the candidates whose shingles are similar enough
    choose        the documents to leave out, in one process

The result does not depend on how many ranks there are or how the documents were dealt to them. Each step holds a few
million numbers at a time; what grows with the corpus is on disk, but for 8 bytes a document that is left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.core.files import atomic_folder
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.shingles import jaccard
from bertsmith.corpus.sketches import PART, SKETCH, DedupConfig, Ids, Sketches, among, bands, place, sketch, written

__all__ = ["DedupConfig", "Duplicates", "choose", "compare", "find", "match_bands", "match_texts", "sketch"]
NEIGHBOURS = 8
"""Documents with the same key are compared with the first of them, and with so many before them."""

_COMPARED = 256
_PAIR = np.dtype([("later", "<i8"), ("earlier", "<i8")])
_EDGE = np.dtype([("later", "<i8"), ("earlier", "<i8"), ("similarity", "<f4")])
_RESULT = np.dtype([("id", "<i8"), ("kept", "<i8"), ("similarity", "<f4"), ("exact", "?")])

Rows = NDArray[Any]


@dataclass(frozen=True)
class Duplicates:
    """The documents to leave out.

    Attributes:
        rows: by ascending `id`: `id`, `kept` (the id of the document that it is a copy of, which stays), `similarity`
            to that one, and whether it is `exact`, the same text as an earlier document.
        documents: how many were looked at.
    """

    rows: Rows
    documents: int

    def leave_out(self, documents: Iterable[Document], tally: Tally) -> Iterator[Document]:
        """The documents without the copies.

        Args:
            documents: the same as before, in the same order; the id of each is its place, from 0.
            tally: receives the reasons `duplicate` and `near_duplicate`.

        Raises:
            DataError: there are not as many documents as before.
        """
        copies = self._copies()
        copy = next(copies, None)
        count = 0
        for number, document in enumerate(documents):
            count += 1
            if copy is None or number != copy[0]:
                yield document
                continue
            tally.add("duplicate" if copy[1] else "near_duplicate", document.id)
            copy = next(copies, None)
        if count != self.documents:
            raise DataError(
                f"{self.documents:,} documents were read when looking for duplicates and {count:,} now; "
                "leave the text as it is while it is read, and run the same command again"
            )

    def _copies(self) -> Iterator[tuple[int, bool]]:
        for begin in range(0, len(self.rows), PART):
            part = self.rows[begin : begin + PART]
            yield from zip(part["id"].tolist(), part["exact"].tolist(), strict=True)


def find(texts: Iterable[str], folder: Path, config: DedupConfig) -> Duplicates:
    """All steps in this process; the id of a document is its place among the texts, from 0.

    Args:
        texts: of the documents, in the order of reading; consumed once.
        folder: for what is written on the way, about as much as the texts; emptied first.
        config: what counts as a copy.

    Raises:
        BundleError: the disk is full, or writing there is not allowed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    sketch(enumerate(texts), folder, 0, config)
    match_texts(folder, 0, 1)
    if config.mode == "near":
        match_bands(folder, 0, 1, config)
        compare(folder, 0, 1, config)
    return choose(folder)


def match_texts(folder: Path, rank: int, ranks: int) -> None:
    """Write the documents whose text, apart from white space, is that of one with a smaller id.

    Args:
        folder: of the job.
        rank: 0 to `ranks` - 1.
        ranks: that share this step.
    """
    sketches = Sketches(folder)
    with atomic_folder(place(folder, "texts", rank)) as out, (out / "pairs").open("wb") as file:
        for turn in range(rank, sketches.turns(), ranks):
            ids, first = sketches.same_text(turn)
            smallest = ids[first][np.cumsum(first) - 1]
            file.write(_pairs(ids[~first], smallest[~first]).tobytes())


def match_bands(folder: Path, rank: int, ranks: int, config: DedupConfig) -> None:
    """Write the pairs of documents with the same key in some band, without those left out already.

    Args:
        folder: of the job.
        rank: 0 to `ranks` - 1.
        ranks: that share this step.
        config: the one of `sketch`.
    """
    sketches = Sketches(folder)
    gone = np.sort(_same_text(folder)["later"])
    borders = sketches.borders()
    work = list(product(range(bands(config)), range(sketches.turns())))
    with atomic_folder(place(folder, "pairs", rank)) as out:
        for band, turn in work[rank::ranks]:
            for pairs in _neighbours(*sketches.same_band(band, turn, gone)):
                parts = np.searchsorted(borders, pairs["later"], side="right")
                order = np.argsort(parts, kind="stable")
                begins = np.searchsorted(parts[order], np.arange(len(borders) + 2))
                for part in np.flatnonzero(np.diff(begins)).tolist():
                    with (out / f"part-{part:07d}").open("ab") as file:
                        file.write(pairs[order[begins[part] : begins[part + 1]]].tobytes())


def compare(folder: Path, rank: int, ranks: int, config: DedupConfig) -> None:
    """Write the candidates whose Jaccard similarity reaches the threshold.

    Args:
        folder: of the job.
        rank: 0 to `ranks` - 1.
        ranks: that share this step.
        config: the one of `sketch`.
    """
    sketches = Sketches(folder)
    with atomic_folder(place(folder, "edges", rank)) as out:
        for name in _parts(folder, "pairs")[rank::ranks]:
            pairs = _gathered(folder, "pairs", name, _PAIR)
            repeated = np.zeros(len(pairs), np.bool_)
            repeated[1:] = pairs[1:] == pairs[:-1]
            pairs = pairs[~repeated]
            with (out / name).open("wb") as file:
                for begin in range(0, len(pairs), _COMPARED):
                    file.write(_similar(sketches, pairs[begin : begin + _COMPARED], config.threshold).tobytes())


def _similar(sketches: Sketches, pairs: Rows, threshold: float) -> Rows:
    hashes = sketches.hashes(np.unique(np.concatenate([pairs["later"], pairs["earlier"]])))
    edges = np.empty(len(pairs), _EDGE)
    edges["later"], edges["earlier"] = pairs["later"], pairs["earlier"]
    later, earlier = ([hashes[id] for id in pairs[side].tolist()] for side in ("later", "earlier"))
    edges["similarity"] = jaccard(later, earlier, SKETCH)
    return edges[edges["similarity"] >= np.float32(threshold)]


def choose(folder: Path) -> Duplicates:
    """Go through the documents by ascending id, and leave out each that is similar to one that stayed.

    So each document left out has one that stays to which it is that similar, and no chain of small changes leaves out
    what is unlike everything kept.

    Args:
        folder: of the job.
    """
    near = [np.empty(0, _RESULT)]
    gone = np.empty(0, np.int64)
    for name in _parts(folder, "edges"):
        edges = _gathered(folder, "edges", name, _EDGE)
        dropped: dict[int, tuple[int, float]] = {}
        for later, earlier, similarity in edges[~among(edges["earlier"], gone)].tolist():
            if later not in dropped and earlier not in dropped:
                dropped[later] = (earlier, similarity)
        near.append(np.array([(later, *how, False) for later, how in dropped.items()], _RESULT))
        gone = np.concatenate([gone, near[-1]["id"]])
    rows = np.concatenate(near)
    rows = np.concatenate([rows, _exact(_same_text(folder), rows)])
    return Duplicates(rows[np.argsort(rows["id"])], Sketches(folder).documents)


def _exact(pairs: Rows, near: Rows) -> Rows:
    """The copies with the same text; where their original is left out as well, they point at what stays."""
    rows = np.zeros(len(pairs), _RESULT)
    rows["id"], rows["kept"], rows["similarity"], rows["exact"] = pairs["later"], pairs["earlier"], 1.0, True
    moved = np.flatnonzero(among(rows["kept"], near["id"]))
    originals = near[np.searchsorted(near["id"], rows["kept"][moved])]
    rows["similarity"][moved], rows["kept"][moved] = originals["similarity"], originals["kept"]
    return rows


def _parts(folder: Path, step: str) -> list[str]:
    return sorted({file.name for place in written(folder, step) for file in place.iterdir()})


def _gathered(folder: Path, step: str, part: str, dtype: np.dtype[Any]) -> Rows:
    """What all ranks found of a part, by the later document and then the earlier one."""
    files = [place / part for place in written(folder, step)]
    rows = np.concatenate([np.fromfile(file, dtype) for file in files if file.exists()])
    return rows[np.lexsort((rows["earlier"], rows["later"]))]


def _neighbours(ids: Ids, first: NDArray[np.bool_]) -> Iterator[Rows]:
    """The pairs of documents with the same key that are compared: all of them where there are few."""
    index = np.arange(len(ids))
    begins = np.maximum.accumulate(np.where(first, index, 0))
    for distance in range(1, NEIGHBOURS + 1):
        later = np.flatnonzero(index - distance >= begins)
        if not len(later):
            return
        yield _pairs(ids[later], ids[later - distance])
    later = np.flatnonzero(index - NEIGHBOURS > begins)
    yield _pairs(ids[later], ids[begins[later]])


def _same_text(folder: Path) -> Rows:
    found = [np.fromfile(place / "pairs", _PAIR) for place in written(folder, "texts")]
    return np.concatenate([np.empty(0, _PAIR), *found])


def _pairs(later: Ids, earlier: Ids) -> Rows:
    pairs = np.empty(len(later), _PAIR)
    pairs["later"], pairs["earlier"] = later, earlier
    return pairs
