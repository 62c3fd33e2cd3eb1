"""Masking, packing and pairing: what a step of pretraining sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.store import Store
from bertsmith.model.config import ModelConfig
from bertsmith.model.packing import Batch
from bertsmith.tasks.masking import Masking
from bertsmith.tasks.preparation import is_store, make_vocabulary, prepare
from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
from bertsmith.tasks.windows import Pairs
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.train import VocabConfig
from bertsmith.train.feed import PretrainingFeed, evaluation_batches, progress


@pytest.fixture(scope="module")
def prepared(small_text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Store]:
    tokenizer = make_vocabulary([str(small_text)], VocabConfig(size=200), lambda text: None)
    store = prepare([str(small_text)], tokenizer, tmp_path_factory.mktemp("p") / "store", lambda text: None)
    return tokenizer, store


@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize(("masking", "pairs"), [("subword", "nsp"), ("whole-word", "sop"), ("span", "nsp")])
def test_what_is_masked_does_not_depend_on_accumulation(
    prepared: tuple[Tokenizer, Store], masking: Masking, pairs: Pairs, parts: int
) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32, masking=masking, pairs=pairs))
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


@pytest.mark.parametrize("pairs", ["nsp", "sop"])
def test_a_batch_reads_as_two_texts_between_separators(prepared: tuple[Tokenizer, Store], pairs: Pairs) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32, pairs=pairs))
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


def whole(batch: Batch) -> torch.Tensor:
    ids = batch.input_ids.clone()
    ids[batch.targets["mlm_positions"]] = batch.targets["mlm_labels"]
    return ids


def test_sentences_out_of_order_are_swapped(prepared: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32, pairs="sop"))
    windows = task.plan(store, task.rows(store)[0], 0)
    windows = windows.take(np.flatnonzero(windows.length_b))
    (batch,) = task.encode(store, windows, 0)
    assert 0.3 < batch.targets["nsp_labels"].float().mean() < 0.7
    sequences = zip(whole(batch).split(batch.lengths), batch.segment_ids.split(batch.lengths), strict=True)
    for number, (ids, segments) in enumerate(sequences):
        parts = [ids[segments == segment] for segment in (0, 1)]
        first, second = (part[~torch.isin(part, torch.tensor([tokenizer.cls_id, tokenizer.sep_id]))] for part in parts)
        if batch.targets["nsp_labels"][number]:
            first, second = second, first
        start = int(min(windows.start[number], windows.other[number]))
        assert torch.cat([first, second]).tolist() == store.read(start, start + len(first) + len(second)).tolist()


@pytest.mark.parametrize("masking", ["whole-word", "span"])
def test_words_of_a_store_are_hidden_whole(
    small_text: Path, tmp_path: Path, toy_tokenizer: Tokenizer, masking: Masking
) -> None:
    tokenizer = toy_tokenizer
    store = prepare([str(small_text)], tokenizer, tmp_path / "store", lambda text: None)
    task = Pretraining(tokenizer, PretrainingConfig(max_length=64, masking=masking))
    feed = PretrainingFeed(task, store, task.rows(store)[0], seed=0, batch_tokens=2048)
    continues = torch.tensor([token.startswith("##") for token in tokenizer.tokens])
    split = 0
    for step in range(5):
        (batch,) = feed(step)
        hidden = torch.zeros(batch.num_tokens, dtype=torch.bool)
        hidden[batch.targets["mlm_positions"]] = True
        inside = continues[whole(batch)]
        split += int(inside.sum())
        special = torch.isin(whole(batch), torch.tensor([tokenizer.cls_id, tokenizer.sep_id]))
        assert 0.1 < len(batch.targets["mlm_labels"]) / int((~special).sum()) < 0.2
        joined = inside[1:] & ~special[:-1]  # a sequence may begin inside a word
        assert (hidden[1:] == hidden[:-1])[joined].all()
    assert split > 100


def test_the_mask_rate_moves_evenly_over_the_run(prepared: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32, mask_rate=0.3, mask_rate_end=0.15))
    learn, _ = task.rows(store)
    feed = PretrainingFeed(task, store, learn, seed=0, batch_tokens=512, total=101)
    rates = [task.config.rate(progress(step, 101)) for step in (0, 50, 100, 200)]
    assert rates == pytest.approx([0.3, 0.225, 0.15, 0.15])
    shares = [len(feed(step)[0].targets["mlm_labels"]) / feed(step)[0].num_tokens for step in (0, 100)]
    assert 1.6 < shares[0] / shares[1] < 2.2
    assert task.config.rate(progress(0, 1)) == 0.3
    assert task.config.rate(progress(9, None)) == pytest.approx(0.225)
    assert {PretrainingConfig().rate(progress(step, 9)) for step in range(9)} == {0.15}


@pytest.mark.parametrize("key", ["mask_rate", "mask_rate_end"])
@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, "nan"])
def test_nothing_or_everything_cannot_be_hidden(key: str, rate: object) -> None:
    with pytest.raises(ConfigError, match=rf"setting '{key}': give more than 0.*less than 1"):
        load(PretrainingConfig, sets=[f"{key}={rate}"])


def test_an_epoch_reads_all_of_the_text(prepared: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = prepared
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32, pairs="none"))
    learn, _ = task.rows(store)
    feed = PretrainingFeed(task, store, learn, seed=0, batch_tokens=512)
    batches = [feed(step)[0] for step in range(feed.steps_per_epoch)]
    text = sum(batch.num_tokens - 2 * batch.num_sequences for batch in batches)
    assert text == int((store.sentence_offsets[learn.stop] - store.sentence_offsets[learn.first]).sum())
    assert feed.tokens_per_step == pytest.approx(sum(batch.num_tokens for batch in batches) / len(batches))


def test_held_out_text_and_its_masks_do_not_depend_on_seed_rate_or_masking(prepared: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = prepared
    configs = ({}, {"mask_rate": 0.4}, {"mask_rate": 0.4, "mask_rate_end": 0.1, "masking": "span"})
    tasks = [Pretraining(tokenizer, PretrainingConfig(max_length=32, **changes)) for changes in configs]
    found = [evaluation_batches(task, store, task.rows(store)[1], 512) for task in tasks]
    for one, *others in zip(*found, strict=True):
        for other in others:
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
