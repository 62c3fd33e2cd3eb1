"""Profiles of texts, and drift."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from bertsmith.tasks.base import Example
from bertsmith.tasks.seen import inputs_seen
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.profile import LENGTHS, Profile, divergence, stability


def texts(count: int, words: list[str], longest: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(1, longest))) for _ in range(count)]


def profile(tokenizer: Tokenizer, given: list[str]) -> Profile:
    return Profile.empty(tokenizer.vocab_size, tokenizer.unk_id).add([ids for ids, _ in tokenizer.encode_ids(given)])


def test_lengths_fall_into_powers_of_two(toy_tokenizer: Tokenizer) -> None:
    sizes = [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 100_000]
    found = Profile.empty(9, 1).add([np.zeros(size, np.int32) for size in sizes])
    assert found.lengths.tolist() == [1, 1, 1, 2, 2, 2, 1] + [0] * (LENGTHS - 8) + [1]
    assert found.texts == len(sizes)
    assert (found + found).lengths.sum() == 2 * len(sizes)


def test_the_same_kind_of_text_does_not_drift_and_another_does(toy_tokenizer: Tokenizer) -> None:
    english = ["the", "film", "was", "good", "bad", "not", "boring"]
    rows = [Example({"text": text, "id": "7"}, "x") for text in texts(2000, english, 12, 0)]
    trained = json.loads(json.dumps(inputs_seen(rows, toy_tokenizer)))
    assert trained["texts"] == 2000
    same = profile(toy_tokenizer, texts(1000, english, 12, 1)).drift(trained)
    other = profile(toy_tokenizer, texts(1000, ["北京", "上海", "很好", "的"], 60, 1)).drift(trained)
    print(same, other)
    assert max(same["length"], same["pieces"], abs(same["unknown"])) < 0.02
    assert other["length"] > 0.25
    assert other["pieces"] > 0.9
    assert other["unknown"] > 0.05


def test_equal_distributions_are_at_zero_and_foreign_ones_at_one() -> None:
    assert stability([0.2, 0.8], [0.2, 0.8]) == divergence([0.2, 0.8], [0.2, 0.8]) == 0
    assert divergence([1.0, 0.0], [0.0, 1.0]) == pytest.approx(1)
    assert stability([0.5, 0.5], [0.1, 0.9]) == pytest.approx(0.4 * np.log(5) + 0.4 * np.log(1.8))


def test_nothing_is_counted_as_nothing(toy_tokenizer: Tokenizer) -> None:
    nothing = Profile.empty(toy_tokenizer.vocab_size, toy_tokenizer.unk_id)
    assert nothing.add([]).as_dict() == {"texts": 0, "lengths": [0.0] * LENGTHS, "unknown": 0.0, "pieces": {}}
