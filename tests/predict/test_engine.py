"""Batches by number of tokens, each sequence once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding
from bertsmith.predict import engine
from bertsmith.predict.engine import token_batches
from bertsmith.tasks.base import Example
from bertsmith.tasks.matching import Matching, MatchingConfig
from bertsmith.tokenizer.load import Tokenizer


@given(st.lists(st.integers(2, 50), max_size=60), st.integers(1, 120))
def test_batches_hold_everything_once_and_respect_the_budget(lengths: list[int], budget: int) -> None:
    batches = token_batches(lengths, budget)
    indices = [int(index) for batch in batches for index in batch]
    assert sorted(indices) == list(range(len(lengths)))
    assert [lengths[i] for i in indices] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[i] for i in batch) <= budget


def test_a_text_that_several_examples_share_is_computed_once(
    toy_tokenizer: Tokenizer, toy_shape: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Matching(toy_tokenizer, MatchingConfig(mode="bi"))
    model = Model(toy_shape, Heads(embed="mean"))
    seen: list[int] = []
    real = engine.forward

    def counted(model: Model, encodings: Sequence[Encoding], **how: Any) -> Any:
        seen.append(len(encodings))
        return real(model, encodings, **how)

    monkeypatch.setattr(engine, "forward", counted)
    examples = [Example({"text": f"{word} film", "pair": "the film"}) for word in ("good", "bad", "good")]
    answers = engine.answer(task, model, examples)
    assert seen == [3]
    alone = [engine.answer(task, model, [example])[0] for example in examples]
    assert [one["similarity"] for one in answers] == pytest.approx([one["similarity"] for one in alone], abs=1e-6)
