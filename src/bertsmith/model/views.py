"""One encoder under the heads of several tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from bertsmith.model.config import Heads
from bertsmith.model.heads import Model, Taps
from bertsmith.model.packing import Batch


class Shared(Model):
    """One encoder, one pooler, and by name the heads of several tasks; a batch says whose heads read it.

    Attributes:
        views: by name a plain model of the shared encoder and pooler and that task's heads. What one learns in its
            encoder, all have learned.

    Source: Liu et al. 2019 (MT-DNN, arXiv:1901.11504), section 3.
    """

    def __init__(self, models: Iterable[tuple[str, Model]]) -> None:
        """Let models of one shape share the encoder and the pooler of the first that has one.

        Args:
            models: by name; they become the views. Names hold letters, digits, `_` and `-`.
        """
        views: dict[str, Model] = {}
        pooler: nn.ModuleDict | None = None
        for name, model in models:
            if views:
                model.encoder = next(iter(views.values())).encoder
            pooler = pooler or model.pooler
            if model.pooler is not None:
                model.pooler = pooler
            views[name] = model
        first = next(iter(views.values()))
        with torch.device("meta"):  # the encoder is there already
            super().__init__(first.config, Heads())
        self.encoder, self.pooler = first.encoder, pooler
        # A name of its own around each, so that no task's name is one that modules have.
        self.head = nn.ModuleDict({f"of_{name}": nn.ModuleDict({"head": view.head}) for name, view in views.items()})
        self.views = views

    def outputs(self, batch: Batch, taps: Taps) -> dict[str, Tensor]:
        """What the view that `batch.heads` names says.

        Args:
            batch: of one task.
            taps: as for a plain model.
        """
        return self.views[batch.heads].outputs(batch, taps)

    def train(self, mode: bool = True) -> Self:
        """Switch all views, too, which are no parts of it."""
        super().train(mode)
        for view in self.views.values():
            view.train(mode)
        return self


def view(model: Model, name: str) -> Model:
    """The plain model of a task: one of several, or the model itself.

    Args:
        model: of one task or several.
        name: the task's among several.
    """
    return model.views[name] if isinstance(model, Shared) else model
