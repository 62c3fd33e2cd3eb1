"""N-grams guess hidden words as counting by hand would."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.corpus.build import build
from bertsmith.corpus.document import Document, Tally
from bertsmith.evaluate.baselines import Ngrams, ngram_accuracy
from bertsmith.model.packing import pack_arrays
from bertsmith.tasks.windows import passages

A, B, C, D, E = range(5)


def test_a_known_context_decides_and_an_unknown_one_leaves_the_shorter() -> None:
    ngrams = Ngrams(np.array([A, B, C, A, B, C, A, B, D, E, B, D, E, B, D]), 5)
    assert int(ngrams.after(A, B).argmax()) == C  # twice C, once D
    assert int(ngrams.after(E, B).argmax()) == D
    assert int(ngrams.after(C, B).argmax()) == D  # (C, B) never occurred; after B stands D three times, C twice
    assert int(ngrams.after(D, C).argmax()) == A
    assert int(Ngrams(np.array([A, B, B]), 5).after(D, E).argmax()) == B


def test_shares_are_those_of_witten_and_bell() -> None:
    ngrams = Ngrams(np.array([A, B, A, C]), 5)
    unigram = np.array([2, 1, 1, 0, 0]) / 4
    bigram = (np.array([0, 1, 1, 0, 0]) + 2 * unigram) / 4  # A was followed by B and C, once each
    assert ngrams.after(D, A) == pytest.approx(bigram)
    assert ngrams.after(B, A) == pytest.approx((np.array([0, 0, 1, 0, 0]) + bigram) / 2)
    for context in ((A, B), (B, A), (D, E), (C, C)):
        assert ngrams.after(*context).sum() == pytest.approx(1.0)


def test_nothing_is_counted_across_texts() -> None:
    ngrams = Ngrams(np.array([A, B, -1, C, D]), 5)
    assert ngrams.after(D, B) == pytest.approx(ngrams.unigram)
    assert ngrams.unigram == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.0])


def test_the_trigram_sees_the_true_words_to_the_left_and_only_what_was_learned(tmp_path: Path) -> None:
    words = {"[CLS]": 0, "[MASK]": 1, "red": 2, "fox": 3, "runs": 4, "sleeps": 5, "the": 6}
    cycle = "the red fox runs. " * 6
    texts = [f"{cycle}\n\nthe the the the the the the the the."] + ["red fox sleeps red."] * 25

    def encode(sentences: list[str]) -> tuple[Any, Any, Any]:
        found = [[words[word] for word in sentence.rstrip(".").split()] for sentence in sentences]
        ids = np.array(list(chain.from_iterable(found)), np.int32)
        return ids, np.ones(len(ids), bool), np.array([len(one) for one in found], np.int64)

    store = build(
        [Document(text, f"d{n}", "test") for n, text in enumerate(texts)],
        encode,
        tmp_path / "store",
        vocab_size=7,
        tokenizer_hash="t",
        settings={},
        tally=Tally(),
    )
    every = passages(store)
    learn = every.take(np.array([0]))
    # [CLS] the red [fox] [runs], the last two hidden; and [CLS] [the], whose left neighbours say nothing
    ids = np.array([0, 6, 2, 1, 1, 0, 1])
    targets = {"mlm_positions": torch.tensor([3, 4, 6]), "mlm_labels": torch.tensor([3, 4, 6])}
    batch = pack_arrays(ids, np.zeros(7, np.int64), np.array([5, 2]), targets)
    assert ngram_accuracy(store, learn, [batch], 7) == {"unigram": pytest.approx(1 / 3), "trigram": 1.0}
    # Learned from the other documents, the fox sleeps, and `red` is the most frequent word.
    shares = ngram_accuracy(store, every.take(np.arange(1, 26)), [batch], 7)
    assert shares == {"unigram": 0.0, "trigram": pytest.approx(1 / 3)}
