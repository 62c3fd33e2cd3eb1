"""Losses that compare vectors: what they leave alone."""

from __future__ import annotations

import pytest
import torch

from bertsmith.model.contrast import also_right, cosent


def test_cosent_is_nothing_where_cosines_are_in_order_or_gold_is_the_same() -> None:
    cosines = torch.tensor([-20.0, 0.0, 20.0], requires_grad=True)
    assert float(cosent(cosines.detach(), torch.tensor([1.0, 2.0, 3.0]))) == pytest.approx(0, abs=1e-6)
    same = cosent(cosines, torch.ones(3))
    same.backward()  # type: ignore[no-untyped-call]
    assert (float(same.detach()), float(cosines.grad.abs().sum())) == (0, 0)  # type: ignore[union-attr]


def test_no_query_loses_its_own_partner() -> None:
    texts = torch.zeros(4, dtype=torch.long)  # all rows identical
    known = also_right(texts, texts, torch.zeros(6, dtype=torch.long))
    assert known.diagonal().sum() == 0
    assert known.sum() == 4 * 6 - 4
