"""A corpus in blocks: text that was read and cleaned, on disk, in the order of reading; however many ranks share it.

    job.json            the plan: files, sizes, settings
    units/U.json        a unit: some files that are read one after another, or a part of a file of JSON lines; how many
                        blocks, what was skipped
    blocks/U-B.jsonl    a block: what cleaning did, then a document a line
    blocks/U-B.lines    hashes of the lines of its documents that could be boilerplate

Where a unit and a block end depends on the files alone, so a block is the same whoever makes it, and one that is there
need not be made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from bertsmith import __version__
from bertsmith.core.errors import DataError
from bertsmith.core.files import atomic_write
from bertsmith.corpus.boilerplate import Keys, frequent, keys_of
from bertsmith.corpus.clean import CleanConfig, Cleaner, nothing_left, without_lines
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.findings import Findings
from bertsmith.corpus.formats.hub import hub_source, is_hub
from bertsmith.corpus.lines import has_plain_lines
from bertsmith.corpus.readers import BY_LINES, documents_of, listed, no_text
from bertsmith.corpus.remote import is_url, remote_source
from bertsmith.corpus.source import Source, file_source, standard_input

PLAN = "job.json"
UNIT_BYTES = 1 << 22
"""Small files are read together until they have so many bytes."""
BLOCKS_WANTED = 64
SMALLEST, LARGEST = 1 << 19, 1 << 23
"""Characters of a block, within which they follow from the size of the corpus."""
MOST_DOCUMENTS = 1 << 20
STANDARD_INPUT = "-"
_GROWN = 1 << 40
"""Bytes; so many may a file grow before it is read, and the last of its parts still holds its end."""


class Block(NamedTuple):
    """The name of a block: its unit and its number in it."""

    unit: int
    number: int

    @property
    def name(self) -> str:
        """As its files are called."""
        return f"{self.unit:06d}-{self.number:06d}"

    @property
    def first_id(self) -> int:
        """The id of its first document; ids ascend in the order of reading."""
        return self.unit << 42 | self.number << 20


@dataclass(frozen=True)
class Plan:
    """What a job is about; the same for all ranks.

    Attributes:
        units: the files of each unit, each with the columns that were named; or `pydoc:`, or `-`.
        parts: for each unit None, or the bytes between which the lines of its one file begin.
        block: characters of a block.
        size: bytes of all files, as they lie on disk.
        clean: how text is cleaned.
        listing: what was passed over when the files were listed.
        rest: what else those who make and use the corpus need to know; JSON values.
    """

    units: tuple[tuple[tuple[str, ...], ...], ...]
    parts: tuple[tuple[int, int] | None, ...]
    block: int
    size: int
    clean: CleanConfig
    listing: dict[str, Any]
    rest: dict[str, Any]

    @classmethod
    def make(cls, inputs: Sequence[str], clean: CleanConfig, rest: Mapping[str, Any]) -> tuple[Self, str]:
        """List the files; the plan, and a name for it that changes when a file or anything else does.

        Args:
            inputs: files, folders, globs, `-` or `pydoc:`.
            clean: how text is cleaned.
            rest: what else the job depends on.

        Raises:
            ConfigError: a file needs an optional package that is not installed.
            DataError: a path that does not exist, or nothing in it that can be read.
        """
        tally = Tally()
        sources = listed(inputs, tally)
        stamps = [_stamp(source) for source in sources]
        total = sum(size for _, size, _ in stamps)
        block = min(max(total // BLOCKS_WANTED, SMALLEST), LARGEST)
        units: list[tuple[tuple[str, ...], ...]] = []
        parts: list[tuple[int, int] | None] = []
        unit: list[tuple[str, ...]] = []
        filled = 0
        for source, (name, size, _) in zip(sources, stamps, strict=True):
            file = (name, *(() if isinstance(source, str) else source.columns))
            cuts = [] if isinstance(source, str) else _cuts(source, size, 2 * block)
            if not cuts:
                filled += size
                unit.append(file)
            if unit and (cuts or filled >= UNIT_BYTES):
                units.append(tuple(unit))
                parts.append(None)
                unit, filled = [], 0
            units += [(file,)] * len(cuts)
            parts += cuts
        if unit:
            units.append(tuple(unit))
            parts.append(None)
        plan = cls(tuple(units), tuple(parts), block, total, clean, tally.to_json(), dict(rest))
        told = [plan._values(), stamps, __version__, _sum_of(clean.word_list)]
        return plan, hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, job: Path) -> Self:
        """The plan of a job.

        Args:
            job: its folder.
        """
        values = json.loads((job / PLAN).read_bytes())
        units = tuple(tuple(tuple(file) for file in unit) for unit in values.pop("units"))
        parts = tuple(part and (part[0], part[1]) for part in values.pop("parts"))
        return cls(units=units, parts=parts, clean=CleanConfig.model_validate(values.pop("clean")), **values)

    @property
    def durable(self) -> bool:
        """Whether its files must survive a loss of power: not where the plan is for one start of the machine."""
        return not self.rest.get("boot")

    def write(self, job: Path) -> None:
        """Put the plan into the folder of a `job`."""
        atomic_write(job / PLAN, json.dumps(self._values()).encode())

    def _values(self) -> dict[str, Any]:
        names = ("units", "parts", "block", "size", "listing", "rest")
        return {name: getattr(self, name) for name in names} | {"clean": self.clean.model_dump(mode="json")}


def make_blocks(job: Path, rank: int, ranks: int) -> None:
    """Read and clean this rank's blocks.

    A part of a file of JSON lines is one rank's, and where there are many other units, so is each of these. Where they
    are few every rank reads them all, and keeps the blocks whose turn is its own; but what comes over a network is read
    once.

    Args:
        job: the folder, with its plan.
        rank: 0 to `ranks` - 1.
        ranks: that share this step.

    Raises:
        DataError: a file cannot be read.
    """
    plan = Plan.read(job)
    together = plan.parts.count(None) < 4 * ranks
    cleaner = Cleaner(plan.clean)
    for number, unit in enumerate(plan.units):
        if together and plan.parts[number] is None and not any(_is_remote(name) for name, *_ in unit):
            _make_unit(job, plan, cleaner, number, (rank - number) % ranks, ranks)
        elif number % ranks == rank:
            _make_unit(job, plan, cleaner, number, 0, 1)


def _make_unit(job: Path, plan: Plan, cleaner: Cleaner, unit: int, turn: int, turns: int) -> None:
    """The blocks of a unit whose number is `turn`, modulo `turns`."""
    facts = job / "units" / f"{unit:06d}.json"
    if facts.exists():
        mine = range(turn, json.loads(facts.read_bytes())["blocks"], turns)
        if all(_block_file(job, Block(unit, number)).exists() for number in mine):
            return
    tally = Tally()
    sources = (_source(file, plan.parts[unit]) for file in plan.units[unit])
    documents = chain.from_iterable(documents_of(source, tally) for source in sources)
    number = -1
    for number, texts in enumerate(_blocks(documents, plan.block)):
        block = Block(unit, number)
        if number % turns == turn and not _block_file(job, block).exists():
            _write_block(job, block, texts, cleaner, durable=plan.durable)
    if turn == 0 and not facts.exists():
        atomic_write(facts, json.dumps({"blocks": number + 1, "tally": tally.to_json()}).encode())


def _blocks(documents: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    block: list[Document] = []
    size = 0
    for document in documents:
        block.append(document)
        size += len(document.text)
        if size >= characters or len(block) >= MOST_DOCUMENTS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _write_block(job: Path, block: Block, documents: list[Document], cleaner: Cleaner, *, durable: bool) -> None:
    cleaner.findings = Findings()
    rows: list[bytes] = []
    lines: list[set[int]] = []
    for document, keys in cleaner.clean(documents):
        row = [document.id, document.source, document.text, dict(document.meta)]
        rows.append(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        lines.append(keys)
    head = json.dumps(cleaner.findings.to_json()).encode()
    atomic_write(_block_file(job, block).with_suffix(".lines"), keys_of(lines).tobytes(), durable=durable)
    atomic_write(_block_file(job, block), b"\n".join([head, *rows]), durable=durable)


def all_blocks(job: Path) -> tuple[list[Block], Tally]:
    """The blocks of all units, in the order of reading, and what was skipped on the way.

    Args:
        job: the folder, when all blocks are made.
    """
    tally = Tally.from_json(Plan.read(job).listing)
    blocks: list[Block] = []
    for number in range(len(Plan.read(job).units)):
        facts = json.loads((job / "units" / f"{number:06d}.json").read_bytes())
        blocks += [Block(number, place) for place in range(facts["blocks"])]
        tally.merge(Tally.from_json(facts["tally"]))
    return blocks, tally


def find_boilerplate(job: Path, rank: int, ranks: int) -> None:
    """Find the lines that stand in many documents, in one process; and see that there is something to go on with.

    Args:
        job: the folder, when all blocks are made.
        rank: not used.
        ranks: not used.

    Raises:
        DataError: no document was read, or cleaning left none; says which rule left out most, and how to relax it.
    """
    plan = Plan.read(job)
    blocks, tally = all_blocks(job)
    if not blocks:
        raise no_text(plan.rest["inputs"], sum(map(len, plan.units)), tally)
    findings = Findings()
    for block in blocks:
        with _block_file(job, block).open("rb") as file:
            findings.merge(Findings.from_json(json.loads(file.readline())))
    if not findings.kept_documents:
        raise DataError(f"{', '.join(plan.rest['inputs'])}: {nothing_left(findings, {})}")
    found: Keys = np.empty(0, np.uint64)
    if plan.clean.filters and plan.clean.boilerplate:
        files = [_block_file(job, block).with_suffix(".lines") for block in blocks]
        found = frequent(files, plan.clean.boilerplate)
    atomic_write(job / "boilerplate", found.tobytes())


def documents(job: Path, block: Block, findings: Findings) -> Iterator[tuple[int, Document]]:
    """The documents of a block, each with its id, without boilerplate.

    Args:
        job: the folder, when boilerplate is known.
        block: which.
        findings: receives what cleaning did to them.
    """
    path = _block_file(job, block)
    rows = iter(path.read_bytes().split(b"\n"))
    findings.merge(Findings.from_json(json.loads(next(rows))))
    stored = (Document(row[2], row[0], row[1], row[3]) for row in (json.loads(_text(line)) for line in rows))
    numbered = enumerate(stored, block.first_id)
    known = _boilerplate(job)
    if not len(known):
        yield from numbered
        return
    mine = np.fromfile(path.with_suffix(".lines"), np.uint64)
    here = frozenset(known[np.isin(known, mine)].tolist())
    yield from without_lines(numbered, here, Plan.read(job).clean, findings)


def one_document(job: Path, id: int) -> Document:
    """The document with an `id`, from the blocks of a `job`."""
    block = Block(id >> 42, id >> 20 & (1 << 22) - 1)
    return next(document for number, document in documents(job, block, Findings()) if number == id)


@lru_cache(maxsize=1)
def _boilerplate(job: Path) -> Keys:
    return np.fromfile(job / "boilerplate", np.uint64)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogatepass")


def _block_file(job: Path, block: Block) -> Path:
    return job / "blocks" / f"{block.name}.jsonl"


def _is_remote(name: str) -> bool:
    return is_hub(name) or is_url(name)


def _stamp(source: Source | str) -> tuple[str, int, int | str]:
    """Name, bytes, and time of the last change or what else tells of one."""
    if isinstance(source, str):
        return source, 0, 0
    if _is_remote(source.name):
        return source.name, source.size or UNIT_BYTES, source.version
    if source.path is None:
        return STANDARD_INPUT, 0, time.time_ns()  # what comes next time is unknown
    try:
        found = source.path.stat()
    except OSError as error:
        raise DataError(f"{source.name}: is no longer there; it was when the inputs were listed") from error
    return source.name, found.st_size, found.st_mtime_ns


def _cuts(source: Source, size: int, wanted: int) -> list[tuple[int, int]]:
    """The parts in which a file is read, so that ranks can share it; none where it is read whole."""
    if source.path is None or source.compression or source.kind not in BY_LINES or size < 2 * wanted:
        return []
    if not has_plain_lines(source):
        return []
    borders = [*range(0, size - wanted // 2, wanted), size + _GROWN]
    return list(pairwise(borders))


def _source(file: tuple[str, ...], part: tuple[int, int] | None) -> Source | str:
    name, *columns = file
    if name == STANDARD_INPUT:
        source = standard_input()
        return Source(source.name, source.open, None, tuple(columns))
    if is_hub(name):
        return hub_source(name, tuple(columns))
    if is_url(name):
        return remote_source(name, tuple(columns))
    if name.startswith("pydoc:"):
        return name
    return replace(file_source(Path(name), tuple(columns)), part=part)


def _sum_of(path: str | None) -> str:
    if path is None or not os.path.exists(path):  # noqa: PTH110
        return ""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
