"""Means of the weights over steps of a run: over the last ones alike, or over all with the newest weighing most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bertsmith.train.checkpoint import Checkpoint, load_tensors
from bertsmith.train.shards import own

AVERAGE = "average"


class Average:
    """A uniform mean of the weights after each of the last steps, in fp32.

    How many weights it holds is a function of the step alone, so a run that goes on needs nothing but the mean.

    Source: Izmailov et al. 2018 (arXiv:1803.05407); Sanyal et al. 2023 (arXiv:2306.03241) for averaging while
    pretraining. Differs: every step counts, under whatever schedule there is, and weights are not spaced apart.
    """

    def __init__(self, share: float, total: int) -> None:
        """Nothing is averaged yet.

        Args:
            share: of the run's last steps, 0 to 1; 0: never. A share above 0 takes one step at least.
            total: steps in all.
        """
        self.first = total - max(1, round(share * total)) if share else total
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(self, step: int, model: nn.Module) -> None:
        """Take the weights after a step into the mean, if it is one of the last.

        Args:
            step: updates done, the one just taken included.
            model: whose parameters that require gradients are averaged.
        """
        if (part := self.part(step)) is None:
            return
        weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        if not self.mean:
            self.mean = {name: weight.float().clone() for name, weight in weights.items()}
            return
        now = [weights[name].float() for name in self.mean]
        torch._foreach_lerp_(own(list(self.mean.values())), own(now), part)

    def part(self, step: int) -> float | None:
        """The newest weights' share of the mean after a `step`, 0 to 1; None where they are not taken."""
        return None if step <= self.first else 1 / (step - self.first)

    @contextmanager
    def inside(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights for a while; before there are any, it keeps its own.

        Args:
            model: whose own weights come back, to the bit.
        """
        parameters = dict(model.named_parameters())
        held = own([parameters[name].data for name in self.mean])
        before = [weight.clone() for weight in held]
        try:
            if held:
                torch._foreach_copy_(held, own(list(self.mean.values())))
            yield
        finally:
            if held:
                torch._foreach_copy_(held, before)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The mean, as `save_checkpoint` takes it."""
        return {AVERAGE: self.mean} if self.mean else {}

    def restore(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        """Go on from what `tensors` were when the checkpoint was written.

        Args:
            checkpoint: of a run with the same share and steps.
            model: on whose devices the mean is kept.
        """
        place = {name: parameter.device for name, parameter in model.named_parameters()}
        self.mean = {name: value.to(place[name]) for name, value in load_tensors(checkpoint, AVERAGE, model).items()}


class ExponentialAverage(Average):
    """A mean of the weights after all steps, in which each counts `decay` times as much as the one after it, in fp32.

    While few steps are done the decay is smaller, (1 + step) / (10 + step) at most, so that short runs are not held
    back by where they began.

    Source: Polyak & Juditsky 1992; the smaller decay at the start as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float | None) -> None:
        """Nothing is averaged yet.

        Args:
            decay: 0 to 1; None: never.
        """
        super().__init__(0.0, 0)
        self.decay = decay

    def part(self, step: int) -> float | None:
        """The newest weights' share of the mean after a `step`, 0 to 1; None where they are not taken."""
        return None if self.decay is None else 1 - min(self.decay, (1 + step) / (10 + step))
