"""The steps by which ranks turn text into a token store; `preparation.prepare` runs them.

What they share is a folder: `corpus.blocks` says what lies there while text is cleaned and copies are looked for. Then

    screened/U-B.json   which documents of a block a classifier leaves out
    vocab/              the vocabulary, given or trained on the cleaned text
    encoded/U-B.npz     a block in numbers
    tally.json          what was skipped, once the store is written
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertsmith.core.device import release_memory
from bertsmith.core.errors import DataError
from bertsmith.core.files import atomic_write
from bertsmith.core.runner import Step, Work
from bertsmith.corpus import copies
from bertsmith.corpus.blocks import Block, Plan, all_blocks, documents, find_boilerplate, make_blocks
from bertsmith.corpus.build import Encode, Encoded, encoded, write
from bertsmith.corpus.clean import nothing_left
from bertsmith.corpus.dedup import DedupConfig
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.findings import Findings
from bertsmith.corpus.screened import FOLDER as SCREENED
from bertsmith.corpus.screened import read_screened
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.segment import encode_in_words, rjieba_cut
from bertsmith.tokenizer.train import VocabConfig, train_wordpiece

VOCABULARY, TALLY, SAID = "vocab", "tally.json", "said.json"
LAST = "store"


class Screen(NamedTuple):
    """What judges documents, made by a room that knows models.

    Attributes:
        work: the step; writes `corpus.screened`.
        classifier: what the store's manifest says of it.
    """

    work: Work
    classifier: dict[str, Any]


def steps(dedup: DedupConfig, screen: Screen | None = None) -> list[Step]:
    """All steps, in order.

    Args:
        dedup: which copies are left out.
        screen: what judges the documents that are no copies; None: nothing.
    """
    return [
        Step("read", make_blocks),
        Step("lines", find_boilerplate, alone=True),
        *copies.steps(dedup),
        *([Step("screen", screen.work)] if screen else []),
        Step("vocabulary", make_vocabulary, alone=True),
        Step("encode", encode_blocks),
        Step(LAST, write_store, alone=True),
    ]


def progress(job: Path, step: str) -> str:
    """How far a step is, for people; nothing where it is short.

    Args:
        job: the folder.
        step: its name.
    """
    if step == "read":
        characters = len(list((job / "blocks").glob("*.jsonl"))) * Plan.read(job).block
        return f"read and cleaned: {characters / 1e6:,.0f} M characters"
    if step in ("encode", "screen"):
        folder, what = ("encoded", "encoded") if step == "encode" else (SCREENED, "judged")
        done, blocks = len(list((job / folder).glob("*-*.*"))), len(all_blocks(job)[0])
        return f"{what}: {done / max(1, blocks):.0%}"
    return ""


def save_vocabulary(job: Path, tokenizer: Tokenizer) -> None:
    """Put a vocabulary into a job.

    Args:
        job: the folder.
        tokenizer: the vocabulary.
    """
    for name, data in tokenizer.files().items():
        atomic_write(job / VOCABULARY / name, data)


def make_vocabulary(job: Path, rank: int, ranks: int) -> None:
    """Train a vocabulary on the cleaned text of a `job`, unless one was given; `rank` and `ranks` do not matter.

    Raises:
        DataError: nothing is left of the text; says which rule left out most, and how to relax it.
    """
    plan = Plan.read(job)
    settings = plan.rest["vocab"]
    if settings is None or (job / SAID).exists():
        return
    said: list[str] = []
    findings = Findings()
    try:
        tokenizer = train_wordpiece(_texts(job, findings), VocabConfig.model_validate(settings), say=said.append)
    except DataError:
        if findings.documents and not findings.kept_documents:
            raise DataError(f"{', '.join(plan.rest['inputs'])}: {nothing_left(findings, {})}") from None
        raise
    save_vocabulary(job, tokenizer)
    atomic_write(job / SAID, json.dumps([*said, f"vocabulary: {tokenizer.vocab_size:,} pieces"]).encode())
    release_memory()  # the sample of text, up to sample_bytes of it


def encode_blocks(job: Path, rank: int, ranks: int) -> None:
    """Turn the documents that stay into numbers, every `ranks`-th block of a `job` from `rank` on."""
    plan, tokenizer = Plan.read(job), Tokenizer.load(job / VOCABULARY)
    encode: Encode = tokenizer.encode_flat
    if plan.rest["settings"]["chinese_words"]:
        encode = partial(encode_in_words, tokenizer, cut=rjieba_cut())
    for block in all_blocks(job)[0][rank::ranks]:
        file = _encoded_file(job, block)
        if not file.exists():
            tally, findings = Tally(), Findings()
            found = list(encoded(_kept(job, block, tally, findings), encode, tally))
            facts = {"tally": tally.to_json(), "findings": findings.to_json()}
            atomic_write(file, _packed(found, facts), durable=plan.durable)


def write_store(job: Path, rank: int, ranks: int) -> None:
    """Write the store beside a `job`; `rank` and `ranks` do not matter.

    Raises:
        DataError: nothing is left of the text; says which rule left out most, and how to relax it.
    """
    plan, tokenizer = Plan.read(job), Tokenizer.load(job / VOCABULARY)
    blocks, tally = all_blocks(job)
    findings = Findings()

    def everything() -> Iterator[Encoded]:
        for block in blocks:
            facts, found = _unpacked(_encoded_file(job, block))
            findings.merge(Findings.from_json(facts["findings"]))
            tally.merge(Tally.from_json(facts["tally"]))
            yield from found
        for reason, count in findings.counts().items():
            tally.add(reason, findings.first(reason), count)

    try:
        write(
            everything(),
            job.with_name(plan.rest["out"]),
            vocab_size=tokenizer.vocab_size,
            tokenizer_hash=tokenizer.hash,
            settings=plan.rest["settings"],
            tally=tally,
            notes=lambda: {
                "cleaning": findings.to_json(keys=False),
                "duplicates": copies.pairs(job),
                **({"classifier": plan.rest["classifier"]} if plan.rest["classifier"] else {}),
            },
            beside={f"{VOCABULARY}/{name}": data for name, data in tokenizer.files().items()},
        )
    except DataError:
        if findings.documents and findings.left_out():
            raise DataError(f"{', '.join(plan.rest['inputs'])}: {nothing_left(findings, {})}") from None
        raise
    atomic_write(job / TALLY, json.dumps(tally.to_json()).encode())


def _kept(job: Path, block: Block, tally: Tally, findings: Findings) -> Iterator[Document]:
    """The documents of a block but for copies and for those that a classifier leaves out."""
    gone, toxic = copies.left_out(job, block), read_screened(job, block)
    for id, document in documents(job, block, findings):
        if id in gone:
            tally.add(gone[id], document.id)
        elif id in toxic:
            findings.take_back(len(document.text))
            findings.add("toxic", "documents", document, toxic[id].text, len(document.text), toxic[id].note)
        else:
            yield document


def _texts(job: Path, findings: Findings) -> Iterator[str]:
    for block in all_blocks(job)[0]:
        for document in _kept(job, block, Tally(), findings):
            yield document.text


def _encoded_file(job: Path, block: Block) -> Path:
    return job / "encoded" / f"{block.name}.npz"


def _packed(documents: Iterable[Encoded], facts: dict[str, Any]) -> bytes:
    """A block in numbers as a file."""
    found = list(documents)
    for name in ("id", "source", "characters"):
        facts = facts | {name: [getattr(one, name) for one in found]}
    arrays: dict[str, Any] = {
        "sentences": np.array([len(one.sizes) for one in found], np.int64),
        "sizes": np.concatenate([np.empty(0, np.int64), *(one.sizes for one in found)]).astype(np.int32),
        "ids": np.concatenate([np.empty(0, np.int32), *(one.ids for one in found)]),
        "flags": np.packbits(np.concatenate([np.empty(0, np.bool_), *(one.flags for one in found)])),
        "facts": np.frombuffer(json.dumps(facts).encode("utf-8", "surrogatepass"), np.uint8),
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _unpacked(path: Path) -> tuple[dict[str, Any], Iterator[Encoded]]:
    with np.load(path) as file:
        facts = json.loads(file["facts"].tobytes())
        sentences, sizes, ids = file["sentences"], file["sizes"].astype(np.int64), file["ids"]
        flags = np.unpackbits(file["flags"], count=len(ids)).astype(np.bool_)

    def each() -> Iterator[Encoded]:
        first = begin = 0
        named = zip(facts["id"], facts["source"], facts["characters"], sentences.tolist(), strict=True)
        for id, source, characters, count in named:
            mine = sizes[first : first + count]
            end = begin + int(mine.sum())
            yield Encoded(id, source, mine, ids[begin:end], flags[begin:end], characters)
            first, begin = first + count, end

    return facts, each()
