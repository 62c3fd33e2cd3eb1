"""Several corpora in one run: whose turn it is, and that a step's content depends on its number alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertsmith.model.packing import Encoding
from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.distributed import Ranks
from bertsmith.train.feed import ExampleFeed, MixedFeed, PretrainingFeed

TEXTS = {
    "film": "The film was good {n}. Anna lives in Paris. It is not bad.",
    "work": "Bert works for acme {n}. He is in London. She was great, the film boring.",
    "rest": "A great {n}. Is it bad? Anna works.",
}


@pytest.fixture
def feeds(tmp_path: Path, toy_tokenizer: Tokenizer) -> list[PretrainingFeed]:
    task = Pretraining(toy_tokenizer, PretrainingConfig(max_length=32))
    made = []
    for seed, (name, text) in enumerate(TEXTS.items()):
        file = tmp_path / f"{name}.txt"
        file.write_text("\n\n".join(text.format(n=n) for n in range(30 + 20 * seed)))
        store = prepare([str(file)], toy_tokenizer, tmp_path / name, lambda line: None)
        learn = task.rows(store)[0]
        made.append(PretrainingFeed(task, store, learn, seed=seed, batch_tokens=128 + 32 * seed))
    return made


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.5, 0.3, 0.2), (0.97, 0.02, 0.01), (1.0,)])
def test_each_feed_gives_its_share_of_the_tokens(feeds: list[PretrainingFeed], shares: tuple[float, ...]) -> None:
    mixed = MixedFeed(feeds[: len(shares)], shares)
    turns = [mixed.turn(step) for step in range(3000)]
    for stretch in (turns, turns[1000:2000], turns[777:1777]):
        tokens = [
            sum(number == feed for number, _ in stretch) * feeds[feed].tokens_per_step for feed in range(len(shares))
        ]
        for given, share, feed in zip(tokens, shares, feeds, strict=False):
            assert abs(given - share * sum(tokens)) <= 3 * feed.tokens_per_step
    for feed in range(len(shares)):
        own = [index for number, index in turns if number == feed]
        assert own == list(range(len(own))), "no batch of a feed is left out or comes twice"
    expected = sum(feeds[number].tokens_per_step for number, _ in turns) / len(turns)
    assert mixed.tokens_per_step == pytest.approx(expected, rel=1e-2)
    once = sum(number == 0 for number, _ in turns[: mixed.steps_per_epoch])
    assert abs(once - feeds[0].steps_per_epoch) <= 1


def test_a_step_is_a_whole_batch_of_one_feed_in_any_order(feeds: list[PretrainingFeed]) -> None:
    mixed = MixedFeed(feeds[:2], [3.0, 1.0])
    forward = [mixed(step) for step in range(12)]
    again = MixedFeed(feeds[:2], [0.75, 0.25])
    for step in reversed(range(12)):
        number, own = again.turn(step)
        for batch, same, plain in zip(again(step), forward[step], feeds[number](own), strict=True):
            for other in (same, plain):
                assert torch.equal(batch.input_ids, other.input_ids)
                assert torch.equal(batch.targets["mlm_positions"], other.targets["mlm_positions"])


def test_the_mask_rate_follows_the_steps_of_the_run_whose_turn_it_may_be(feeds: list[PretrainingFeed]) -> None:
    for feed in feeds[:2]:
        feed.task.config = PretrainingConfig(max_length=32, mask_rate=0.5, mask_rate_end=0.1)
    mixed = MixedFeed(feeds[:2], [0.5, 0.5])
    mixed.total = 200

    def share(steps: range) -> float:
        batches = [batch for step in steps for batch in mixed(step)]
        masked = sum(len(batch.targets["mlm_positions"]) for batch in batches)
        return masked / sum(batch.num_tokens - 3 * batch.num_sequences for batch in batches)

    assert share(range(10)) == pytest.approx(0.5, abs=0.08)
    assert share(range(190, 200)) == pytest.approx(0.1, abs=0.05)


def test_all_ranks_have_as_many_batches_in_a_step_of_few_sequences(feeds: list[PretrainingFeed]) -> None:
    one = feeds[0]
    alone = PretrainingFeed(one.task, one.store, one.source, seed=0, batch_tokens=64)
    shared = [
        PretrainingFeed(
            one.task, one.store, one.source, seed=0, batch_tokens=64, parts=3, ranks=Ranks(rank=rank, size=2)
        )
        for rank in range(2)
    ]
    few = 0
    for step in range(20):
        whole = alone(step)[0]
        each = [feed(step) for feed in shared]
        assert len(each[0]) == len(each[1])
        few += whole.num_sequences < 6
        learned = [batch for batches in each for batch in batches if len(batch.targets["mlm_labels"])]
        assert torch.equal(torch.cat([batch.input_ids for batch in learned]), whole.input_ids)
    assert few


def test_a_step_is_not_cut_finer_than_its_sequences(feeds: list[PretrainingFeed]) -> None:
    one = feeds[0]
    finest = PretrainingFeed(one.task, one.store, one.source, seed=0, batch_tokens=64, parts=10**15)
    assert [batch.num_sequences for batch in finest(0)] == [1] * one.task.plan(one.store, one.source, 0, 0, 0).take(
        finest._epoch(0)[1][0]
    ).lengths.size
    ids = np.arange(4, dtype=np.int32)
    rows = [Encoding(ids, np.zeros(4, np.int32), {"label": 0}) for _ in range(5)]
    assert len(ExampleFeed(rows, seed=0, batch_size=3, parts=10**15)(0)) == 3
