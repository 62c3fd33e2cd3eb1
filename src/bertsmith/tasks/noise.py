"""Labels that are probably wrong: those that a cheap model, which has not seen the row, contradicts with confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertsmith.corpus.shingles import shingles
from bertsmith.tasks.windows import counter_rng

FOLDS, BUCKETS, MOST_CLASSES = 5, 1 << 15, 150
SMOOTHING = 0.3


def doubtful(texts: Sequence[str], labels: Sequence[str]) -> list[tuple[int, str]]:
    """Rows whose label another class beats, in a naive Bayes model of words and word pairs learned from other folds.

    A row is doubtful when the probability of some other class reaches the mean that this class has among its own rows.

    Args:
        texts: N of them.
        labels: their classes, at least two different ones.

    Returns:
        Index and likelier class, the clearest first.

    Source: Northcutt et al. 2021, confident learning (arXiv:1911.00068), out-of-fold probabilities and thresholds by
    class. Differs: naive Bayes on hashed words, tempered by the square root of a text's length.
    """
    names = sorted(set(labels))
    gold = np.searchsorted(np.array(names), np.array(labels))
    hashes, owners = [], []
    for size in (1, 2):
        found, offsets = shingles(texts, size, size + 1, 0)
        hashes.append(found % BUCKETS)
        owners.append(np.repeat(np.arange(len(texts)), np.diff(offsets)))
    features, owner = np.concatenate(hashes).astype(np.int64), np.concatenate(owners)
    fold = counter_rng(len(texts)).permutation(len(texts)) % FOLDS
    size = len(names) * BUCKETS
    counts = [
        np.bincount(gold[mine] * BUCKETS + features[fold[owner] == k], minlength=size).reshape(-1, BUCKETS)
        for k in range(FOLDS)
        for mine in [owner[fold[owner] == k]]
    ]
    total = np.sum(counts, axis=0)
    logits = np.zeros((len(texts), len(names)))
    for k in range(FOLDS):
        seen = (total - counts[k]).astype(np.float64) + SMOOTHING
        table = np.log(seen / seen.sum(axis=1, keepdims=True))
        rows = fold[owner] == k
        for kind in range(len(names)):
            logits[:, kind] += np.bincount(owner[rows], table[kind][features[rows]], minlength=len(texts))
    logits /= np.sqrt(np.maximum(1, np.bincount(owner, minlength=len(texts))))[:, None]
    logits -= logits.max(axis=1, keepdims=True)
    chance = np.exp(logits)
    chance /= chance.sum(axis=1, keepdims=True)
    own = chance[np.arange(len(texts)), gold]
    usual = np.bincount(gold, own, minlength=len(names)) / np.bincount(gold, minlength=len(names))
    guess = chance.argmax(axis=1)
    best = chance[np.arange(len(texts)), guess]
    suspects = np.flatnonzero((guess != gold) & (best >= usual[guess]))
    order = suspects[np.argsort(own[suspects] - best[suspects], kind="stable")]
    return [(int(i), names[guess[i]]) for i in order]
