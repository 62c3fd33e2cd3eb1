"""What a loss is taken of, target by target: so that its form can be chosen without knowing the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from bertsmith.tasks.base import Loss

Decided = Literal["classes", "sets", "numbers", "places", "pieces"]
"""What a task decides: one of its labels, any of its labels, a number, one of what the row holds, the next piece."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Logits, and for each of N targets what is right; targets that do not count are left out.

    Attributes:
        kind: `classes`: one of C is right; `sets`: any of C may be; `numbers`: C is 1.
        logits: `[N, C]` in fp32; -inf for what cannot be chosen.
        gold: `[N]` int64, `[N, C]` of 0 and 1, or `[N]` numbers.
        share: of a target's loss that is taken of these, 0 to 1.
    """

    kind: Literal["classes", "sets", "numbers"]
    logits: Tensor
    gold: Tensor
    share: float = 1.0

    def loss(self) -> Loss:
        """Cross-entropy; of sets that of each label by itself; of numbers the squared error."""
        logits, gold, count = self.logits, self.gold, len(self.logits)
        if self.kind == "numbers":
            return Loss(F.mse_loss(logits[:, 0], gold, reduction="sum"), count)
        if self.kind == "sets":
            total = F.binary_cross_entropy_with_logits(logits, gold, reduction="sum")
            return Loss(total, count, {"accuracy": (((logits.detach() > 0) == (gold > 0)).all(-1).sum(), count)})
        total = F.cross_entropy(logits, gold, reduction="sum")
        return Loss(total, count, {"accuracy": ((logits.detach().argmax(-1) == gold).sum(), count)})
