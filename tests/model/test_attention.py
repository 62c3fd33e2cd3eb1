"""What each token may see: its own sequence, a window of it, what stands before it; whatever way that is computed."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch import Tensor

from bertsmith.model.attention import MATMUL_UP_TO, attend, rotary_table, rotate, rounded_layout

LENGTHS = (5, 5, 9, 1)
MANY = (1, 2, 3, 9, 15, 16, 17, 18, 20, 32, 33, 34)


def packed(lengths: tuple[int, ...], *, learns: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(sum(lengths), 3, 2, 4, generator=generator).requires_grad_(learns)


def by_hand(
    qkv: Tensor, lengths: tuple[int, ...], window: int | None, causal: bool, prefix: Tensor | None = None
) -> Tensor:
    """Softmax over the sums of products, one token and one head at a time."""
    rows = []
    for start, length in zip(accumulate(lengths[:-1], initial=0), lengths, strict=True):
        q, k, v = qkv[start : start + length].unbind(1)
        for i in range(length):
            seen = [j for j in range(length) if (window is None or abs(i - j) <= window) and (j <= i or not causal)]
            keys, values = k[seen], v[seen]
            if prefix is not None:
                keys, values = torch.cat([prefix[:, 0], keys]), torch.cat([prefix[:, 1], values])
            scores = torch.einsum("ad,jad->aj", q[i], keys) / 2
            rows.append(torch.einsum("aj,jad->ad", scores.softmax(-1), values))
    return torch.stack(rows)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 2, 20])
@pytest.mark.parametrize("learns", [False, True], ids=["fused", "matmul"])
def test_each_token_sees_what_it_may(window: int | None, causal: bool, learns: bool) -> None:
    qkv = packed(LENGTHS, learns=learns)
    assert max(LENGTHS) <= MATMUL_UP_TO
    cu_seqlens = torch.tensor([0, *accumulate(LENGTHS)], dtype=torch.int32)
    out = attend(qkv, cu_seqlens, max(LENGTHS), LENGTHS, window=window, causal=causal)
    torch.testing.assert_close(out, by_hand(qkv, LENGTHS, window, causal), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 2, 17])
@pytest.mark.parametrize("prefixed", [False, True])
def test_lengths_that_are_rounded_up_change_nothing(window: int | None, causal: bool, prefixed: bool) -> None:
    qkv = packed(MANY, learns=True)
    prefix = torch.randn(3, 2, 2, 4, generator=torch.Generator().manual_seed(1)) if prefixed else None
    weight = torch.randn(sum(MANY), 2, 4, generator=torch.Generator().manual_seed(2))
    layout = rounded_layout(MANY)
    assert layout is not None
    assert layout.runs == [(16, 6), (32, 4), (48, 2)], "nearly equal lengths are computed together"
    cu_seqlens = torch.tensor([0, *accumulate(MANY)], dtype=torch.int32)
    out = attend(qkv, cu_seqlens, max(MANY), MANY, window=window, causal=causal, prefix=prefix)
    expected = by_hand(qkv, MANY, window, causal, prefix)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    ours, theirs = (torch.autograd.grad((x * weight).sum(), qkv)[0] for x in (out, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_equal_lengths_stay_as_they_are() -> None:
    assert rounded_layout((20, 20, 20)) is None
    assert rounded_layout((20, 20, 40)) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rotation_turns_each_pair_of_numbers_by_its_angle_forwards_and_backwards(dtype: torch.dtype) -> None:
    table = rotary_table(torch.tensor([0, 1, 7]), 4, theta=100.0)
    qkv = torch.randn(3, 3, 2, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    weight = torch.randn(3, 3, 2, 4, generator=torch.Generator().manual_seed(1)).to(dtype)

    cos, sin = table[:, :, None]
    x = qkv[:, :2].float()
    plain = x * cos + torch.cat([-x[..., 2:], x[..., :2]], -1) * sin
    expected = torch.cat([plain.to(dtype), qkv[:, 2:]], 1)
    (gradient,) = torch.autograd.grad((expected * weight).sum(), qkv)

    turned = rotate(qkv, table)
    (found,) = torch.autograd.grad((turned * weight).sum(), qkv)
    assert torch.equal(turned, expected)
    torch.testing.assert_close(found, gradient, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)
    assert torch.equal(turned[0], qkv[0]), "position 0 is not turned"


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("learns", [False, True], ids=["fused", "matmul"])
def test_each_token_sees_the_prefix_whatever_its_window(window: int | None, causal: bool, learns: bool) -> None:
    qkv = packed(LENGTHS, learns=False)
    prefix = torch.randn(3, 2, 2, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(learns)
    cu_seqlens = torch.tensor([0, *accumulate(LENGTHS)], dtype=torch.int32)
    out = attend(qkv, cu_seqlens, max(LENGTHS), LENGTHS, window=window, causal=causal, prefix=prefix)
    torch.testing.assert_close(out, by_hand(qkv, LENGTHS, window, causal, prefix), atol=1e-6, rtol=1e-5)
    if learns:
        out.sum().backward()
        assert prefix.grad is not None
        assert prefix.grad[:, 1].abs().min() > 0
