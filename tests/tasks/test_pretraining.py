"""Masking, packing and pairing: what a step of pretraining sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.store import Store
from bertsmith.model.config import ModelConfig
from bertsmith.tasks.preparation import is_store, make_vocabulary, prepare
from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.train import VocabConfig
from bertsmith.train.feed import PretrainingFeed, evaluation_batches


@pytest.fixture(scope="module")
def prepared(small_text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Store]:
    tokenizer = make_vocabulary([str(small_text)], VocabConfig(size=200), lambda text: None)
    store = prepare([str(small_text)], tokenizer, tmp_path_factory.mktemp("p") / "store", lambda text: None)
    return tokenizer, store


@given(
    lengths=st.lists(st.integers(3, 80), min_size=1, max_size=20),
    rate=st.floats(0.01, 0.6),
    key=st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)),
)
@settings(max_examples=60, deadline=None)
def test_each_sequence_gives_its_exact_share(
    toy_tokenizer: Tokenizer, lengths: list[int], rate: float, key: tuple[int, int]
) -> None:
    tokenizer = toy_tokenizer
    task = Pretraining(tokenizer)
    sequences = [
        np.array([tokenizer.cls_id, *(7 + np.arange(length - 2) % 40), tokenizer.sep_id], np.int64)
        for length in lengths
    ]
    ids, sizes = np.concatenate(sequences), np.array(lengths)
    corrupted, positions, labels = task.mask(ids, sizes, rate, *key)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    expected = np.maximum(1, np.rint((sizes - 2) * rate))
    assert np.bincount(owner[positions], minlength=len(sizes)).tolist() == expected.tolist()
    assert (labels == ids[positions]).all()
    assert not np.isin(labels, [tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id]).any()
    assert (np.diff(positions) > 0).all()
    untouched = np.setdiff1d(np.arange(len(ids)), positions)
    assert (corrupted[untouched] == ids[untouched]).all()
    again = task.mask(ids, sizes, rate, *key)
    assert all((a == b).all() for a, b in zip((corrupted, positions, labels), again, strict=True))


def test_eighty_ten_ten(toy_tokenizer: Tokenizer) -> None:
    tokenizer = toy_tokenizer
    task = Pretraining(tokenizer)
    label = tokenizer.tokens.index("london")
    ids = np.full(200_000, label, np.int64)
    corrupted, positions, labels = task.mask(ids, np.full(2000, 100), 0.15, 3, 4)
    count = len(positions)
    assert count == 30_000
    found = corrupted[positions]
    pieces = tokenizer.vocab_size - 5
    for share, seen in (
        (0.8, (found == tokenizer.mask_id).mean()),
        (0.1 + 0.1 / pieces, (found == labels).mean()),
        (0.1 - 0.1 / pieces, ((found != labels) & (found != tokenizer.mask_id)).mean()),
    ):
        assert abs(seen - share) < 4.5 * np.sqrt(share * (1 - share) / count)
    drawn = np.unique(found[found != tokenizer.mask_id])
    special = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id]
    assert not np.isin(drawn, special).any()
    assert len(drawn) == pieces, "every real piece is drawn sooner or later"


def test_every_position_is_chosen_equally_often(toy_tokenizer: Tokenizer) -> None:
    ids = np.full(20 * 5000, 30, np.int64)
    positions = Pretraining(toy_tokenizer).mask(ids, np.full(5000, 20), 0.15, 0)[1]
    times = np.bincount(positions % 20, minlength=20)
    assert np.abs(times - times.mean()).max() < 5 * np.sqrt(times.mean())


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_what_is_masked_does_not_depend_on_accumulation(prepared: tuple[Tokenizer, Store], parts: int) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32))
    learn, _ = task.rows(store)
    whole = PretrainingFeed(task, store, learn, seed=0, batch_tokens=512)(5)
    cut = PretrainingFeed(task, store, learn, seed=0, batch_tokens=512, parts=parts)(5)
    assert len(whole) == 1
    assert len(cut) == parts
    assert torch.equal(whole[0].input_ids, torch.cat([batch.input_ids for batch in cut]))
    for name in ("mlm_labels", "nsp_labels"):
        assert torch.equal(whole[0].targets[name], torch.cat([batch.targets[name] for batch in cut]))
    assert all(batch.targets["nsp_weight"] == whole[0].targets["nsp_weight"] for batch in cut)
    for batch in cut:
        corrupted = batch.input_ids[batch.targets["mlm_positions"]]
        assert (corrupted == tokenizer.mask_id).float().mean() > 0.3


def test_a_batch_reads_as_two_texts_between_separators(prepared: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32))
    learn, _ = task.rows(store)
    batch = PretrainingFeed(task, store, learn, seed=0, batch_tokens=512)(0)[0]
    for number, (ids, segments) in enumerate(
        zip(batch.input_ids.split(batch.lengths), batch.segment_ids.split(batch.lengths), strict=True)
    ):
        separators = (ids == tokenizer.sep_id).nonzero()[:, 0].tolist()
        paired = int(batch.targets["nsp_labels"][number]) >= 0
        assert int(ids[0]) == tokenizer.cls_id
        assert len(separators) == 1 + paired
        assert separators[-1] == len(ids) - 1
        expected = [int(position > separators[0]) for position in range(len(ids))]
        assert segments.tolist() == expected
    assert batch.num_tokens <= 512


def test_steps_are_pure_functions_of_seed_and_step(prepared: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32))
    learn, _ = task.rows(store)

    def ids(seed: int, *steps: int) -> list[list[int]]:
        feed = PretrainingFeed(task, store, learn, seed=seed, batch_tokens=512)
        return [feed(step)[0].input_ids.tolist() for step in steps]

    long_after = 5 * 20
    assert ids(0, 0, 1, long_after) == ids(0, long_after, 0, 1)[1:] + ids(0, long_after)
    assert ids(0, 3) != ids(1, 3)


def test_an_epoch_reads_all_of_the_text(prepared: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32, pairs="none"))
    learn, _ = task.rows(store)
    feed = PretrainingFeed(task, store, learn, seed=0, batch_tokens=512)
    batches = [feed(step)[0] for step in range(feed.steps_per_epoch)]
    text = sum(batch.num_tokens - 2 * batch.num_sequences for batch in batches)
    assert text == int((store.sentence_offsets[learn.stop] - store.sentence_offsets[learn.first]).sum())
    assert feed.tokens_per_step == pytest.approx(sum(batch.num_tokens for batch in batches) / len(batches))


def test_held_out_text_and_its_masks_do_not_depend_on_seed_or_rate(prepared: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = prepared
    tasks = [Pretraining(tokenizer, PretrainingConfig(max_length=32, mask_rate=rate)) for rate in (0.15, 0.4)]
    found = [evaluation_batches(task, store, task.rows(store)[1], 512) for task in tasks]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.targets["mlm_positions"], other.targets["mlm_positions"])


def test_a_store_of_another_vocabulary_is_refused(prepared: tuple[Tokenizer, Store], toy_tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="made with another vocabulary"):
        Pretraining(toy_tokenizer).rows(prepared[1])


def test_text_without_pairs_says_how_to_train_without_them(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"The film number {n} is not good." for n in range(40)))
    store = prepare([str(tmp_path / "a.txt")], toy_tokenizer, tmp_path / "store", lambda text: None)
    task = Pretraining(toy_tokenizer, PretrainingConfig(max_length=32))
    with pytest.raises(DataError, match=r"no pair to learn NSP from.*--set task\.pairs=none"):
        PretrainingFeed(task, store, task.rows(store)[0], seed=0, batch_tokens=256)
    alone = Pretraining(toy_tokenizer, PretrainingConfig(max_length=32, pairs="none"))
    assert PretrainingFeed(alone, store, alone.rows(store)[0], seed=0, batch_tokens=256)(0)[0].num_tokens > 0


def test_a_score_to_which_nothing_counts_is_absent(toy_tokenizer: Tokenizer) -> None:
    task = Pretraining(toy_tokenizer)
    answers = [{"mlm_loss": (6.0, 2), "nsp_loss": (0.0, 0)}, {"mlm_loss": (3.0, 1), "nsp_loss": (0.0, 0)}]
    assert task.score(answers) == {"mlm_loss": 3.0}


def test_a_model_without_enough_positions_is_refused(toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> None:
    with pytest.raises(ConfigError, match="max_length is 128.*64 positions"):
        Pretraining(toy_tokenizer).head(toy_shape)


def test_preparing_says_what_it_found(small_text: Path, tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    said: list[str] = []
    (tmp_path / "broken.txt").write_bytes(b"A good film. \xff\xfe is here.\n")
    inputs = [str(small_text), str(tmp_path / "broken.txt")]
    store = prepare(inputs, toy_tokenizer, tmp_path / "store", said.append)
    assert is_store(tmp_path / "store")
    assert not is_store(small_text)
    documents: list[Document] = list(read(inputs, Tally()))
    assert f"{len(documents)} documents" in said[0]
    assert any("invalid_utf8" in line and "broken.txt:1" in line for line in said)
    assert store.num_documents == len(documents)
