"""What is hidden: the right share, whole words, spans of the published lengths, and 80/10/10."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bertsmith.tasks.masking import Masker, Masking, spans
from bertsmith.tasks.windows import Ints, counter_rng
from bertsmith.tokenizer.load import Tokenizer

KINDS: tuple[Masking, ...] = ("subword", "whole-word", "span")


def sequences(tokenizer: Tokenizer, lengths: list[int], seed: int = 0) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Sequences of those lengths, `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, of words of one to four pieces."""
    rng = np.random.default_rng(seed)
    ids = np.concatenate(
        [[tokenizer.cls_id, *rng.integers(7, 47, length - 2), tokenizer.sep_id] for length in lengths]
    ).astype(np.int64)
    starts = rng.random(len(ids)) < 0.6
    ends = np.cumsum(lengths)
    for end, length in zip(ends.tolist(), lengths, strict=True):
        if length > 40:
            ids[end - length // 3] = tokenizer.sep_id
    starts[np.isin(ids, [tokenizer.cls_id, tokenizer.sep_id])] = False
    return ids, np.array(lengths), starts


def units(tokenizer: Tokenizer, ids: Ints, starts: NDArray[np.bool_]) -> Ints:
    """The number of each piece's word, `[T]`; -1 for a special token."""
    special = np.isin(ids, [tokenizer.cls_id, tokenizer.sep_id])
    first = ~special & (starts | np.concatenate([[True], special[:-1]]))
    return np.where(special, -1, np.cumsum(first) - 1)


LENGTHS = st.lists(st.integers(3, 80), min_size=1, max_size=20)
KEYS = st.tuples(st.integers(0, 2**40), st.integers(0, 2**40))


@given(lengths=LENGTHS, rate=st.floats(0.01, 0.6), key=KEYS)
@settings(max_examples=60, deadline=None)
def test_each_sequence_gives_its_exact_share_of_single_pieces(
    toy_tokenizer: Tokenizer, lengths: list[int], rate: float, key: tuple[int, int]
) -> None:
    ids, sizes, _ = sequences(toy_tokenizer, lengths)
    _, positions, _ = Masker(toy_tokenizer)(ids, sizes, *key, rate=rate)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    eligible = np.bincount(owner[~np.isin(ids, [toy_tokenizer.cls_id, toy_tokenizer.sep_id])], minlength=len(sizes))
    expected = np.maximum(1, np.rint(eligible * rate))
    assert np.bincount(owner[positions], minlength=len(sizes)).tolist() == expected.tolist()


@pytest.mark.parametrize("masking", KINDS)
@given(lengths=LENGTHS, rate=st.floats(0.01, 0.9), key=KEYS)
@settings(max_examples=40, deadline=None)
def test_what_holds_for_every_kind(
    toy_tokenizer: Tokenizer, masking: Masking, lengths: list[int], rate: float, key: tuple[int, int]
) -> None:
    tokenizer, masker = toy_tokenizer, Masker(toy_tokenizer)
    ids, sizes, starts = sequences(tokenizer, lengths)
    corrupted, positions, labels = masker(ids, sizes, *key, rate=rate, masking=masking, word_starts=starts)
    assert (labels == ids[positions]).all()
    assert not np.isin(labels, [tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id]).any()
    assert (np.diff(positions) > 0).all()
    untouched = np.setdiff1d(np.arange(len(ids)), positions)
    assert (corrupted[untouched] == ids[untouched]).all()
    owner = np.repeat(np.arange(len(sizes)), sizes)
    assert (np.bincount(owner[positions], minlength=len(sizes)) > 0).all(), "every sequence has a target"
    again = masker(ids, sizes, *key, rate=rate, masking=masking, word_starts=starts)
    assert all((a == b).all() for a, b in zip((corrupted, positions, labels), again, strict=True))
    if masking != "subword":
        unit, hidden = units(tokenizer, ids, starts), np.zeros(len(ids), bool)
        hidden[positions] = True
        for word in np.unique(unit[positions]):
            assert hidden[unit == word].all(), "a word is split"


@pytest.mark.parametrize("masking", KINDS)
@pytest.mark.parametrize("rate", [0.15, 0.3])
@pytest.mark.parametrize("length", [22, 64, 127])
def test_the_share_is_the_rate(toy_tokenizer: Tokenizer, masking: Masking, rate: float, length: int) -> None:
    ids, sizes, starts = sequences(toy_tokenizer, [length] * 2000)
    positions = Masker(toy_tokenizer)(ids, sizes, 5, rate=rate, masking=masking, word_starts=starts)[1]
    eligible = int((~np.isin(ids, [toy_tokenizer.cls_id, toy_tokenizer.sep_id])).sum())
    budget = np.rint(rate * eligible / 2000) / (eligible / 2000)
    assert len(positions) / eligible == pytest.approx(budget, rel=0.03 if length == 22 else 0.01)


@pytest.mark.parametrize("masking", ["whole-word", "span"])
def test_long_words_are_hidden_as_often_as_short_ones(toy_tokenizer: Tokenizer, masking: Masking) -> None:
    ids, sizes, starts = sequences(toy_tokenizer, [127] * 4000)
    positions = Masker(toy_tokenizer)(ids, sizes, 6, rate=0.15, masking=masking, word_starts=starts)[1]
    unit = units(toy_tokenizer, ids, starts)
    size = np.bincount(unit[unit >= 0])
    hidden = np.bincount(unit[positions], minlength=len(size)) > 0
    shares = [hidden[size == length].mean() for length in (1, 2, 3)]
    assert max(shares) - min(shares) < 0.015


@pytest.mark.parametrize("masking", KINDS)
def test_eighty_ten_ten(toy_tokenizer: Tokenizer, masking: Masking) -> None:
    tokenizer = toy_tokenizer
    label = tokenizer.tokens.index("london")
    ids = np.full(200_000, label, np.int64)
    found, positions, labels = Masker(tokenizer)(
        ids, np.full(2000, 100), 3, 4, rate=0.15, masking=masking, word_starts=np.arange(200_000) % 2 == 0
    )
    count = len(positions)
    assert masking != "subword" or count == 30_000
    found = found[positions]
    pieces = tokenizer.vocab_size - 5
    fates = count / 8 if masking == "span" else count  # pieces of a span share their fate
    for share, seen in (
        (0.8, (found == tokenizer.mask_id).mean()),
        (0.1 + 0.1 / pieces, (found == labels).mean()),
        (0.1 - 0.1 / pieces, ((found != labels) & (found != tokenizer.mask_id)).mean()),
    ):
        assert abs(seen - share) < 4.5 * np.sqrt(share * (1 - share) / fates)
    drawn = np.unique(found[found != tokenizer.mask_id])
    special = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
    assert not np.isin(drawn, special).any()
    assert len(drawn) == pieces, "every real piece is drawn sooner or later"


def test_every_position_is_chosen_equally_often(toy_tokenizer: Tokenizer) -> None:
    ids = np.full(20 * 5000, 30, np.int64)
    positions = Masker(toy_tokenizer)(ids, np.full(5000, 20), 0, rate=0.15)[1]
    times = np.bincount(positions % 20, minlength=20)
    assert np.abs(times - times.mean()).max() < 5 * np.sqrt(times.mean())


def test_spans_are_as_long_as_published(toy_tokenizer: Tokenizer) -> None:
    """Geometric with 0.2, 1 to 10 words, 3.8 on average (SpanBERT, section 3.1), in texts where spans hardly meet."""
    ids = np.full(4000 * 200, 30, np.int64)
    starts = np.ones(len(ids), bool)
    hidden = np.zeros(len(ids), bool)
    positions = Masker(toy_tokenizer)(ids, np.full(200, 4000), 1, rate=0.02, masking="span", word_starts=starts)[1]
    hidden[positions] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
    runs = edges[1::2] - edges[::2]
    assert runs.mean() == pytest.approx(3.8, rel=0.04)
    assert (runs == 1).mean() == pytest.approx(0.2 / (1 - 0.8**10), abs=0.03)
    assert (runs > 10).mean() < 0.05


def test_a_span_covers_words_side_by_side_and_stays_in_its_text() -> None:
    count = 5000
    text = np.repeat(np.arange(count // 20), 20)
    priority = np.random.default_rng(0).random(count)
    best, start = spans(priority, text, counter_rng(0))
    word = np.arange(count)
    assert (text[start] == text).all()
    assert ((word - start >= 0) & (word - start < 10)).all()
    assert (best == priority[start]).all()
    assert (best <= priority).all()


def test_one_span_has_one_fate(toy_tokenizer: Tokenizer) -> None:
    tokenizer = toy_tokenizer
    ids = np.full(4000 * 50, tokenizer.tokens.index("london"), np.int64)
    starts = np.ones(len(ids), bool)
    corrupted, positions, _ = Masker(tokenizer)(
        ids, np.full(50, 4000), 1, rate=0.01, masking="span", word_starts=starts
    )
    side_by_side = np.flatnonzero(np.diff(positions) == 1)
    masked = corrupted[positions] == tokenizer.mask_id
    same = (masked[side_by_side] == masked[side_by_side + 1]).mean()
    assert same > 0.97, "only where two spans meet may the fate change; 0.68 if each piece had its own"
