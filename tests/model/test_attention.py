"""What each token may see: its own sequence, a window of it, what stands before it; whatever way that is computed."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch import Tensor

from bertsmith.model.attention import MATMUL_UP_TO, attend

LENGTHS = (5, 5, 9, 1)


def packed(lengths: tuple[int, ...], *, learns: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(sum(lengths), 3, 2, 4, generator=generator).requires_grad_(learns)


def by_hand(qkv: Tensor, lengths: tuple[int, ...], window: int | None, causal: bool) -> Tensor:
    """Softmax over the sums of products, one token and one head at a time."""
    rows = []
    for start, length in zip(accumulate(lengths[:-1], initial=0), lengths, strict=True):
        q, k, v = qkv[start : start + length].unbind(1)
        for i in range(length):
            seen = [j for j in range(length) if (window is None or abs(i - j) <= window) and (j <= i or not causal)]
            scores = torch.einsum("ad,jad->aj", q[i], k[seen]) / 2
            rows.append(torch.einsum("aj,jad->ad", scores.softmax(-1), v[seen]))
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
