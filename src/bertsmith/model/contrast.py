"""What a loss that compares vectors of a step with each other is made of."""

from __future__ import annotations

import torch
from torch import Tensor


def cosent(cosines: Tensor, gold: Tensor) -> Tensor:
    """How far cosines are out of order: log(1 + Σ exp(c_i - c_j)) over all pairs of which j should be the higher one.

    Args:
        cosines: divided by the temperature, `[n]`.
        gold: how similar each pair of texts is, `[n]`; only the order counts.

    Source: Su 2022 (kexue.fm/archives/8847).
    """
    differences = (cosines[:, None] - cosines[None, :])[gold[:, None] < gold[None, :]]
    return torch.logsumexp(torch.cat([cosines.new_zeros(1), differences]), dim=0)


def also_right(queries: Tensor, own: Tensor, candidates: Tensor) -> Tensor:
    """Which candidates must not count as wrong: the query itself, a copy of its partner, a partner of an equal query.

    Args:
        queries: ids of texts, `[n]`.
        own: of their partners, `[n]`.
        candidates: of these partners and then of further texts, `[m]`.

    Returns:
        `[n, m]` bool, false at each query's own place.
    """
    same = (candidates[None, :] == own[:, None]) | (candidates[None, :] == queries[:, None])
    right_for_equal = (queries[:, None] == queries[None, :]).float() @ (own[:, None] == candidates[None, :]).float()
    known = same | (right_for_equal > 0)
    at = torch.arange(len(queries), device=queries.device)
    known[at, at] = False
    return known
