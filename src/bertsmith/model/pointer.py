"""Scores of all stretches of a text at once, nested ones too: the efficient GlobalPointer."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.model.attention import rotary_table

WIDTH = 64
THETA = 10_000.0
NEVER = -1e9
"""The score of what is left out of a sum; finite, so that gradients stay so."""


class Ends(NamedTuple):
    """What a stretch's score is made of, for `n` places it may begin or end at and `C` types.

    Attributes:
        query: of the first place, turned by its position, `[…, n, D]`.
        key: of the last place, likewise.
        first: how well a stretch of each type begins here, `[…, n, C]`.
        last: how well it ends here.
    """

    query: Tensor
    key: Tensor
    first: Tensor
    last: Tensor

    @classmethod
    def of(cls, packed: Tensor) -> Ends:
        """Cut what `Pointer` gives, `[…, n, 2 D + 2 C]`."""
        types = (packed.shape[-1] - 2 * WIDTH) // 2
        return cls(*packed.split([WIDTH, WIDTH, types, types], dim=-1))

    def scores(self) -> Tensor:
        """Of each type, from each place to each: `[…, C, n, n]`; above 0 means that such a stretch is there."""
        extraction = self.query @ self.key.transpose(-1, -2)
        ends = self.first.transpose(-1, -2)[..., :, None] + self.last.transpose(-1, -2)[..., None, :]
        return extraction[..., None, :, :] + ends


class Pointer(nn.Module):
    """What a stretch's score is made of, a vector a token, so that only the places asked about are ever paired.

    Source: Su et al. 2022, sections 2.2 to 2.4 (arXiv:2208.03054): one query and key for all types, with rotary
    positions, find stretches; biases of both ends, read from query and key, tell their types.
    """

    def __init__(self, width: int, types: int) -> None:
        """Encoder `width` H, C `types`."""
        super().__init__()
        self.ends = nn.Linear(width, 2 * WIDTH)
        self.types = nn.Linear(2 * WIDTH, 2 * types)

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """`[T, H]` and positions `[T]` to `[T, 2 D + 2 C]`, as `Ends.of` cuts it."""
        ends = self.ends(x).float()
        turned = _turned(ends.view(-1, 2, WIDTH), rotary_table(position_ids, WIDTH, THETA)) * WIDTH**-0.25
        return torch.cat([turned.flatten(1), self.types(ends.to(x.dtype)).float() / 2], dim=-1)


def _turned(x: Tensor, table: Tensor) -> Tensor:
    """`[T, 2, D]` turned by its positions."""
    first, second = x.chunk(2, dim=-1)
    return x * table[0] + torch.cat([-second, first], dim=-1) * table[1]


def pointer_loss(scores: Tensor, gold: Tensor, allowed: Tensor) -> Tensor:
    """Every right stretch above 0 and every other one below: the multi-label form of cross-entropy.

    Args:
        scores: `[S, C, n, n]`.
        gold: which stretches are there, the same shape, bool.
        allowed: which could be there, `[S, 1, n, n]` bool; the rest counts for nothing.

    Returns:
        `[S, C]`: log(1 + sum of e^s over the wrong) + log(1 + sum of e^-s over the right). Source: equation 5 there.
    """
    wrong = scores.masked_fill(gold | ~allowed, NEVER).flatten(2).logsumexp(-1)
    right = (-scores).masked_fill(~gold, NEVER).flatten(2).logsumexp(-1)
    return F.softplus(wrong) + F.softplus(right)
