"""A linear-chain conditional random field over packed chains: no padding, one step of all chains at a time.

Shape: `N` places of `S` chains laid end to end, each chain with one place or more; `C` labels. A table `[C + 2, C]`
holds the scores of transitions: row a, column b of b after a, then one row for the first label and one for the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

FORBIDDEN = -1e4
"""The score of what may not be; finite, so that gradients stay so."""


class Transitions(nn.Module):
    """The learned table, zero at first: then labels do not depend on each other.

    Source: Lafferty et al. 2001 (https://repository.upenn.edu/cis_papers/159); Lample et al. 2016 (arXiv:1603.01360).
    """

    def __init__(self, labels: int) -> None:
        """C is `labels`."""
        super().__init__()
        self.table = nn.Parameter(torch.zeros(labels + 2, labels))


def log_partition(emissions: Tensor, table: Tensor, lengths: Sequence[int]) -> Tensor:
    """Logarithm of the sum over all paths, by the forward algorithm in fp32.

    Args:
        emissions: `[N, C]`.
        table: `[C + 2, C]`.
        lengths: of the chains, summing to N.

    Returns:
        `[S]`.
    """
    order, places, sizes = _by_time(lengths)
    emissions, table = emissions.float(), table.float()
    steps = emissions[places.to(emissions.device)].split(sizes)
    best = table[-2] + steps[0]
    ended = []
    for step in steps[1:]:
        ended.append(best[len(step) :])
        best = torch.logsumexp(best[: len(step), :, None] + table[:-2], dim=1) + step
    last = torch.cat([best, *reversed(ended)])
    return torch.logsumexp(last + table[-1], dim=1)[order.argsort().to(emissions.device)]


def path_score(emissions: Tensor, table: Tensor, labels: Tensor, lengths: Sequence[int]) -> Tensor:
    """The score of one path through each chain.

    Args:
        emissions: `[N, C]`.
        table: `[C + 2, C]`.
        labels: the path, `[N]` int64.
        lengths: of the chains, summing to N.

    Returns:
        `[S]` in fp32.
    """
    table = table.float()
    sizes = torch.as_tensor(lengths, device=emissions.device)
    last = sizes.cumsum(0) - 1
    first = last - sizes + 1
    before = labels.roll(1)
    score = emissions.float().gather(1, labels[:, None])[:, 0]
    moved = table[before, labels].index_fill(0, first, 0.0)
    chain = torch.repeat_interleave(torch.arange(len(sizes), device=emissions.device), sizes)
    total = score.new_zeros(len(sizes)).index_add(0, chain, score + moved)
    return total + table[-2][labels[first]] + table[-1][labels[last]]


def marginals(emissions: Tensor, table: Tensor, lengths: Sequence[int]) -> Tensor:
    """The probability of each label at each place, over all paths.

    Args:
        emissions: `[N, C]`.
        table: `[C + 2, C]`.
        lengths: of the chains, summing to N.

    Returns:
        `[N, C]`, the gradient of `log_partition`.
    """
    with torch.enable_grad():
        emissions = emissions.detach().float().requires_grad_()
        total = log_partition(emissions, table.detach(), lengths).sum()
        return torch.autograd.grad(total, emissions)[0]


@torch.no_grad()
def best_path(emissions: Tensor, table: Tensor, lengths: Sequence[int]) -> Tensor:
    """The path of the largest score through each chain.

    Args:
        emissions: `[N, C]`.
        table: `[C + 2, C]`.
        lengths: of the chains, summing to N.

    Returns:
        Labels, `[N]` int64. Source: Viterbi 1967.
    """
    _, places, sizes = _by_time(lengths)
    emissions, table, places = emissions.float(), table.float(), places.to(emissions.device)
    steps = emissions[places].split(sizes)
    best = table[-2] + steps[0]
    ended, came_from = [], []
    for step in steps[1:]:
        ended.append(best[len(step) :])
        value, where = (best[: len(step), :, None] + table[:-2]).max(dim=1)
        came_from.append(where)
        best = value + step
    label = (torch.cat([best, *reversed(ended)]) + table[-1]).argmax(dim=1)
    found = [label]
    for size, where in zip(reversed(sizes), reversed([None, *came_from]), strict=True):
        found.append(label[:size].clone())
        if where is not None:
            label[:size] = where.gather(1, label[:size, None])[:, 0]
    result = torch.empty_like(places)
    result[places] = torch.cat(found[:0:-1])
    return result


def _by_time(lengths: Sequence[int]) -> tuple[Tensor, Tensor, list[int]]:
    """Chains from long to short `[S]`; places of all first steps, then all second steps, … `[N]`; how many of each."""
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    starts = (np.cumsum(sizes) - sizes)[order]
    # How many chains reach each step, known from the sorted lengths alone.
    counts = np.searchsorted(-sizes[order], -np.arange(sizes.max()), side="left")
    places = np.concatenate([starts[:count] + step for step, count in enumerate(counts)])
    return torch.from_numpy(order), torch.from_numpy(places), counts.tolist()
