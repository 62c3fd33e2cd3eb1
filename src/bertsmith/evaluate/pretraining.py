"""How well a pretrained model predicts held-out text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from bertsmith.core.device import Precision
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch
from bertsmith.tasks.pretraining import Pretraining


def held_out_scores(
    model: Model,
    task: Pretraining,
    batches: Sequence[Batch],
    precision: Precision,
    gather: Callable[[Sequence[Any]], Sequence[Any]] = list,
) -> dict[str, float]:
    """Mean MLM loss (nats) and accuracy at 15 % masks, and those of the pairs, over batches that are always the same.

    Args:
        model: on its device; left in the mode in which it was.
        task: gives the losses.
        batches: held-out text, masked.
        precision: of matrix products.
        gather: puts together what several processes found, when each has a part of the batches.

    Returns:
        `mlm_loss`, `mlm_accuracy` (of the generator, where tokens are replaced; then `rtd_loss`, `rtd_accuracy`,
        `rtd_recall` and `rtd_replaced` of the encoder) and, with pairs, `nsp_loss`, `nsp_accuracy` or `sop_loss`,
        `sop_accuracy`.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    parts = []
    low = precision.dtype != torch.float32
    for batch in batches:
        batch = batch.to(device)
        with torch.no_grad(), torch.autocast(device.type, dtype=precision.dtype, enabled=low):
            parts.append(task.loss(model(batch), batch).parts)
    model.train(training)
    return task.score(gather(task.decode(parts)))
