"""Learning from few rows by comparing them: first the vectors of texts, then a logistic regression on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.model.contrast import cosent
from bertsmith.model.heads import Model, Taps
from bertsmith.model.packing import Batch, Encoding
from bertsmith.predict.engine import forward
from bertsmith.tasks.base import Loss
from bertsmith.tasks.windows import counter_rng
from bertsmith.train.feed import ExampleFeed
from bertsmith.train.losses import SUITS

TEMPERATURE = 0.05
"""Cosines are divided by it."""
EPOCHS, MOST_STEPS = 40, 500
"""How long is learned where nobody says: so often each row is compared, but no more updates than these."""
SPREAD = 1.0
"""How wide the logistic regression's weights may lie: the variance of their prior, scikit-learn's C."""


def refuse_contrastive(train: Any, tasks: Mapping[str, Any], *, alone: bool) -> None:
    """Refuse comparing rows where it means nothing.

    Args:
        train: the settings of the run.
        tasks: by name, with their rows read; of a single task the name is empty.
        alone: whether the run has no teacher and nothing else beside the task.

    Raises:
        ConfigError: names the setting, and what to do.
    """
    if not train.contrastive:
        return
    task = tasks.get("")
    if task is None or not alone:
        raise ConfigError("train.contrastive is for `bertsmith finetune` of one task; leave it out")
    output = getattr(task, "output", "")
    if task.decides != "classes" or output not in ("mean", "classify"):
        raise ConfigError(
            f"train.contrastive compares texts of one class with those of others, and {task.name} does not sort texts "
            "into classes of which each has one; leave it out"
        )
    if output != "mean":
        raise ConfigError("train.contrastive needs a classifier over the mean of the pieces: --set task.pooling=mean")
    if no_use := [name for name in (*SUITS, "adversarial") if getattr(train, name)]:
        raise ConfigError(f"train.{no_use[0]} changes a classifier's loss, which train.contrastive has not; choose one")


@dataclass(frozen=True)
class Contrast:
    """Rows of one class are to have more similar vectors than rows of two; the head follows from the vectors.

    Every pair of the rows of a step is compared, by the order of their cosines. The head is a multinomial logistic
    regression on the vectors of all rows, fitted before each evaluation, so that it is the exact best for them.

    Attributes:
        model: whose vectors are learned; has a head over the mean of a text's pieces.
        encodings: all rows to learn from, with targets.

    Source: Tunstall et al. 2022 (SetFit, arXiv:2209.11055). Differs: all pairs of a step count, and by the order of
        their cosines (CoSENT) instead of their distance from 0 and 1.
    """

    model: Model
    encodings: Sequence[Encoding]
    joint = True

    def __post_init__(self) -> None:
        """Let the model show its vectors while it learns."""
        self.model.taps = Taps(vectors=True)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """How far the cosines of the step's pairs are out of order."""
        vectors, labels = F.normalize(outputs["vectors"].float(), dim=-1), batch.targets["label"]
        first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
        cosines = (vectors[first] * vectors[second]).sum(-1)
        same = labels[first] == labels[second]
        count = len(labels)
        parts = {
            name: (cosines.detach()[pairs].sum(), int(pairs.sum()))
            for name, pairs in (("same", same), ("other", ~same))
        }
        loss = cosent(cosines / TEMPERATURE, same.float())
        return Loss(loss * count, count, {name: part for name, part in parts.items() if part[1]})

    @torch.no_grad()
    def fit(self, precision: Precision) -> None:
        """Make the head the logistic regression on the vectors that the rows have now.

        Args:
            precision: of matrix products.
        """
        head = cast(nn.Linear, self.model.head["mean"])
        vectors = torch.empty(len(self.encodings), head.in_features, device=head.weight.device)
        for places, _, outputs in forward(self.model, self.encodings, precision=precision, pooling="mean"):
            vectors[torch.from_numpy(places).to(vectors.device)] = outputs["embed"].float()
        labels = torch.tensor([int(encoding.targets["label"]) for encoding in self.encodings], device=vectors.device)
        weight, bias = logistic_regression(vectors, labels, head.out_features)
        head.weight.copy_(weight)
        head.bias.copy_(bias)


@torch.enable_grad()
def logistic_regression(vectors: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The multinomial logistic regression of least cross-entropy (summed) plus |weights|^2 / (2 `SPREAD`).

    Args:
        vectors: `[N, H]`.
        labels: `[N]` int64.
        classes: C.

    Returns:
        Weights `[C, H]` and biases `[C]`, in fp32: of three classes and more those
        that scikit-learn's LogisticRegression finds by default.
    """
    x = vectors.double()
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels, reduction="sum") + weight.square().sum() / (2 * SPREAD)
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach().float(), bias.detach().float()


class PairFeed(ExampleFeed):
    """Batches of rows of which half are drawn to be of the class of another: each row finds one of its own.

    An epoch goes once over all rows. Which row stands beside another is a pure function of (seed, step).
    """

    def __init__(self, encodings: Sequence[Encoding], *, seed: int, batch_size: int, parts: int = 1) -> None:
        """Hold the rows.

        Args:
            encodings: what the task made of its examples, with targets.
            seed: of the order and of the partners.
            batch_size: rows of a step, partners included.
            parts: batches that a step is cut into.
        """
        super().__init__(encodings, seed=seed, batch_size=max(1, batch_size // 2), parts=parts)
        self._labels = [int(encoding.targets["label"]) for encoding in encodings]
        self._rows: dict[int, list[int]] = defaultdict(list)
        for place, label in enumerate(self._labels):
            self._rows[label].append(place)

    @property
    def tokens_per_step(self) -> float:
        """Packed tokens of an average step."""
        return 2 * super().tokens_per_step

    def chosen(self, step: int) -> Sequence[int]:
        """The rows of `step`, from 0, each followed by another of its class; by itself where there is no other."""
        rng = counter_rng(self.seed, 4, step)
        pairs = []
        for row in super().chosen(step):
            others = self._rows[self._labels[row]]
            at = int(np.searchsorted(others, row))
            drawn = int(rng.integers(max(1, len(others) - 1)))
            partner = others[drawn + (drawn >= at)] if len(others) > 1 else row
            pairs += [row, partner]
        return pairs
