"""Cutting a store into sequences: nothing lost, nothing twice, nothing too long, and chance that can be repeated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.corpus.build import build
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.store import Store
from bertsmith.tasks.windows import PASSAGE, Pairs, Passages, counter_rng, hold_out, passages, plan

SHAPES = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=4, max_size=30)

PAIRS = st.sampled_from(["nsp", "sop", "none"])


class Memory:
    """As much of a store as planning needs: documents as lists of sentence lengths."""

    path = Path("memory")
    content_hash = "0123456789abcdef0123"

    def __init__(self, shape: list[list[int]]) -> None:
        sizes = [size for document in shape for size in document]
        self.sentence_offsets = np.cumsum([0, *sizes])
        self.document_offsets = np.cumsum([0, *map(len, shape)])
        self.num_documents, self.num_sentences, self.num_tokens = len(shape), len(sizes), sum(sizes)


def whole(store: Memory) -> Passages:
    return Passages(store.document_offsets[:-1], store.document_offsets[1:])


def covered(store: Memory, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    times = np.zeros(store.num_tokens, np.int64)
    for start, stop in zip(starts, stops, strict=True):
        times[start:stop] += 1
    return times


@given(SHAPES, st.integers(16, 64), PAIRS, st.integers(0, 2**32))
def test_every_token_is_in_exactly_one_window_before_b_is_replaced(
    shape: list[list[int]], length: int, pairs: Pairs, seed: int
) -> None:
    store = Memory(shape)
    # The same chance, but nothing to draw from: with one passage only, B always follows.
    for number in range(len(shape)):
        one = whole(store).take(np.array([number]))
        alone = plan(store, one, length=length, pairs=pairs, rng=counter_rng(seed))  # type: ignore[arg-type]
        first, stop = (store.sentence_offsets[bound[0]] for bound in (one.first, one.stop))
        assert pairs == "sop" or not alone.is_negative.any()
        times = covered(store, alone.start, alone.cut) + covered(store, alone.other, alone.other + alone.length_b)
        assert (times[first:stop] == 1).all()
        assert times.sum() == stop - first


@given(SHAPES, st.integers(16, 64), PAIRS, st.integers(0, 2**32))
def test_windows_fit_and_a_and_true_b_are_neighbours(
    shape: list[list[int]], length: int, pairs: Pairs, seed: int
) -> None:
    store = Memory(shape)
    windows = plan(store, whole(store), length=length, pairs=pairs, rng=counter_rng(seed))  # type: ignore[arg-type]
    assert windows.lengths.max() <= length
    assert (windows.cut > windows.start).all()
    true = ~windows.is_negative
    assert (windows.other[true] == windows.cut[true]).all()
    assert (windows.length_b[windows.is_negative] > 0).all()
    meeting = np.where(windows.is_negative & (pairs == "sop"), windows.start, windows.cut)
    assert np.isin(meeting[windows.length_b > 0], store.sentence_offsets).all()
    if pairs == "none":
        assert not windows.length_b.any()
    times = covered(store, windows.start, windows.cut)
    assert times.max() <= 1


@given(SHAPES, st.integers(16, 64), st.integers(0, 2**32))
def test_negatives_are_whole_sentences_of_another_passage(shape: list[list[int]], length: int, seed: int) -> None:
    store = Memory(shape)
    windows = plan(store, whole(store), length=length, pairs="nsp", rng=counter_rng(seed))  # type: ignore[arg-type]
    bounds = store.sentence_offsets[store.document_offsets]

    def document(at: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(bounds, at, side="right")

    chosen = windows.take(np.flatnonzero(windows.is_negative))
    assert (document(chosen.start) != document(chosen.other)).all()
    assert np.isin(chosen.other, store.sentence_offsets).all()
    assert (document(chosen.other) == document(chosen.other + chosen.length_b - 1)).all()


@given(SHAPES, st.integers(0, 2**32))
def test_a_plan_is_a_pure_function_of_its_key(shape: list[list[int]], seed: int) -> None:
    store = Memory(shape)

    def made(*key: int) -> list[list[int]]:
        windows = plan(store, whole(store), length=24, pairs="nsp", rng=counter_rng(*key))  # type: ignore[arg-type]
        return [windows.start.tolist(), windows.cut.tolist(), windows.other.tolist(), windows.length_b.tolist()]

    assert made(seed, 1) == made(seed, 1)


@given(SHAPES, st.integers(16, 64), st.integers(0, 2**32))
def test_pairs_to_be_put_in_order_are_whole_sentences_that_meet(shape: list[list[int]], length: int, seed: int) -> None:
    """Half a sentence at the end of a pair would betray which of the two came first."""
    store = Memory(shape)
    windows = plan(store, whole(store), length=length, pairs="sop", rng=counter_rng(seed))  # type: ignore[arg-type]
    paired = windows.take(np.flatnonzero(windows.length_b))
    stop = paired.other + paired.length_b
    for bound in (paired.start, paired.cut, paired.other, stop):
        assert np.isin(bound, store.sentence_offsets).all()
    assert (
        np.where(paired.is_negative, stop, paired.other) == np.where(paired.is_negative, paired.start, paired.cut)
    ).all()


def test_a_sentence_that_a_cut_goes_through_becomes_a_sequence_of_its_own() -> None:
    store = Memory([[10] * 40] * 200)
    windows = plan(store, whole(store), length=64, pairs="sop", rng=counter_rng(0))  # type: ignore[arg-type]
    alone = windows.take(np.flatnonzero(windows.length_b == 0))
    inside = alone.take(np.flatnonzero(alone.cut % 400 != 0))  # the end of a document may be too short for a pair
    assert (inside.cut - inside.start == 10).mean() > 0.9
    assert 0.1 < 10 * len(inside) / store.num_tokens < 0.25


@pytest.mark.parametrize("pairs", ["nsp", "sop"])
def test_half_of_the_pairs_are_negative_and_epochs_differ(pairs: Pairs) -> None:
    store = Memory([[7, 9, 5, 8, 6]] * 3000)
    plans = [plan(store, whole(store), length=32, pairs=pairs, rng=counter_rng(0, n)) for n in (0, 1)]  # type: ignore[arg-type]
    for windows in plans:
        share = windows.is_negative[windows.length_b > 0].mean()
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt((windows.length_b > 0).sum())
    assert plans[0].cut.tolist() != plans[1].cut.tolist()


def test_negatives_are_as_long_as_what_they_replace() -> None:
    """Otherwise the length of a pair would betray that it is random."""
    store = Memory([[7, 9, 5, 8, 6, 4, 9, 7]] * 500)
    windows = plan(store, whole(store), length=32, pairs="nsp", rng=counter_rng(0))  # type: ignore[arg-type]
    paired = windows.take(np.flatnonzero(windows.length_b > 0))
    random_mean, true_mean = (paired.length_b[which].mean() for which in (paired.is_negative, ~paired.is_negative))
    assert abs(random_mean - true_mean) < 1.0


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(SHAPES, st.floats(0.01, 0.5))
def test_what_is_held_out_is_not_learned_from(shape: list[list[int]], share: float) -> None:
    store = Memory(shape)
    every = passages(store)  # type: ignore[arg-type]
    if len(every) < 4:
        return
    learn, held_out = hold_out(store, share, 10**9)  # type: ignore[arg-type]
    assert len(learn) >= 2
    assert len(held_out) >= 2
    both = np.sort(np.concatenate([learn.first, held_out.first]))
    assert both.tolist() == sorted(every.first.tolist())


def test_the_hold_out_is_a_share_and_has_a_limit() -> None:
    store = Memory([[10] * 10] * 1000)

    def held(share: float, most: int) -> int:
        passages_held = hold_out(store, share, most)[1]  # type: ignore[arg-type]
        return int((passages_held.stop - passages_held.first).sum()) * 10

    assert held(0.01, 10**9) == pytest.approx(1000, abs=100)
    assert held(0.5, 2000) == pytest.approx(2000, abs=100)


def text_store(folder: Path, documents: list[str], **settings: str) -> Store:
    def encode(sentences: list[str]) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int64]]:
        sizes = np.array([len(sentence.split()) for sentence in sentences], np.int64)
        ids = np.concatenate([np.empty(0, np.int32), *(np.arange(size, dtype=np.int32) for size in sizes)])
        return ids, np.ones(len(ids), bool), sizes

    return build(
        [Document(text, str(number), "t") for number, text in enumerate(documents)],
        encode,
        folder,
        vocab_size=100,
        tokenizer_hash="x",
        settings=settings,
        tally=Tally(),
    )


def test_one_long_document_is_cut_into_passages(tmp_path: Path) -> None:
    store = text_store(tmp_path / "store", ["This is a sentence. " * 400])
    assert max(passages(store).stop - passages(store).first) == PASSAGE
    learn, held_out = hold_out(store, 0.01, 10**9)
    assert len(learn) + len(held_out) == -(-400 // PASSAGE)


def test_one_document_of_eight_sentences_is_enough(tmp_path: Path) -> None:
    store = text_store(tmp_path / "store", ["This is a sentence. " * 8])
    assert [len(part) for part in hold_out(store, 0.01, 10**9)] == [2, 2]


@pytest.mark.parametrize("text", ["One sentence only.", "One here. Two here. Three here."])
def test_too_little_text_says_how_much_is_needed(tmp_path: Path, text: str) -> None:
    store = text_store(tmp_path / "store", [text])
    with pytest.raises(DataError, match=r"only \d sentence.*at least four documents.*eight sentences.*add text"):
        hold_out(store, 0.01, 10**9)


def test_the_hold_out_does_not_depend_on_where_the_text_lay(tmp_path: Path) -> None:
    text = [f"Here is document {number}. It has two sentences." for number in range(50)]
    stores = [text_store(tmp_path / name, text, inputs=f"/home/{name}/text") for name in ("anna", "bert")]
    one, other = (hold_out(store, 0.2, 10**9)[1].first.tolist() for store in stores)
    assert one == other
    changed = text_store(tmp_path / "changed", [*text, "One more document. It is here."])
    assert hold_out(changed, 0.2, 10**9)[1].first.tolist() != one
