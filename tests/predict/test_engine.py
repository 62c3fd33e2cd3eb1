"""Batches by number of tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bertsmith.predict.engine import token_batches


@given(st.lists(st.integers(2, 50), max_size=60), st.integers(1, 120))
def test_batches_hold_everything_once_and_respect_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_batches(lengths, budget)
    indices = [int(index) for batch in batches for index in batch]
    assert sorted(indices) == list(range(len(lengths)))
    assert [lengths[i] for i in indices] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= budget
