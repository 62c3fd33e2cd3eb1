"""Screening a corpus: documents that a classifier calls toxic are left out of it, block by block.

A document is judged by some of its passages, each of consecutive sentences. It goes when the share of toxic ones is
large enough: one harsh quotation in a long article is none, and one in a post of three sentences is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import ConfigError
from bertsmith.corpus.blocks import Plan, all_blocks, documents
from bertsmith.corpus.clean import CleanConfig
from bertsmith.corpus.copies import left_out
from bertsmith.corpus.document import Document
from bertsmith.corpus.findings import Findings
from bertsmith.corpus.screened import Judged, is_screened, write_screened
from bertsmith.corpus.sentences import document_sentences
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Answer
from bertsmith.tasks.prepare_job import Screen

NAMES = frozenset(
    [
        "toxic",
        "severe_toxic",
        "offensive",
        "hate",
        "hateful",
        "hate_speech",
        "abusive",
        "abuse",
        "insult",
        "obscene",
        "threat",
        "identity_hate",
        "harmful",
        "有毒",
        "有害",
        "冒犯",
        "攻击",
        "辱骂",
        "仇恨",
    ]
)
"""What the labels of such classifiers are called, where the user does not say which of them count."""
PIECES = 128
"""A passage holds sentences up to so many pieces, or to what the classifier was trained for."""


def screening(config: CleanConfig) -> Screen | None:
    """What leaves out toxic documents as a config says, or None; opens the classifier to see that it can.

    Args:
        config: how text is cleaned.

    Raises:
        BundleError: there is no such bundle, or it is damaged.
        ConfigError: it is no classifier of single texts, or which of its labels are toxic must be said.
    """
    if not config.filters or config.toxic is None:
        return None
    bundle = Bundle.open(config.toxic)
    if bundle.task not in ("classify", None) or len(bundle.labels) < 2:
        raise ConfigError(
            f"corpus.clean.toxic={config.toxic}: is for the task {bundle.task or 'of no name'}, and a classifier with "
            "labels is needed; make one with `bertsmith finetune classify`"
        )
    labels = toxic_labels(bundle.labels, config)
    facts = {"bundle": config.toxic, "sha256": bundle.hash, "labels": list(labels)}
    return Screen(screen_blocks, facts)


def toxic_labels(labels: Sequence[str], config: CleanConfig) -> tuple[str, ...]:
    """Which labels of a classifier count.

    Args:
        labels: all of them.
        config: names them, or leaves it to what they are called.

    Raises:
        ConfigError: there is no such label, or none has a name that tells.
    """
    if unknown := [label for label in config.toxic_labels if label not in labels]:
        raise ConfigError(
            f"corpus.clean.toxic_labels: {config.toxic} has no label {', '.join(unknown)}; it has {', '.join(labels)}"
        )
    found = config.toxic_labels or tuple(label for label in labels if label.strip().lower() in NAMES)
    if not found or len(found) == len(labels) > len(NAMES.intersection(labels)):
        raise ConfigError(
            f"corpus.clean.toxic={config.toxic}: which of its labels are toxic? It has {', '.join(labels)}; say it "
            f"""with --set 'corpus.clean.toxic_labels=["{labels[-1]}"]'"""
        )
    return found


def screen_blocks(job: Path, rank: int, ranks: int) -> None:
    """Judge the documents of a `job` that are no copies, every `ranks`-th block from `rank` on."""
    plan = Plan.read(job)
    for block in all_blocks(job)[0][rank::ranks]:
        if is_screened(job, block):
            continue
        gone = left_out(job, block)
        some = [(id, one) for id, one in documents(job, block, Findings()) if id not in gone]
        with _one_thread():
            judged = judge([one for _, one in some], _classifier(str(plan.clean.toxic)), plan.clean)
        found = {id: why for (id, _), why in zip(some, judged, strict=True) if why is not None}
        write_screened(job, block, found, durable=plan.durable)


def judge(some: Sequence[Document], classifier: Predictor, config: CleanConfig) -> list[Judged | None]:
    """Why each document is left out, or None where it stays.

    Args:
        some: the documents.
        classifier: of single texts.
        config: which labels count, and from when on.
    """
    labels = toxic_labels(classifier.bundle.labels, config)
    passages = [_drawn(passages_of(one, classifier), config.toxic_passages) for one in some]
    answers: list[Answer] = classifier([text for each in passages for text in each])
    scores = iter([toxicity(one["probabilities"], labels, several="labels" in one) for one in answers])
    result: list[Judged | None] = []
    for each in passages:
        found = [next(scores) for _ in each]
        toxic = sum(score >= config.toxic_score for score in found)
        if toxic and toxic >= config.toxic_share * len(found):
            worst = max(range(len(found)), key=found.__getitem__)
            note = f"{toxic} of {len(found)} passages, highest {found[worst]:.2f}"
            result.append(Judged(each[worst], note))
        else:
            result.append(None)
    return result


def toxicity(probabilities: Mapping[str, float], labels: Sequence[str], *, several: bool) -> float:
    """How probable it is that a text is toxic, 0 to 1.

    Args:
        probabilities: of all labels.
        labels: those that count.
        several: whether a text may have several labels, so that their probabilities do not add up to 1.
    """
    counted = [probabilities[label] for label in labels]
    return max(counted) if several else min(1.0, sum(counted))


def passages_of(document: Document, classifier: Predictor) -> list[str]:
    """The text of a document in stretches of whole sentences that the classifier reads without cutting them.

    Args:
        document: at least one character that is no white space.
        classifier: whose pieces are counted.
    """
    room = min(PIECES, classifier.max_length - 2)
    sentences = document_sentences(document)
    passages: list[str] = []
    left = 0
    for sentence, (ids, _) in zip(sentences, classifier.tokenizer.encode_ids(sentences), strict=True):
        if passages and len(ids) <= left:
            passages[-1] += " " + sentence
        else:
            passages.append(sentence)
            left = room
        left -= len(ids)
    return passages


def _drawn(passages: list[str], count: int) -> list[str]:
    """So many passages, evenly over the document, the first and the last among them; all of them for 0."""
    if not count or len(passages) <= count:
        return passages
    return [passages[place] for place in np.linspace(0, len(passages) - 1, count).round().astype(np.int64).tolist()]


@lru_cache(maxsize=1)
def _classifier(path: str) -> Predictor:
    return Predictor.open(path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over several threads differ in their last bits with the number of threads, and so of ranks."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
