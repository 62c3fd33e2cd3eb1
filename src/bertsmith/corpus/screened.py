"""Documents that a judge of whole documents leaves out: what it found in a block, kept in the job's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bertsmith.core.files import atomic_write
from bertsmith.corpus.blocks import Block

FOLDER = "screened"


class Judged(NamedTuple):
    """Why a document is left out.

    Attributes:
        text: the stretch of it that speaks most against it.
        note: what it was judged by.
    """

    text: str
    note: str


def is_screened(job: Path, block: Block) -> bool:
    """Whether a block of a `job` was judged."""
    return _file(job, block).exists()


def write_screened(job: Path, block: Block, found: Mapping[int, Judged], *, durable: bool) -> None:
    """Note which documents of a block are left out.

    Args:
        job: the folder.
        block: which.
        found: by the id of the document.
        durable: whether it is to survive a loss of power.
    """
    rows = [[id, *judged] for id, judged in found.items()]
    data = json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")
    atomic_write(_file(job, block), data, durable=durable)


def read_screened(job: Path, block: Block) -> dict[int, Judged]:
    """The documents of a block that are left out, by id; none where nothing was judged.

    Args:
        job: the folder.
        block: which.
    """
    if not is_screened(job, block):
        return {}
    rows = json.loads(_file(job, block).read_bytes().decode("utf-8", "surrogatepass"))
    return {id: Judged(text, note) for id, text, note in rows}


def _file(job: Path, block: Block) -> Path:
    return job / FOLDER / f"{block.name}.json"
