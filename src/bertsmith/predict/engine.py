"""Running a model over many sequences: batches by number of tokens, sorted by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertsmith.core.device import Precision
from bertsmith.model.embedding import Pooling, pool
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding, pack
from bertsmith.tasks.base import Answer, Example, Task, split


def token_batches(lengths: Sequence[int], batch_tokens: int) -> list[NDArray[np.int64]]:
    """Indices of sequences, in batches of at most `batch_tokens` pieces, longest first; a longer one goes alone."""
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
    batches: list[list[int]] = []
    room = 0
    for index in order.tolist():
        if lengths[index] > room or not batches:
            batches.append([])
            room = batch_tokens
        batches[-1].append(index)
        room -= lengths[index]
    return [np.array(batch, dtype=np.int64) for batch in batches]


def forward(
    model: Model,
    encodings: Sequence[Encoding],
    *,
    batch_tokens: int = 8192,
    precision: Precision | None = None,
    mask_id: int | None = None,
    pooling: Pooling | None = None,
    ask: Callable[[Model, Batch], dict[str, Tensor]] | None = None,
) -> Iterator[tuple[NDArray[np.int64], Batch, dict[str, Tensor]]]:
    """Run the model without dropout and without gradients.

    Args:
        model: on its device; left in the mode in which it was.
        encodings: the sequences, in any order.
        batch_tokens: pieces a batch.
        precision: matrix products' type; None: fp32.
        mask_id: the piece at whose places the MLM head is asked; None does not ask it.
        pooling: ask no head, and give `embed` `[S, H]` pooled so; None asks the heads.
        ask: what to ask the model for instead of its heads' outputs, such as a text to be written.

    Yields:
        Which encodings a batch holds, the batch, and the model's outputs.
    """
    device = next(model.parameters()).device
    low = precision is not None and precision.dtype != torch.float32
    training = model.training
    if training:  # it goes through all modules, which for one short text is felt
        model.eval()
    try:
        for indices in token_batches([len(encoding) for encoding in encodings], batch_tokens):
            batch = pack([encodings[i] for i in indices])
            if mask_id is not None:
                batch = pack(
                    [encodings[i] for i in indices], {"mlm_positions": (batch.input_ids == mask_id).nonzero()[:, 0]}
                )
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
                batch_there = batch.to(device)
                if ask is not None:
                    outputs = ask(model, batch_there)
                elif pooling is None:
                    outputs = model(batch_there)
                else:
                    outputs = {"embed": pool(model.hidden(batch_there), batch_there, pooling)}
            yield indices, batch, outputs
    finally:
        if training:
            model.train()


def answer(task: Task, model: Model, examples: Sequence[Example], tally: Any = None, **how: Any) -> list[Answer]:
    """The task's answers to the examples, in their order. A sequence that several examples share is computed once.

    Args:
        task: encodes and decodes; what it asks of the model, where that is more than logits, is its attribute `ask`.
        model: with the task's head.
        examples: labelled or not.
        tally: counts texts that had to be cut.
        how: `batch_tokens` and `precision`, as for `forward`.
    """
    encodings = task.encode(examples, tally)
    distinct: dict[tuple[int, int], Encoding] = {}
    for encoding in encodings:
        distinct.setdefault(_same(encoding), encoding)
    place = {key: number for number, key in enumerate(distinct)}
    outputs: list[dict[str, NDArray[np.float32]]] = [{}] * len(distinct)
    for indices, batch, result in forward(model, list(distinct.values()), ask=getattr(task, "ask", None), **how):
        for index, part in zip(indices, split(result, batch), strict=True):
            outputs[index] = part
    return task.decode([outputs[place[_same(encoding)]] for encoding in encodings], encodings, examples)


def _same(encoding: Encoding) -> tuple[int, int]:
    """Equal for encodings that share their arrays."""
    return id(encoding.input_ids), id(encoding.segment_ids)
