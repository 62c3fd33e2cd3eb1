"""Looking for duplicates among the blocks of a corpus: the steps of `dedup`, shared out to ranks.

The work is cut into shares that follow from the blocks alone, so that a job may go on with another number of ranks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.files import atomic_write
from bertsmith.core.runner import Step
from bertsmith.corpus import dedup
from bertsmith.corpus.blocks import Block, Plan, all_blocks, documents, one_document
from bertsmith.corpus.dedup import DedupConfig
from bertsmith.corpus.findings import SAMPLES, SHOWN, Findings
from bertsmith.corpus.sketches import place

SHARES = 8
"""At least so many, where there are as many blocks; then one for 64 blocks."""
LEFT_OUT, PAIRS = "left-out.npy", "pairs.json"


def steps(config: DedupConfig) -> list[Step]:
    """The steps of the search, in order; none where nothing is to be left out.

    Args:
        config: what counts as a copy.
    """
    if config.mode == "off":
        return []
    found = [Step("sketch", sketch), Step("same-text", match_texts)]
    if config.mode == "near":
        found += [Step("same-band", match_bands), Step("compare", compare)]
    return [*found, Step("choose", choose, alone=True)]


def sketch(job: Path, rank: int, ranks: int) -> None:
    """Hash the documents of this rank's shares, of a `job`, for `rank` of `ranks`."""
    blocks, shares = _shared(job)
    for share in _mine(job, "sketch", rank, ranks):
        part = blocks[len(blocks) * share // shares : len(blocks) * (share + 1) // shares]
        dedup.sketch(_texts(job, part), job / "dedup", share, _config(job), durable=Plan.read(job).durable)


def match_texts(job: Path, rank: int, ranks: int) -> None:
    """Find documents of a `job` with the same text, for `rank` of `ranks`."""
    for share in _mine(job, "texts", rank, ranks):
        dedup.match_texts(job / "dedup", share, _shared(job)[1])


def match_bands(job: Path, rank: int, ranks: int) -> None:
    """Find pairs of documents of a `job` that may be alike, for `rank` of `ranks`."""
    for share in _mine(job, "pairs", rank, ranks):
        dedup.match_bands(job / "dedup", share, _shared(job)[1], _config(job))


def compare(job: Path, rank: int, ranks: int) -> None:
    """Compare the pairs of a `job`, for `rank` of `ranks`."""
    for share in _mine(job, "edges", rank, ranks):
        dedup.compare(job / "dedup", share, _shared(job)[1], _config(job))


def choose(job: Path, rank: int, ranks: int) -> None:
    """Note which documents of a `job` are left out, and some pairs to look at; `rank` and `ranks` do not matter."""
    if (job / LEFT_OUT).exists():
        return
    found = dedup.choose(job / "dedup")
    samples: dict[str, list[dict[str, Any]]] = {}
    for reason, exact in (("duplicate", True), ("near_duplicate", False)):
        rows = found.rows[found.rows["exact"] == exact]
        shown = rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).astype(np.int64))]
        samples[reason] = [_pair(job, row) for row in shown.tolist()]
    atomic_write(job / PAIRS, json.dumps(samples).encode())
    with (job / "left-out.new").open("wb") as file:
        np.save(file, found.rows)
    (job / "left-out.new").rename(job / LEFT_OUT)
    shutil.rmtree(job / "dedup", ignore_errors=True)


def left_out(job: Path, block: Block) -> dict[int, str]:
    """The ids of a block's documents that are left out, each with the reason.

    Args:
        job: the folder, when copies are chosen or not looked for.
        block: which.
    """
    if not (job / LEFT_OUT).exists():
        return {}
    rows: NDArray[Any] = np.load(job / LEFT_OUT, mmap_mode="r")
    first = block.first_id
    begin, end = np.searchsorted(rows["id"], [first, first + (1 << 20)]).tolist()
    part = rows[begin:end]
    reasons = ("near_duplicate", "duplicate")
    return {id: reasons[exact] for id, exact in zip(part["id"].tolist(), part["exact"].tolist(), strict=True)}


def pairs(job: Path) -> dict[str, list[dict[str, Any]]]:
    """Up to ten copies for each reason, each with the document that stayed.

    Args:
        job: the folder, when copies are chosen or not looked for.
    """
    if not (job / PAIRS).exists():
        return {}
    found: dict[str, list[dict[str, Any]]] = json.loads((job / PAIRS).read_bytes())
    return {reason: samples for reason, samples in found.items() if samples}


def _pair(job: Path, row: tuple[int, int, float, bool]) -> dict[str, Any]:
    copy, kept = one_document(job, row[0]), one_document(job, row[1])
    texts = {"text": copy.text[:SHOWN], "kept": kept.id, "kept_text": kept.text[:SHOWN]}
    return {"id": copy.id, "similarity": round(row[2], 4), **texts}


def _texts(job: Path, blocks: list[Block]) -> Iterator[tuple[int, str]]:
    for block in blocks:
        for id, document in documents(job, block, Findings()):
            yield id, document.text


def _shared(job: Path) -> tuple[list[Block], int]:
    blocks, _ = all_blocks(job)
    return blocks, max(1, min(len(blocks), max(SHARES, len(blocks) // 64)))


def _mine(job: Path, step: str, rank: int, ranks: int) -> list[int]:
    """The shares of a rank that are not done."""
    shares: Callable[[int], Path] = lambda share: place(job / "dedup", step, share)  # noqa: E731
    return [share for share in range(rank, _shared(job)[1], ranks) if not shares(share).exists()]


def _config(job: Path) -> DedupConfig:
    return DedupConfig.model_validate(Plan.read(job).rest["dedup"])
