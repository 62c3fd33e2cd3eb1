"""Attention's one seam: packed queries, keys and values in, packed contexts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.model.dropout import dropout as dropped

MATMUL_UP_TO = 512
"""Longest sequence for which training on a CPU multiplies matrices outright: measured, see docs/log.md."""
ROUNDED_TO = 16
"""Lengths that differ are rounded up to a multiple of so many tokens there, so that runs are few."""


def attend(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    lengths: tuple[int, ...],
    *,
    window: int | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    prefix: Tensor | None = None,
) -> Tensor:
    """Each token looks at the tokens of its own sequence: both ways, or back only.

    On CUDA in half precision: `varlen_attn` (FlashAttention over packed sequences). Elsewhere: SDPA over runs of
    neighbouring sequences of equal length, each run a dense `[n, A, L, D]` view of the packed tokens; where a CPU
    learns from many lengths, a run is of nearly equal ones, padded here alone. With a prefix it is SDPA on CUDA as
    well, since `varlen_attn` counts a window from the end of the keys.

    Shape: `T` packed tokens, `S` sequences, `A` heads, `D` head width, `P` places of a prefix.

    Args:
        qkv: queries, keys and values, `[T, 3, A, D]`.
        cu_seqlens: `[S + 1]` int32, where sequences start, and the end.
        max_seqlen: the longest sequence.
        lengths: the S lengths, on the host.
        window: tokens seen to each side; None sees all.
        causal: see nothing of what comes after.
        dropout: probability of dropping an attention weight, 0 outside training.
        prefix: keys and values before every sequence, `[P, 2, A, D]`, which each token sees whatever its window.

    Returns:
        Contexts `[T, A, D]`.

    Source: Vaswani et al. 2017 (arXiv:1706.03762); unpadding as in Zeng et al. 2022 (arXiv:2208.08124).
    """
    if qkv.is_cuda and qkv.dtype in (torch.bfloat16, torch.float16) and dropout == 0.0 and prefix is None:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = qkv.unbind(1)
        reach = -1 if window is None else window
        size = (reach, 0 if causal else reach)
        out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, window_size=size)
        assert isinstance(out, Tensor)
        return out

    # A pass without gradients whose dropout is to be that of a later one with them goes the same way.
    learns = qkv.requires_grad or (prefix is not None and prefix.requires_grad) or dropout > 0
    run = _matmul_run if learns and not qkv.is_cuda and max_seqlen <= MATMUL_UP_TO else _fused_run
    runs = [(length, sum(1 for _ in group)) for length, group in groupby(lengths)]
    layout = rounded_layout(lengths) if run is _matmul_run and qkv.device.type == "cpu" else None
    if layout is not None:
        runs = layout.runs
        qkv = _Spread.apply(qkv, layout.places, layout.rows)
    contexts = []
    for number, part in enumerate(qkv.split([length * count for length, count in runs])):
        length, count = runs[number]
        mask = visible(length, window, causal, qkv.device)
        if layout is not None and (known := layout.known[number]) is not None:
            mask = known if mask is None else known & mask
        q, k, v = part.view(count, length, *part.shape[1:]).permute(2, 0, 3, 1, 4).unbind(0)
        if prefix is not None:
            k, v = (
                torch.cat([before.to(x.dtype).transpose(0, 1).expand(count, -1, -1, -1), x], dim=2)
                for before, x in zip(prefix.unbind(1), (k, v), strict=True)
            )
            mask = None if mask is None else F.pad(mask, (len(prefix), 0), value=True)
        context = run(q, k, v, mask, dropout)
        contexts.append(context.transpose(1, 2).reshape(count * length, *part.shape[2:]))
    context = contexts[0] if len(contexts) == 1 else torch.cat(contexts)
    return context if layout is None else _Gather.apply(context, layout.places)


def attend_across(
    q: Tensor,
    kv: Tensor,
    q_lengths: Sequence[int],
    kv_lengths: Sequence[int],
    *,
    window: int | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Each sequence's queries look at keys and values of their own, of which there may be another number.

    Places are counted from the end: the last query stands where the last key does. Both ways of `attend` are here too.

    Shape: `U` queries and `K` keys of all sequences, `A` heads, `D` head width.

    Args:
        q: `[U, A, D]`.
        kv: keys and values, `[K, 2, A, D]`.
        q_lengths: queries of each of the S sequences.
        kv_lengths: keys of each.
        window: places seen to each side; None sees all.
        causal: see nothing of what comes after.
        dropout: probability of dropping an attention weight, 0 outside training.

    Returns:
        Contexts `[U, A, D]`.
    """
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and dropout == 0.0:
        from torch.nn.attention.varlen import varlen_attn

        cu_q, cu_k = (
            torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=q.device)
            for lengths in (q_lengths, kv_lengths)
        )
        reach = -1 if window is None else window
        size = (reach, 0 if causal else reach)
        k, v = kv.unbind(1)
        out = varlen_attn(q, k, v, cu_q, cu_k, max(q_lengths), max(kv_lengths), window_size=size)
        assert isinstance(out, Tensor)
        return out
    run = _matmul_run if q.requires_grad and not q.is_cuda and max(kv_lengths) <= MATMUL_UP_TO else _fused_run
    groups = [(pair, len(list(same))) for pair, same in groupby(zip(q_lengths, kv_lengths, strict=True))]
    runs = [(length, known, count) for (length, known), count in groups]
    queries = q.split([length * count for length, _, count in runs])
    keys = kv.split([known * count for _, known, count in runs])
    contexts = []
    for mine, seen, (length, known, count) in zip(queries, keys, runs, strict=True):
        k, v = seen.view(count, known, *seen.shape[1:]).permute(2, 0, 3, 1, 4).unbind(0)
        mask = visible(known, window, causal, q.device)
        mask = None if mask is None else mask[known - length :]
        context = run(mine.view(count, length, *mine.shape[1:]).transpose(1, 2), k, v, mask, dropout)
        contexts.append(context.transpose(1, 2).reshape(count * length, *mine.shape[1:]))
    return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


