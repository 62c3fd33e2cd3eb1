"""What is dropped, how much, and from which chance."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from bertsmith.model.dropout import dropout


def dropped(p: float, seed: int = 0, dtype: torch.dtype = torch.float32, size: int = 200_000) -> torch.Tensor:
    torch.manual_seed(seed)
    return dropout(torch.ones(size, dtype=dtype), p)


@pytest.mark.parametrize("p", [0.0001, 0.1, 0.3, 0.5, 0.9])
def test_the_share_that_is_dropped_and_the_scale_of_the_rest(p: float) -> None:
    x = dropped(p)
    share = float((x == 0).float().mean())
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / len(x)) + 1 / (1 << 16)
    kept = x[x != 0]
    assert torch.all(kept == kept[0])
    assert float(kept[0]) == pytest.approx(1 / (1 - p), abs=1e-4 / (1 - p) ** 2)


def test_neighbours_are_dropped_independently() -> None:
    zero = dropped(0.5) == 0
    for lag in (1, 2, 3, 4, 8, 64):
        both = float((zero[:-lag] & zero[lag:]).float().mean())
        assert abs(both - 0.25) < 5 * math.sqrt(0.25 * 0.75 / len(zero))


def test_chance_is_that_of_the_seed() -> None:
    first, again, other = dropped(0.1, seed=3), dropped(0.1, seed=3), dropped(0.1, seed=4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(3)
    x = torch.ones(200_000)
    one, two = dropout(x, 0.1), dropout(x, 0.1)
    assert torch.equal(one, first)
    assert not torch.equal(one, two), "each call draws anew"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradient_goes_where_the_value_went(dtype: torch.dtype) -> None:
    x = torch.randn(130, 200, dtype=dtype).requires_grad_()
    torch.manual_seed(0)
    out = dropout(x, 0.25)
    assert out.dtype == dtype
    (gradient,) = torch.autograd.grad(out.sum(), x)
    scale = torch.tensor(4 / 3, dtype=dtype)
    assert set(gradient.unique().tolist()) == {0.0, float(scale)}
    assert torch.equal(out, x.detach() * gradient)


def test_nothing_is_dropped_where_nothing_should_be() -> None:
    x = torch.randn(5)
    assert dropout(x, 0.0) is x
    assert dropout(x, 0.5, training=False) is x
    assert dropout(torch.ones(0, 4), 0.5).shape == (0, 4)
    assert dropout(torch.ones(20_000), 1 - 1e-9).isfinite().all()


def test_it_stands_in_a_compiled_graph() -> None:
    torch.manual_seed(0)
    out = torch.compile(lambda x: dropout(x, 0.5) + 1, backend="eager", fullgraph=True)(torch.ones(1000))
    torch.manual_seed(0)
    assert torch.equal(out, F.dropout(torch.ones(1000), 0.5) + 1)
