"""Dropout that does not hold a processor up."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 1 << 16
"""Probabilities are rounded to so many parts on a CPU."""
SMALL = 1 << 14
"""Up to so many elements torch is quick enough."""


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zero each element with probability `p`, and scale the others by 1 / (1 - p).

    On a CPU torch draws one element after the other, under a lock, which took a quarter of a fine-tuning step. There
    the masks come from the raw bits of SFC64, started from torch's generator at each call: what is drawn is a function
    of `torch.manual_seed`, as ever. Small tensors, compiled graphs and other devices have torch's own.

    Args:
        x: any shape.
        p: 0 to below 1; on a CPU as a whole number of 65,536ths.
        training: False gives `x`.

    Source: Srivastava et al. 2014 (JMLR 15).
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling() or x.numel() <= SMALL:
        return F.dropout(x, p)
    dropped = min(round(p * STEPS), STEPS - 1)
    seed = int(torch.randint(2**63 - 1, ()))
    bits = np.random.SFC64(seed).random_raw(-(-x.numel() // 4)).view(np.int16)[: x.numel()]
    kept = torch.from_numpy(bits) >= dropped - STEPS // 2
    return x * kept.to(x.dtype).mul_(STEPS / (STEPS - dropped)).view(x.shape)