def attend_once(q: Tensor, parts: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> Tensor:
    """One query of each row looks at several groups of keys: those that all rows of a sequence share, and its own.

    Shape: `S` sequences, `R` rows of each, `A` heads, `D` head width, `n` keys of a group.

    Args:
        q: `[S, R, A, D]`.
        parts: keys and values, `[S, A, n, D]` where the rows share them and else `[S, R, A, n, D]`, and which of them
            are seen, `[S, n]` bool; None: all.

    Returns:
        Contexts `[S, R, A, D]`.
    """
    scores = []
    for k, _, seen in parts:
        found = torch.einsum("srad,sand->sran" if k.dim() == 4 else "srad,srand->sran", q, k)
        scores.append(found if seen is None else found.masked_fill(~seen[:, None, None], -torch.inf))
    weights = torch.softmax(torch.cat(scores, dim=-1).float() * q.shape[-1] ** -0.5, dim=-1).to(q.dtype)
    context = torch.zeros_like(q)
    for share, (_, v, _) in zip(weights.split([part.shape[-1] for part in scores], dim=-1), parts, strict=True):
        context = context + torch.einsum("sran,sand->srad" if v.dim() == 4 else "sran,srand->srad", share, v)
    return context


def _fused_run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Queries `[n, A, Q, D]`, keys and values `[n, A, L, D]` to contexts, never holding all weights at once."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def _matmul_run(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """The same by two batched matrix products, whose backward pass on a CPU is far quicker for short sequences."""
    count, heads, length, width = q.shape
    q, k, v = (x.reshape(count * heads, x.shape[2], width) for x in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2)) * width**-0.5
    if mask is not None:
        # Not minus infinity: a row of padding that sees nothing must not become NaN, which would spread backwards.
        least = torch.finfo(scores.dtype).min
        scores = scores.view(count, heads, length, -1).masked_fill(~mask, least).view_as(scores)
    weights = dropped(torch.softmax(scores, dim=-1), dropout)
    return torch.bmm(weights.to(v.dtype), v).view(count, heads, length, width)


@dataclass(frozen=True, slots=True)
class Layout:
    """Packed tokens in runs of sequences of nearly equal length.

    Attributes:
        runs: length and number of sequences of each.
        places: where each packed token goes, `[T]`.
        rows: of all runs together, padding included.
        known: of each run, which keys are tokens, `[n, 1, 1, L]`; None: all.
    """

    runs: list[tuple[int, int]]
    places: Tensor
    rows: int
    known: list[Tensor | None]


@lru_cache(maxsize=4)
def rounded_layout(lengths: tuple[int, ...]) -> Layout | None:
    """Runs of neighbours whose lengths round up to the same; None where that does not halve the number of runs.

    Args:
        lengths: of each sequence.
    """
    rounded = [-(-length // ROUNDED_TO) * ROUNDED_TO for length in lengths]
    runs = [(length, sum(1 for _ in group)) for length, group in groupby(rounded)]
    if 2 * len(runs) > sum(1 for _ in groupby(lengths)):
        return None
    own, whole = torch.tensor(lengths), torch.tensor(rounded)
    starts, ends = whole.cumsum(0) - whole, own.cumsum(0)
    places = torch.arange(int(ends[-1])) + torch.repeat_interleave(starts - (ends - own), own)
    known = [
        torch.arange(length).expand(count, 1, 1, length) < mine[:, None, None, None]
        for (length, count), mine in zip(runs, own.split([count for _, count in runs]), strict=True)
    ]
    return Layout(runs, places, int(whole.sum()), [None if bool(each.all()) else each for each in known])


class _Spread(torch.autograd.Function):
    """Rows put to their places among rows of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(places)
        return x.new_zeros(rows, *x.shape[1:]).index_copy_(0, places, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


class _Gather(torch.autograd.Function):
    """Rows taken from their places again; no two of them from one place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.shape = x.shape
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, places, gradient), None


def visible(length: int, window: int | None, causal: bool, device: torch.device) -> Tensor | None:
    """Which positions (columns) each position (row) may see, `[length, length]` bool; None where that is all of them.

    Args:
        length: of the sequence.
        window: how far a local layer sees; None sees all.
        causal: see nothing of what comes after.
        device: where to put it.
    """
    reach = length if window is None else window
    if length <= reach + 1 and not causal:
        return None
    position = torch.arange(length, device=device)
    back = position[:, None] - position[None, :]
    return (back >= (0 if causal else -reach)) & (back <= reach)


def rotary_table(position_ids: Tensor, head_size: int, theta: float) -> Tensor:
    """Cosines and sines of rotary positions.

    Args:
        position_ids: `[T]`.
        head_size: D, even.
        theta: base of the wavelengths.

    Returns:
        `[2, T, 1, D]` in fp32: cosines, then sines; halves repeated.

    Source: Su et al. 2021 (arXiv:2104.09864), in the half-split layout of Hugging Face.
    """
    # The order of operations is transformers': one rounding apart is 3e-5 radians at position 512.
    exponent = torch.arange(0, head_size, 2, device=position_ids.device, dtype=torch.float32) / head_size
    frequency = 1.0 / theta**exponent
    angle = position_ids[:, None].float() * frequency
    angle = torch.cat([angle, angle], dim=-1)[:, None, :]
    return torch.stack([angle.cos(), angle.sin()])


def rotate(qkv: Tensor, table: Tensor) -> Tensor:
    """Turn queries and keys by their positions; values stay.

    Args:
        qkv: queries, keys and values, `[T, 3, A, D]`.
        table: as `rotary_table` gives it.

    Returns:
        `[T, 3, A, D]`.
    """
    turned: Tensor = _Rotation.apply(qkv, table)
    return turned


class _Rotation(torch.autograd.Function):
    """Its backward pass is the same rotation the other way round, half the work of what autograd would do."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(table)
        return _rotated(qkv, table[0], table[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (table,) = ctx.saved_tensors
        return _rotated(gradient, table[0], -table[1]), None


def _rotated(qkv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = qkv.shape[-1] // 2
    cos, sin = cos[:, None, :, :half], sin[:, None, :, :half]
    first, second = qkv[:, :2].float().chunk(2, dim=-1)
    out = torch.empty_like(qkv)
    out[:, :2, :, :half] = first * cos - second * sin
    out[:, :2, :, half:] = second * cos + first * sin
    out[:, 2] = qkv[:, 2]
    return out
