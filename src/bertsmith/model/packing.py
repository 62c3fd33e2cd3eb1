"""Encodings into a Batch: sequences of any length laid end to end, no padding anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Encoding:
    """One sequence, ready to be packed.

    Attributes:
        input_ids: piece ids with [CLS] and [SEP], `[n]`.
        segment_ids: 0 for the first text, 1 for the second, `[n]`.
        targets: what the task learns from this sequence; numbers, or arrays `[n]`.
        reads: the places whose hidden states a head reads, `[K]`; as many in each sequence.
    """

    input_ids: NDArray[np.int32]
    segment_ids: NDArray[np.int32]
    targets: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Length in pieces."""
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed tensors for one step.

    Shape: `S` sequences, `T` packed tokens.

    Attributes:
        input_ids: `[T]` int64.
        segment_ids: `[T]` int64, 0 or 1.
        position_ids: `[T]` int64, counted from 0 in each sequence.
        cu_seqlens: `[S + 1]` int32, where each sequence starts, and the end.
        max_seqlen: the longest sequence.
        targets: the task's targets, by name.
        lengths: length of each sequence, known without asking the device.
        causal: tokens see only what stands before them.
        reads: the places whose hidden states a head reads, as indices into the packed tokens, `[S, K]` int64.
        heads: whose heads read it, where a model has those of several tasks.
    """

    input_ids: Tensor
    segment_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    targets: Mapping[str, Tensor]
    lengths: tuple[int, ...]
    causal: bool = False
    reads: Tensor | None = None
    heads: str = ""

    @property
    def num_sequences(self) -> int:
        """S."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """T."""
        return int(self.input_ids.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device` (copied without blocking where memory is pinned)."""
        if device == self.input_ids.device:
            return self
        move = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("input_ids", "segment_ids", "position_ids", "cu_seqlens")
        }
        targets = {name: value.to(device, non_blocking=True) for name, value in self.targets.items()}
        reads = None if self.reads is None else self.reads.to(device, non_blocking=True)
        return replace(self, **move, targets=targets, reads=reads)


def pack(encodings: Sequence[Encoding], targets: Mapping[str, Tensor] | None = None) -> Batch:
    """Lay encodings end to end, in the order given.

    Attention runs over neighbours of equal length together, so sorting by length first is faster; it is never needed.

    Args:
        encodings: S sequences, each with at least one piece.
        targets: the task's targets for the whole batch.
    """
    lengths = np.fromiter((len(e.input_ids) for e in encodings), dtype=np.int64, count=len(encodings))
    ids = np.concatenate([e.input_ids for e in encodings])
    segments = np.concatenate([e.segment_ids for e in encodings])
    batch = pack_arrays(ids, segments, lengths, targets)
    if not encodings[0].reads:
        return batch
    starts = np.cumsum(lengths) - lengths
    return replace(batch, reads=torch.from_numpy(np.array([e.reads for e in encodings]) + starts[:, None]))


def join(batches: Sequence[Batch]) -> Batch:
    """Batches laid end to end as one, targets and all.

    Args:
        batches: at least one, of the same kind.
    """
    starts = np.cumsum([0, *(batch.num_tokens for batch in batches)]).tolist()
    cuts = [batch.cu_seqlens[:-1] + start for batch, start in zip(batches, starts, strict=False)]
    last = batches[-1].cu_seqlens[-1:] + starts[len(batches) - 1]

    def end_to_end(name: str) -> Tensor:
        return torch.cat([getattr(batch, name) for batch in batches])

    return Batch(
        input_ids=end_to_end("input_ids"),
        segment_ids=end_to_end("segment_ids"),
        position_ids=end_to_end("position_ids"),
        cu_seqlens=torch.cat([*cuts, last]),
        max_seqlen=max(batch.max_seqlen for batch in batches),
        targets={name: torch.cat([batch.targets[name] for batch in batches]) for name in batches[0].targets},
        lengths=tuple(length for batch in batches for length in batch.lengths),
        causal=batches[0].causal,
        reads=_joined_reads(batches, starts),
        heads=batches[0].heads,
    )


def _joined_reads(batches: Sequence[Batch], starts: Sequence[int]) -> Tensor | None:
    found = [batch.reads + start for batch, start in zip(batches, starts, strict=False) if batch.reads is not None]
    return torch.cat(found) if found else None


def pack_arrays(
    input_ids: NDArray[Any],
    segment_ids: NDArray[Any],
    lengths: NDArray[np.int64],
    targets: Mapping[str, Tensor] | None = None,
    *,
    causal: bool = False,
) -> Batch:
    """A Batch from arrays that already lie end to end.

    Args:
        input_ids: `[T]`.
        segment_ids: `[T]`.
        lengths: `[S]`, summing to T, none zero.
        targets: the task's targets.
        causal: tokens see only what stands before them.
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    positions = np.arange(len(input_ids), dtype=np.int64) - np.repeat(starts, lengths)
    return Batch(
        input_ids=torch.from_numpy(input_ids.astype(np.int64)),
        segment_ids=torch.from_numpy(segment_ids.astype(np.int64)),
        position_ids=torch.from_numpy(positions),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)),
        max_seqlen=int(lengths.max()),
        targets=dict(targets or {}),
        lengths=tuple(lengths.tolist()),
        causal=causal,
    )
